# For the Pester tests: a fresh organisation, and the module run in this process as Ansible runs it.

$top = Resolve-Path "$PSScriptRoot/../.."
# The mutants' tests put another file in its place.
$script:modulePath = if ($env:EXCHANGE_MODULE) { $env:EXCHANGE_MODULE } else { "$top/plugins/modules/exchange_cmdlets.ps1" }

# Ansible.Basic as the ansible-core of the environment has it; compiled once in a process.
function Import-AnsibleBasic {
    if ('Ansible.Basic.AnsibleModule' -as [type]) { return }
    Import-Module "$env:ANSIBLE_MODULE_UTILS/powershell/Ansible.ModuleUtils.AddType.psm1" -WarningAction SilentlyContinue
    Add-CSharpType -References @([System.IO.File]::ReadAllText("$env:ANSIBLE_MODULE_UTILS/csharp/Ansible.Basic.cs")) -IgnoreWarnings
}

function New-TestCertificate {
    param([string]$Directory, [string]$Name, [string]$Subject, [string[]]$Domains, $Authority, [int]$Years = 2)
    $key = [System.Security.Cryptography.RSA]::Create(2048)
    $request = [System.Security.Cryptography.X509Certificates.CertificateRequest]::new($Subject, $key,
        [System.Security.Cryptography.HashAlgorithmName]::SHA256, [System.Security.Cryptography.RSASignaturePadding]::Pkcs1)
    if ($Domains) {
        $names = [System.Security.Cryptography.X509Certificates.SubjectAlternativeNameBuilder]::new()
        foreach ($domain in $Domains) { $names.AddDnsName($domain) }
        $request.CertificateExtensions.Add($names.Build())
    }
    if ($Subject -match 'CA') { $request.CertificateExtensions.Add([System.Security.Cryptography.X509Certificates.X509BasicConstraintsExtension]::new($true, $false, 0, $true)) }
    $from = [datetimeoffset]::new(2026, 1, 2, 3, 4, 5, [timespan]::Zero)
    $made = if ($Authority) {
        $signed = $request.Create($Authority, $from, $from.AddYears($Years), [guid]::NewGuid().ToByteArray())
        [System.Security.Cryptography.X509Certificates.RSACertificateExtensions]::CopyWithPrivateKey($signed, $key)
    }
    else { $request.CreateSelfSigned($from, $from.AddYears(10)) }
    if ($Directory) {
        $file = "$Directory/certificates/$Name.pem"
        [System.IO.File]::WriteAllText($file, $key.ExportPkcs8PrivateKeyPem() + "`n" + $made.ExportCertificatePem() + "`n")
    }
    $made
}

function ConvertTo-Stored {
    param([string]$File, $Certificate, [string[]]$Domains, [string]$Services = 'SMTP')
    [ordered]@{
        File = $File; Thumbprint = $Certificate.Thumbprint; Subject = $Certificate.Subject; Issuer = $Certificate.Issuer
        CertificateDomains = @($Domains); Services = $Services; Status = 'Valid'
    }
}

# Keys take time: one authority and two certificates serve all tests.
function Initialize-Keys {
    if (Get-Variable -Name keys -Scope Global -ErrorAction SilentlyContinue) { return }
    $authority = New-TestCertificate -Subject 'CN=Example CA, O=Example' -Years 9
    $global:keys = @{
        Authority = $authority
        Own = New-TestCertificate -Subject 'CN=EX1' -Domains 'EX1', 'ex1.example.test'
        Public = New-TestCertificate -Subject 'CN=mail.example.test' -Domains 'mail.example.test', 'ex1.example.test' -Authority $authority
    }
}

# An organisation in its first state: one server, its five default connectors, one way out.
function New-Organisation {
    Initialize-Keys
    $directory = Join-Path ([System.IO.Path]::GetTempPath()) "exchange-$([guid]::NewGuid())"
    $null = New-Item -ItemType Directory -Path "$directory/certificates" -Force
    $pem = { param($c) $k = [System.Security.Cryptography.X509Certificates.RSACertificateExtensions]::GetRSAPrivateKey($c); $k.ExportPkcs8PrivateKeyPem() + "`n" + $c.ExportCertificatePem() + "`n" }
    [System.IO.File]::WriteAllText("$directory/certificates/own.pem", (& $pem $keys.Own))
    $all = 'Tls, Integrated, BasicAuth, BasicAuthRequireTLS, ExchangeServer'
    $receive = foreach ($row in @(
            @('Default Frontend EX1', 'FrontendTransport', 25, $all, 'AnonymousUsers, ExchangeServers, ExchangeLegacyServers'),
            @('Client Frontend EX1', 'FrontendTransport', 587, 'Tls, Integrated, BasicAuth, BasicAuthRequireTLS', 'ExchangeUsers'),
            @('Default EX1', 'HubTransport', 2525, $all, 'ExchangeUsers, ExchangeServers, ExchangeLegacyServers')
        )) {
        [ordered]@{
            Name = $row[0]; Identity = "EX1\$($row[0])"; Enabled = $true; Bindings = @("0.0.0.0:$($row[2])", "[::]:$($row[2])")
            RemoteIPRanges = @('::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', '0.0.0.0-255.255.255.255'); Fqdn = 'ex1.example.test'
            AuthMechanism = $row[3]; PermissionGroups = $row[4]; RequireTLS = $false; TlsCertificateName = $null; TransportRole = $row[1]
        }
    }
    $state = [ordered]@{
        Behaviour = 'on_premises'; Server = @{ Name = 'EX1'; Fqdn = 'ex1.example.test' }
        Certificates = @(ConvertTo-Stored "$directory/certificates/own.pem" $keys.Own 'EX1', 'ex1.example.test')
        AcceptedDomains = @(@{ Name = 'example.test'; DomainName = 'example.test'; DomainType = 'Authoritative' })
        ReceiveConnectors = @($receive)
        SendConnectors = @([ordered]@{ Name = 'To gateway'; Identity = 'To gateway'; Guid = '5f0a3a4e-94ea-4b6a-8f3f-2b3b1f6f0001'; AddressSpaces = @('SMTP:*;1')
                SmartHosts = @('[192.0.2.1]'); DNSRoutingEnabled = $false })
    }
    [System.IO.File]::WriteAllText("$directory/state.json", ($state | ConvertTo-Json -Depth 9))
    $env:EXCHANGE_STUBS_DIRECTORY = $directory
    $directory
}

function Remove-Organisation {
    if ($env:EXCHANGE_STUBS_DIRECTORY) { Remove-Item -Recurse -Force -Path $env:EXCHANGE_STUBS_DIRECTORY }
    $env:EXCHANGE_STUBS_DIRECTORY = $null
}

function Get-State {
    [System.IO.File]::ReadAllText("$env:EXCHANGE_STUBS_DIRECTORY/state.json") | ConvertFrom-Json -AsHashtable
}

function Edit-State {
    param([scriptblock]$Work)
    $state = Get-State
    & $Work $state
    [System.IO.File]::WriteAllText("$env:EXCHANGE_STUBS_DIRECTORY/state.json", ($state | ConvertTo-Json -Depth 9))
}

# The cmdlets that were called and may change something, with their parameters.
function Get-Calls {
    $file = "$env:EXCHANGE_STUBS_DIRECTORY/calls.jsonl"
    if ([System.IO.File]::Exists($file)) { [System.IO.File]::ReadAllLines($file) | ForEach-Object { $_ | ConvertFrom-Json -AsHashtable } }
}

function New-Pfx {
    param($Certificate = $keys.Public, [string]$Password = 'secret-of-the-test')
    $store = [System.Security.Cryptography.X509Certificates.X509Certificate2Collection]::new()
    $null = $store.Add($Certificate)
    $null = $store.Add([System.Security.Cryptography.X509Certificates.X509CertificateLoader]::LoadCertificate($keys.Authority.RawData))
    [System.Convert]::ToBase64String($store.Export('Pfx', $Password))
}

# Runs the module; its result as Ansible reads it. The server's name is given, this machine has another.
function Invoke-Module {
    param([hashtable]$Options, [switch]$CheckMode)
    Import-AnsibleBasic
    $given = @{ server = 'EX1'; reach = 'loaded' }
    foreach ($name in $Options.Keys) { $given[$name] = $Options[$name] }
    foreach ($name in @($given.Keys)) { if ($null -eq $given[$name]) { $given.Remove($name) } }
    # The way through JSON makes of it what Ansible makes.
    $global:complex_args = ConvertFrom-Json -AsHashtable -InputObject ($given | ConvertTo-Json -Depth 20)
    $global:complex_args['_ansible_check_mode'] = [bool]$CheckMode
    $global:moduleOutput = [System.Collections.Generic.List[string]]::new()
    [Ansible.Basic.AnsibleModule]::WriteLine = { param([string]$Line) $global:moduleOutput.Add($Line) }
    try { $null = & $script:modulePath }
    finally { Remove-Variable -Name complex_args -Scope Global }
    if ($global:moduleOutput.Count -ne 1) { throw "the module gave $($global:moduleOutput.Count) results" }
    $global:moduleOutput[0] | ConvertFrom-Json -AsHashtable -DateKind String
}
