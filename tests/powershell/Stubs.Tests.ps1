BeforeAll {
    . $PSScriptRoot/Harness.ps1

    # The text of the error that a call gives; nothing if there is none.
    function Get-Refusal {
        param([string]$Cmdlet, [hashtable]$Parameters)
        try { $null = & $Cmdlet @Parameters -ErrorAction Stop -WarningAction SilentlyContinue }
        catch { return "$_" }
    }

    function New-Receive {
        param([hashtable]$More)
        $given = @{ Name = 'From gateway'; TransportRole = 'FrontendTransport'; Custom = $true; Bindings = @('0.0.0.0:25'); RemoteIPRanges = @('192.0.2.1') }
        foreach ($name in $More.Keys) { if ($null -eq $More[$name]) { $given.Remove($name) } else { $given[$name] = $More[$name] } }
        $given
    }
}

Describe 'the stubs' {
    BeforeEach { $null = New-Organisation }
    AfterEach { Remove-Organisation }

    It 'have the parameters that are documented for this edition, and no others' {
        $reference = Get-Content -Raw $PSScriptRoot/exchange-cmdlets.json | ConvertFrom-Json -AsHashtable
        foreach ($name in (Import-PowerShellDataFile $PSScriptRoot/modules/ExchangeStubs/ExchangeStubs.psd1).FunctionsToExport | Where-Object { $_ -ne 'Get-CimInstance' }) {
            $documented = $reference.cmdlets[$name].parameters.GetEnumerator() | Where-Object { 'SE' -in $_.Value.applicable } | ForEach-Object { $_.Key }
            $common = [System.Management.Automation.Cmdlet]::CommonParameters
            $there = (Get-Command $name).Parameters.Keys | Where-Object { $_ -notin $common }
            $there | Sort-Object | Should -Be @($documented | Sort-Object) -Because $name
        }
    }

    It 'do not know -FileName, which newer editions lack' {
        { Import-ExchangeCertificate -FileName x -ErrorAction Stop } | Should -Throw '*parameter*FileName*'
    }

    It 'end nothing by an error, unless they are told to' {
        $after = & { Set-SendConnector -Identity 'none' -Port 26 -ErrorAction SilentlyContinue -ErrorVariable said; "on: $($said[-1])" }
        $after | Should -BeLike "on: *'none' couldn't be found*"
    }

    It 'refuse <Cmdlet>: <Text>' -ForEach @(
        # types, names and values
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; RequireTLS = 'yes' }; Text = '*Cannot convert value "yes" to type Boolean*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; RequireTLS = $null }; Text = '*to type Boolean*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; Port = 'x' }; Text = '*to type Int32*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Port = 26 }; Text = '*mandatory parameters: Identity*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = $null; Port = 26 }; Text = '*mandatory parameters: Identity*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; TlsAuthLevel = 'Encryption' }; Text = '*possible enumeration values are "EncryptionOnly, *' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; TlsCertificateName = 'CN=x' }; Text = '*SmtpX509Identifier*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; TlsDomain = 'a.*.example.test' }; Text = '*SmtpDomainWithSubdomains*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; Fqdn = 'a b' }; Text = '*to type Fqdn*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; SmartHostAuthMechanism = @('BasicAuth', 'ExchangeServer') }; Text = '*SmartHostAuthMechanism*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'nobody'; Port = 26 }; Text = "*object 'nobody' couldn't be found*" }
        @{ Cmdlet = 'Get-ReceiveConnector'; Parameters = @{ Server = 'EX1'; Identity = 'x' }; Text = '*Parameter set cannot be resolved*' }
        # send connectors
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; RequireTLS = $true; IgnoreSTARTTLS = $true }; Text = '*RequireTLS*IgnoreSTARTTLS*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; TlsAuthLevel = 'EncryptionOnly' }; Text = '*TlsAuthLevel cannot be set*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; RequireTLS = $true; TlsAuthLevel = 'EncryptionOnly'; TlsDomain = 'x.test' }; Text = 'The TLSDomain parameter can only be set if*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; RequireTLS = $true; TlsAuthLevel = 'DomainValidation' }; Text = '*TlsDomain has to be set*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; DNSRoutingEnabled = $false }; Text = '*SmartHosts in the same call*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; DNSRoutingEnabled = $true; SmartHosts = @('gw.test') }; Text = '*only be set if DNSRoutingEnabled*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; SmartHosts = @() }; Text = '*needs SmartHosts*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; DomainSecureEnabled = $true }; Text = '*DomainSecureEnabled needs DNS*' }
        @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; SourceTransportServers = @('EX9') }; Text = "*object 'EX9'*" }
        @{ Cmdlet = 'New-SendConnector'; Parameters = @{ Name = 'x' }; Text = '*mandatory parameters: AddressSpaces*' }
        @{ Cmdlet = 'New-SendConnector'; Parameters = @{ Name = 'x'; AddressSpaces = @('x.test'); SmartHosts = @('gw.test') }; Text = '*only be set if DNSRoutingEnabled*' }
        @{ Cmdlet = 'New-SendConnector'; Parameters = @{ Name = 'To gateway'; AddressSpaces = @('x.test') }; Text = '*already exists*' }
        @{ Cmdlet = 'New-SendConnector'; Parameters = @{ Name = 'x'; AddressSpaces = @('x.test'); Custom = $true; Internet = $true }; Text = '*one usage type*' }
        # receive connectors
        @{ Cmdlet = 'Set-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Default EX1'; RequireTLS = $true; AuthMechanism = 'Integrated' }; Text = '*RequireTLS*Tls*' }
        @{ Cmdlet = 'Set-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Default EX1'; AuthMechanism = @('None', 'Tls') }; Text = '*None cannot be combined*' }
        @{ Cmdlet = 'Set-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Default EX1'; AuthMechanism = @('Tls', 'BasicAuthRequireTLS') }; Text = '*needs the values BasicAuth and Tls*' }
        @{ Cmdlet = 'Set-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Default EX1'; AuthMechanism = @('Tls', 'Integrated', 'ExternalAuthoritative') }; Text = '*only be combined with Tls*' }
        @{ Cmdlet = 'Set-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Default EX1'; AuthMechanism = @('Tls', 'ExternalAuthoritative'); PermissionGroups = 'AnonymousUsers' }; Text = '*needs the permission group ExchangeServers*' }
        @{ Cmdlet = 'Set-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Default EX1'; Fqdn = 'mail.example.test' }; Text = '*Fqdn has to be ex1.example.test*' }
        @{ Cmdlet = 'Set-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Default EX1'; SuppressXAnonymousTls = $true }; Text = '*UseDowngradedExchangeServerAuth*' }
        @{ Cmdlet = 'Set-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Default EX1'; Bindings = @('0.0.0.0:25') }; Text = '*conflict with the settings on Receive connector "EX1\Default Frontend EX1"*' }
        @{ Cmdlet = 'Set-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Client Frontend EX1'; Bindings = @('0.0.0.0:25') }; Text = '*conflict with the settings*' }
        @{ Cmdlet = 'Set-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Default EX1'; Bindings = @('25') }; Text = '*not a valid IP binding*' }
        @{ Cmdlet = 'Set-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Default EX1'; RemoteIPRanges = @('gw.test') }; Text = '*not a valid IP address range*' }
        # certificates and queues
        @{ Cmdlet = 'Import-ExchangeCertificate'; Parameters = @{ Password = 'x' }; Text = '*SecureString*' }
        @{ Cmdlet = 'Import-ExchangeCertificate'; Parameters = @{ FileData = 'x' }; Text = '*Byte*' }
        @{ Cmdlet = 'Import-ExchangeCertificate'; Parameters = @{ FileData = [byte[]](1, 2) }; Text = '*password is not correct*' }
        @{ Cmdlet = 'Enable-ExchangeCertificate'; Parameters = @{ Thumbprint = 'A0'; Services = 'SMTP' }; Text = '*A0 was not found*' }
        @{ Cmdlet = 'Enable-ExchangeCertificate'; Parameters = @{ Thumbprint = 'A0' }; Text = '*mandatory parameters: Services*' }
        @{ Cmdlet = 'Remove-SendConnector'; Parameters = @{ Identity = 'To gateway' }; Text = '*does not support user interaction*' }
        @{ Cmdlet = 'Remove-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Default EX1'; Confirm = $true }; Text = '*does not support user interaction*' }
        @{ Cmdlet = 'Retry-Queue'; Parameters = @{ Identity = 'EX1\9' }; Text = "*doesn't exist*" }
        @{ Cmdlet = 'Get-ExchangeServer'; Parameters = @{ Identity = 'EX9' }; Text = "*object 'EX9'*" }
    ) {
        $before = [System.IO.File]::ReadAllText("$env:EXCHANGE_STUBS_DIRECTORY/state.json")
        Get-Refusal $Cmdlet $Parameters | Should -BeLike $Text
        [System.IO.File]::ReadAllText("$env:EXCHANGE_STUBS_DIRECTORY/state.json") | Should -BeExactly $before
    }

    It 'refuse a new receive connector <Why>' -ForEach @(
        @{ Why = 'without a role'; More = @{ TransportRole = $null }; Text = '*TransportRole*' }
        @{ Why = 'without ranges'; More = @{ RemoteIPRanges = $null }; Text = '*RemoteIPRanges*' }
        @{ Why = 'without a binding'; More = @{ Bindings = $null }; Text = '*Bindings*' }
        @{ Why = 'with the ranges of another'; More = @{ RemoteIPRanges = @('0.0.0.0-255.255.255.255') }; Text = '*conflict with the settings*' }
        @{ Why = 'of another role on the same port'; More = @{ TransportRole = 'HubTransport' }; Text = '*conflict with the settings*' }
        @{ Why = 'with a name that is there'; More = @{ Name = 'Default EX1'; Bindings = @('0.0.0.0:26') }; Text = '*already exists*' }
        @{ Why = 'with a long name'; More = @{ Name = 'x' * 65 }; Text = '*64 characters*' }
        @{ Why = 'of two usage types'; More = @{ Internet = $true }; Text = '*' }
    ) { Get-Refusal 'New-ReceiveConnector' (New-Receive $More) | Should -BeLike $Text }

    It 'take ranges that lie in each other, and no others' {
        Get-Refusal 'New-ReceiveConnector' (New-Receive @{ RemoteIPRanges = @('192.0.2.0/28') }) | Should -BeNullOrEmpty
        Get-Refusal 'New-ReceiveConnector' (New-Receive @{ Name = 'b'; RemoteIPRanges = @('192.0.2.4-192.0.2.6') }) | Should -BeNullOrEmpty
        Get-Refusal 'New-ReceiveConnector' (New-Receive @{ Name = 'c'; RemoteIPRanges = @('192.0.2.5-192.0.2.9') }) | Should -BeLike '*conflict*"EX1\b"*'
        Get-Refusal 'New-ReceiveConnector' (New-Receive @{ Name = 'd'; RemoteIPRanges = @('192.0.2.5-192.0.2.9'); Bindings = @('0.0.0.0:26') }) | Should -BeNullOrEmpty
    }

    It 'warn when nothing was modified' {
        Set-SendConnector -Identity 'To gateway' -Port 25 -WarningVariable said -WarningAction SilentlyContinue
        "$said" | Should -BeLike '*no settings*modified*'
    }

    It 'add to lists and take from them' {
        Set-SendConnector -Identity 'To gateway' -SmartHosts @{ Add = 'gw2.test'; Remove = '[192.0.2.1]' }
        (Get-State).SendConnectors[0].SmartHosts | Should -Be @('gw2.test')
    }

    It 'give all objects for an identity that is null or unknown' {
        @(Get-ReceiveConnector -Identity $null) | Should -HaveCount 3
        @(Get-ReceiveConnector -Identity 'nobody') | Should -HaveCount 3
        @(Get-ReceiveConnector -Identity 'EX1\Default EX1') | Should -HaveCount 1
    }

    It 'show address spaces as Exchange does' {
        $null = New-SendConnector -Name 'x' -AddressSpaces 'x.test' -WarningAction SilentlyContinue
        "$((Get-SendConnector -Identity 'x').AddressSpaces)" | Should -BeExactly 'SMTP:x.test;1'
    }

    It 'replace the default certificate by -Force, and refuse to ask' {
        $null = Import-ExchangeCertificate -FileData ([System.Convert]::FromBase64String((New-Pfx))) -Password (ConvertTo-SecureString 'secret-of-the-test' -AsPlainText -Force)
        $new = $keys.Public.Thumbprint
        Get-Refusal 'Import-ExchangeCertificate' @{ FileData = [System.Convert]::FromBase64String((New-Pfx)); Password = (ConvertTo-SecureString 'secret-of-the-test' -AsPlainText -Force) } | Should -BeLike '*already exists*'
        (Get-TransportService -Identity EX1).InternalTransportCertificateThumbprint.ToString() | Should -BeExactly $keys.Own.Thumbprint
        Get-Refusal 'Enable-ExchangeCertificate' @{ Thumbprint = $new; Services = 'SMTP' } | Should -BeLike '*user interaction*'
        Get-Refusal 'Enable-ExchangeCertificate' @{ Thumbprint = $new; Services = 'IIS' } | Should -BeNullOrEmpty
        Get-Refusal 'Enable-ExchangeCertificate' @{ Thumbprint = $new; Services = 'SMTP'; Force = $true } | Should -BeNullOrEmpty
        (Get-TransportService -Identity EX1).InternalTransportCertificateThumbprint.ToString() | Should -BeExactly $new
        (Get-ExchangeCertificate -Thumbprint $new).Services.ToString() | Should -BeExactly 'IIS, SMTP'
        Get-Refusal 'Remove-ExchangeCertificate' @{ Thumbprint = $new; Confirm = $false } | Should -BeLike '*internal transport certificate cannot be removed*'
        [System.IO.File]::Exists((Get-State).Certificates[1].File) | Should -BeTrue
    }

    It 'keep a certificate that a send connector names, and not one that a receive connector names' {
        $pair = "<I>$($keys.Public.Issuer)<S>$($keys.Public.Subject)"
        $null = Import-ExchangeCertificate -FileData ([System.Convert]::FromBase64String((New-Pfx))) -Password (ConvertTo-SecureString 'secret-of-the-test' -AsPlainText -Force)
        Set-ReceiveConnector -Identity 'EX1\Default EX1' -TlsCertificateName $pair
        Set-SendConnector -Identity 'To gateway' -TlsCertificateName $pair
        Get-Refusal 'Remove-ExchangeCertificate' @{ Thumbprint = $keys.Public.Thumbprint; Confirm = $false } | Should -BeLike '*tagged with following Send Connectors : To gateway*'
        Set-SendConnector -Identity 'To gateway' -TlsCertificateName $null
        Get-Refusal 'Remove-ExchangeCertificate' @{ Thumbprint = $keys.Public.Thumbprint; Confirm = $false } | Should -BeNullOrEmpty
        (Get-State).Certificates | Should -HaveCount 1
    }

    It 'refuse a PFX with AES on Windows Server 2016' {
        Edit-State { param($state) $state['Windows'] = @{ Version = '10.0.14393' } }
        $password = ConvertTo-SecureString 'secret-of-the-test' -AsPlainText -Force
        $new = $keys.Public.ExportPkcs12('Pbes2Aes256Sha256', 'secret-of-the-test')
        Get-Refusal 'Import-ExchangeCertificate' @{ FileData = $new; Password = $password } | Should -BeLike '*password is not correct*'
        $old = $keys.Public.ExportPkcs12('Pkcs12TripleDesSha1', 'secret-of-the-test')
        Get-Refusal 'Import-ExchangeCertificate' @{ FileData = $old; Password = $password } | Should -BeNullOrEmpty
    }

    It 'do nothing with -WhatIf' {
        Set-SendConnector -Identity 'To gateway' -Port 26 -WhatIf
        (Get-State).SendConnectors[0].Contains('Port') | Should -BeFalse
    }
}
