BeforeAll { . $PSScriptRoot/Harness.ps1 }

Describe 'read' {
    BeforeEach { $null = New-Organisation }
    AfterEach { Remove-Organisation }

    It 'changes nothing and fails nowhere' {
        $before = [System.IO.File]::ReadAllText("$env:EXCHANGE_STUBS_DIRECTORY/state.json")
        $result = Invoke-Module @{ operation = 'read' }
        $result.changed | Should -BeFalse
        $result.Contains('failed') | Should -BeFalse
        $result.observed.Errors.Count | Should -Be 0
        $result.reach | Should -Be 'loaded'
        [System.IO.File]::ReadAllText("$env:EXCHANGE_STUBS_DIRECTORY/state.json") | Should -BeExactly $before
        Get-Calls | Should -BeNullOrEmpty
    }

    It 'names everything that it promises, and nothing as unknown' {
        $observed = (Invoke-Module @{ operation = 'read' }).observed
        $observed.Keys | Sort-Object | Should -Be @('AcceptedDomains', 'Errors', 'ExchangeCertificates', 'Queues', 'ReceiveConnectors',
            'SendConnectors', 'Server', 'TransportService', 'Windows')
        $expected = @{
            Server = 'Name Fqdn AdminDisplayVersion ServerRole IsEdgeServer'
            TransportService = 'InternalTransportCertificateThumbprint'
            ExchangeCertificates = 'Thumbprint Subject Issuer CertificateDomains Services Status IsSelfSigned NotAfter NotBefore RawData HasPrivateKey RootCAType'
            ReceiveConnectors = 'Identity Name Enabled Bindings RemoteIPRanges Fqdn AuthMechanism PermissionGroups RequireTLS TlsCertificateName TransportRole TlsDomainCapabilities SuppressXAnonymousTls ProtocolLoggingLevel Guid'
            SendConnectors = 'Identity Name Enabled AddressSpaces SmartHosts DNSRoutingEnabled Port Fqdn RequireTLS IgnoreSTARTTLS TlsAuthLevel TlsDomain TlsCertificateName DomainSecureEnabled CloudServicesMailEnabled FrontendProxyEnabled SourceTransportServers Guid'
        }
        foreach ($name in $expected.Keys) {
            $one = @($observed[$name])[0]
            $one.Unknown | Should -BeNullOrEmpty -Because $name
            $one.Keys | Sort-Object | Should -Be @($expected[$name].Split(' ') + 'Unknown' | Sort-Object) -Because $name
        }
    }

    It 'keeps each kind of value' {
        $observed = (Invoke-Module @{ operation = 'read' }).observed
        $observed.Server.Name | Should -BeExactly 'EX1'
        $observed.Server.AdminDisplayVersion | Should -BeExactly 'Version 15.2 (Build 2562.17)'
        $observed.Server.ServerRole | Should -BeExactly 'Mailbox'
        $observed.Server.IsEdgeServer | Should -BeExactly $false
        $observed.Windows.Version | Should -BeExactly '10.0.20348'
        $observed.AcceptedDomains | Should -BeExactly @('example.test')
        $front = @($observed.ReceiveConnectors | Where-Object { $_.Name -eq 'Default Frontend EX1' })[0]
        $front.Identity | Should -BeExactly 'EX1\Default Frontend EX1'
        $front.AuthMechanism | Should -BeExactly 'Tls, Integrated, BasicAuth, BasicAuthRequireTLS, ExchangeServer'
        $front.PermissionGroups | Should -BeOfType [string]
        $front.Bindings | Should -BeExactly @('0.0.0.0:25', '[::]:25')
        $front.RequireTLS | Should -BeExactly $false
        $front.TlsCertificateName | Should -BeNullOrEmpty
        $front.TransportRole | Should -BeExactly 'FrontendTransport'
        $front.ProtocolLoggingLevel | Should -BeExactly 'None'
        , $front.TlsDomainCapabilities | Should -BeOfType [array]
        $send = @($observed.SendConnectors)[0]
        $send.Port | Should -BeExactly 25
        $send.Port | Should -BeOfType [long]
        , $send.SmartHosts | Should -BeOfType [array]
        $send.SmartHosts | Should -BeExactly @('[192.0.2.1]')
        $send.TlsAuthLevel | Should -BeNullOrEmpty
        $send.SourceTransportServers | Should -BeExactly @('EX1')
    }

    It 'tells a certificate as it is' {
        $observed = (Invoke-Module @{ operation = 'read' }).observed
        $one = @($observed.ExchangeCertificates)[0]
        $one.Thumbprint | Should -BeExactly $keys.Own.Thumbprint
        $one.Subject | Should -BeExactly 'CN=EX1'
        $one.CertificateDomains | Should -BeExactly @('EX1', 'ex1.example.test')
        $one.NotBefore | Should -BeExactly '2026-01-02T03:04:05Z'
        $one.NotAfter | Should -BeExactly '2036-01-02T03:04:05Z'
        $one.IsSelfSigned | Should -BeExactly $true
        $one.HasPrivateKey | Should -BeExactly $true
        $one.Services | Should -BeExactly 'SMTP'
        [System.Convert]::ToHexString([System.Convert]::FromBase64String($one.RawData)) | Should -BeExactly ([System.Convert]::ToHexString($keys.Own.RawData))
        $observed.TransportService.InternalTransportCertificateThumbprint | Should -BeExactly $keys.Own.Thumbprint
    }

    It 'shows queues, with times in UTC' {
        $queue = @{ Identity = 'EX1\3'; DeliveryType = 'SmartHostConnectorDelivery'; NextHopDomain = '[192.0.2.1]'; NextHopConnector = '5f0a3a4e'
            Status = 'Retry'; MessageCount = 2; RetryCount = 4; NextRetryTime = '2026-11-30T10:20:30+02:00'; LastError = 'x'; Messages = @() }
        [System.IO.File]::WriteAllText("$env:EXCHANGE_STUBS_DIRECTORY/queue.json", (@{ Queues = @($queue) } | ConvertTo-Json -Depth 5))
        $one = @((Invoke-Module @{ operation = 'read' }).observed.Queues)[0]
        $one.Unknown | Should -BeNullOrEmpty
        $one.Identity | Should -BeExactly 'EX1\3'
        $one.MessageCount | Should -BeExactly 2
        $one.RetryCount | Should -BeExactly 4
        $one.NextRetryTime | Should -BeExactly '2026-11-30T08:20:30Z'
        $one.Status | Should -BeExactly 'Retry'
        $one.DeliveryType | Should -BeExactly 'SmartHostConnectorDelivery'
        $one.NextHopDomain | Should -BeExactly '[192.0.2.1]'
        $one.NextHopConnector | Should -BeExactly '5f0a3a4e'
        $one.LastError | Should -BeExactly 'x'
    }

    It 'keeps each text that is set' {
        $certificate = @{ Thumbprint = 'AA'; Subject = 'CN=s'; Issuer = 'CN=i'; Services = 'SMTP'; Status = 'Valid'; RootCAType = 'ThirdParty' }
        $receive = @{ Identity = 'EX1\r'; Name = 'r'; Fqdn = 'f'; AuthMechanism = 'Tls'; PermissionGroups = 'AnonymousUsers'; TlsCertificateName = '<I>CN=i<S>CN=s'
            TransportRole = 'HubTransport'; ProtocolLoggingLevel = 'Verbose'; Guid = 'g1' }
        $send = @{ Identity = 's'; Name = 's'; Fqdn = 'f'; TlsAuthLevel = 'DomainValidation'; TlsDomain = 'example.test'; TlsCertificateName = '<I>CN=i<S>CN=s'; Guid = 'g2' }
        $shown = @{ ExchangeCertificates = $certificate; ReceiveConnectors = $receive; SendConnectors = $send }
        Mock Get-ExchangeCertificate { [pscustomobject]$certificate }
        Mock Get-ReceiveConnector { [pscustomobject]$receive }
        Mock Get-SendConnector { [pscustomobject]$send }
        $observed = (Invoke-Module @{ operation = 'read' }).observed
        foreach ($kind in $shown.Keys) {
            $one = @($observed[$kind])[0]
            foreach ($name in $shown[$kind].Keys) { $one[$name] | Should -BeExactly $shown[$kind][$name] -Because "$kind $name" }
        }
    }

    It 'gives lists for lists, whether they have none, one or more' {
        Edit-State { param($state) $state.SendConnectors = @(); $state.AcceptedDomains += @{ Name = 'a'; DomainName = 'a.example.test' } }
        $observed = (Invoke-Module @{ operation = 'read' }).observed
        , $observed.SendConnectors | Should -BeOfType [array]
        $observed.SendConnectors.Count | Should -Be 0
        $observed.Queues.Count | Should -Be 0
        , $observed.ExchangeCertificates | Should -BeOfType [array]
        $observed.AcceptedDomains | Should -BeExactly @('example.test', 'a.example.test')
    }

    It 'says of a certificate without Services that they are unknown' {
        Edit-State { param($state) $state['Session'] = @{ Certificates = 'plain' } }
        $one = @((Invoke-Module @{ operation = 'read' }).observed.ExchangeCertificates)[0]
        $one.Unknown | Sort-Object | Should -Be @('HasPrivateKey', 'IsSelfSigned', 'RootCAType', 'Services', 'Status')
        $one.Contains('Services') | Should -BeFalse
        $one.Thumbprint | Should -BeExactly $keys.Own.Thumbprint
    }

    It 'takes from the octets of a certificate what they tell' {
        Edit-State { param($state) $state['Session'] = @{ Certificates = 'broken' } }
        $one = @((Invoke-Module @{ operation = 'read' }).observed.ExchangeCertificates)[0]
        $one.Unknown | Sort-Object | Should -Be @('HasPrivateKey', 'IsSelfSigned', 'RootCAType', 'Services', 'Status')
        $one.Thumbprint | Should -BeExactly $keys.Own.Thumbprint
        $one.Subject | Should -BeExactly 'CN=EX1'
        $one.Issuer | Should -BeExactly 'CN=EX1'
        $one.NotBefore | Should -BeExactly '2026-01-02T03:04:05Z'
        $one.NotAfter | Should -BeExactly '2036-01-02T03:04:05Z'
        $one.CertificateDomains | Should -BeExactly @('EX1', 'ex1.example.test')
    }

    It 'finds many long names in the octets, and no names where there are none' {
        $domains = @((@('l' * 60) * 3 -join '.') + '.example.test') + @(1..40 | ForEach-Object { "host-$_.a-rather-long-label-for-this-purpose.example.test" })
        $directory = $env:EXCHANGE_STUBS_DIRECTORY
        $many = New-TestCertificate -Directory $directory -Name many -Subject 'CN=many' -Domains $domains
        $bare = New-TestCertificate -Directory $directory -Name bare -Subject 'CN=bare'
        Edit-State { param($state)
            $state['Session'] = @{ Certificates = 'broken' }
            $state.Certificates = @((ConvertTo-Stored "$directory/certificates/many.pem" $many 'x'), (ConvertTo-Stored "$directory/certificates/bare.pem" $bare 'y'))
        }
        $found = (Invoke-Module @{ operation = 'read' }).observed.ExchangeCertificates
        $found[0].CertificateDomains | Should -BeExactly $domains
        $found[1].CertificateDomains.Count | Should -Be 0
        $found[1].Subject | Should -BeExactly 'CN=bare'
    }

    It 'keeps a list that could not be read apart from an empty one' {
        Edit-State { param($state) $state['Faults'] = @(@{ Cmdlet = 'Get-SendConnector'; Message = 'Access is denied.' }) }
        $result = Invoke-Module @{ operation = 'read' }
        $result.Contains('failed') | Should -BeFalse
        $result.observed.Contains('SendConnectors') | Should -BeTrue
        $null -eq $result.observed.SendConnectors | Should -BeTrue
        $result.observed.Errors.Keys | Should -Be @('Get-SendConnector')
        $result.observed.Errors['Get-SendConnector'] | Should -BeLike '*Access is denied.*'
        $result.observed.ReceiveConnectors.Count | Should -Be 3
    }

    It 'reads on when <_> fails' -ForEach 'Get-ExchangeServer', 'Get-TransportService', 'Get-ExchangeCertificate', 'Get-ReceiveConnector', 'Get-Queue', 'Get-AcceptedDomain' {
        $cmdlet = $_
        Edit-State { param($state) $state['Faults'] = @(@{ Cmdlet = $cmdlet; Message = 'no' }) }
        $observed = (Invoke-Module @{ operation = 'read' }).observed
        $observed.Errors.Keys | Should -Be @($cmdlet)
        $name = @{ 'Get-ExchangeServer' = 'Server'; 'Get-TransportService' = 'TransportService'; 'Get-ExchangeCertificate' = 'ExchangeCertificates'
            'Get-ReceiveConnector' = 'ReceiveConnectors'; 'Get-Queue' = 'Queues'; 'Get-AcceptedDomain' = 'AcceptedDomains' }[$cmdlet]
        $observed.Contains($name) | Should -BeTrue
        $null -eq $observed[$name] | Should -BeTrue
    }

    It 'is about one server of several' {
        Edit-State { param($state) $state['OtherServers'] = @(@{ Name = 'EX2'; Fqdn = 'ex2.example.test' }) }
        (Invoke-Module @{ operation = 'read'; server = 'ex1.example.test' }).observed.Server.Name | Should -BeExactly 'EX1'
        $other = (Invoke-Module @{ operation = 'read'; server = 'EX2' }).observed
        $other.Server.Name | Should -BeExactly 'EX2'
        $other.ReceiveConnectors.Count | Should -Be 0
        $other.ExchangeCertificates.Count | Should -Be 0
        $other.SendConnectors.Count | Should -Be 1
    }

    It 'says so when there is no such server' {
        $observed = (Invoke-Module @{ operation = 'read'; server = 'EX9' }).observed
        $null -eq $observed.Server | Should -BeTrue
        $observed.Errors.Keys | Should -Contain 'Get-ExchangeServer'
        $null -eq $observed.ReceiveConnectors | Should -BeTrue
    }

    It 'does not take all servers for the one' {
        Mock Get-ExchangeServer { 1..2 | ForEach-Object { [pscustomobject]@{ Name = "EX$_"; Fqdn = "ex$_"; AdminDisplayVersion = 'x'; ServerRole = 'y'; IsEdgeServer = $false } } }
        $observed = (Invoke-Module @{ operation = 'read' }).observed
        $null -eq $observed.Server | Should -BeTrue
        $observed.Errors['Get-ExchangeServer'] | Should -BeLike '*2 objects*EX1*'
    }

    It 'asks for its own host without a name' {
        $observed = (Invoke-Module @{ operation = 'read'; server = $null }).observed
        $observed.Errors['Get-ExchangeServer'] | Should -BeLike "*'$([System.Environment]::MachineName)'*"
    }

    It 'tells an Edge server' {
        Edit-State { param($state) $state.Server['IsEdgeServer'] = $true }
        $observed = (Invoke-Module @{ operation = 'read' }).observed
        $observed.Server.IsEdgeServer | Should -BeExactly $true
        $observed.Server.ServerRole | Should -BeExactly 'Edge'
    }

    It 'does not know the version of Windows when nobody tells' {
        Mock Get-CimInstance { throw 'Access denied' }
        $windows = (Invoke-Module @{ operation = 'read' }).observed.Windows
        $windows.Contains('Version') | Should -BeFalse
        $windows.Unknown | Should -Be @('Version')
    }

    It 'takes a value of another form for unknown' {
        Mock Get-SendConnector {
            [pscustomobject]@{ Identity = 'x'; Name = 'x'; RequireTLS = 'maybe'; Port = '25'; IgnoreSTARTTLS = $true; TlsDomain = $null }
        }
        $one = @((Invoke-Module @{ operation = 'read' }).observed.SendConnectors)[0]
        $one.Unknown | Should -Contain 'RequireTLS'
        $one.Unknown | Should -Contain 'Port'
        $one.Unknown | Should -Contain 'SmartHosts'
        $one.Unknown | Should -Not -Contain 'TlsDomain'
        $one.Contains('RequireTLS') | Should -BeFalse
        $one.IgnoreSTARTTLS | Should -BeExactly $true
        $one.Contains('TlsDomain') | Should -BeTrue
    }
}
