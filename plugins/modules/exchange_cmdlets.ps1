#!powershell

# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

#AnsibleRequires -CSharpUtil Ansible.Basic

# It reads, runs what it is told, and takes it back. It decides nothing: that is done on the controller.
# Windows PowerShell 5.1 runs this. Exchange's own scripts run in its scope, so it stays without strict mode.

$spec = @{
    options = @{
        operation = @{ type = 'str'; choices = @('read', 'apply', 'restore'); required = $true }
        calls = @{ type = 'list'; elements = 'dict' }
        secrets = @{
            type = 'dict'
            no_log = $true
            options = @{
                FileData = @{ type = 'str'; no_log = $true }
                Password = @{ type = 'str'; no_log = $true }
            }
        }
        reach = @{ type = 'str'; choices = @('auto', 'shell', 'session', 'loaded'); default = 'auto' }
        server = @{ type = 'str' }
        session_uri = @{ type = 'str' }
    }
    required_if = @(
        , @('operation', 'apply', @('calls'))
        , @('operation', 'restore', @('calls'))
    )
    supports_check_mode = $true
}

# What is read: property = what kind of value it is. Exchange's own types (enumerations, sizes, names) are read as their text.
$serverFacts = [ordered]@{
    Name = 'text'; Fqdn = 'text'; AdminDisplayVersion = 'text'; ServerRole = 'text'; IsEdgeServer = 'boolean'
}
$transportFacts = [ordered]@{ InternalTransportCertificateThumbprint = 'text' }
$certificateFacts = [ordered]@{
    Thumbprint = 'text'; Subject = 'text'; Issuer = 'text'; CertificateDomains = 'list'; Services = 'text'; Status = 'text'
    IsSelfSigned = 'boolean'; NotBefore = 'time'; NotAfter = 'time'; RawData = 'bytes'; HasPrivateKey = 'boolean'; RootCAType = 'text'
}
$receiveFacts = [ordered]@{
    Identity = 'text'; Name = 'text'; Enabled = 'boolean'; Bindings = 'list'; RemoteIPRanges = 'list'; Fqdn = 'text'
    AuthMechanism = 'text'; PermissionGroups = 'text'; RequireTLS = 'boolean'; TlsCertificateName = 'text'; TransportRole = 'text'
    TlsDomainCapabilities = 'list'; SuppressXAnonymousTls = 'boolean'; ProtocolLoggingLevel = 'text'; Guid = 'text'
}
$sendFacts = [ordered]@{
    Identity = 'text'; Name = 'text'; Enabled = 'boolean'; AddressSpaces = 'list'; SmartHosts = 'list'; DNSRoutingEnabled = 'boolean'
    Port = 'integer'; Fqdn = 'text'; RequireTLS = 'boolean'; IgnoreSTARTTLS = 'boolean'; TlsAuthLevel = 'text'; TlsDomain = 'text'
    TlsCertificateName = 'text'; DomainSecureEnabled = 'boolean'; CloudServicesMailEnabled = 'boolean'
    FrontendProxyEnabled = 'boolean'; SourceTransportServers = 'list'; Guid = 'text'
}
$queueFacts = [ordered]@{
    Identity = 'text'; Status = 'text'; DeliveryType = 'text'; NextHopDomain = 'text'; NextHopConnector = 'text'
    MessageCount = 'integer'; LastError = 'text'; NextRetryTime = 'time'; RetryCount = 'integer'
}
$domainFacts = [ordered]@{ DomainName = 'text' }

# What may be run: cmdlet = the parameters of which one has to be there, and whether it acts on the session's server unless told.
$writers = @{
    'Set-ReceiveConnector' = @{ Names = @('Identity') }
    'New-ReceiveConnector' = @{ Names = @('Name'); OnServer = $true }
    'Remove-ReceiveConnector' = @{ Names = @('Identity') }
    'Set-SendConnector' = @{ Names = @('Identity') }
    'New-SendConnector' = @{ Names = @('Name') }
    'Remove-SendConnector' = @{ Names = @('Identity') }
    'Import-ExchangeCertificate' = @{ Names = @('FileData'); OnServer = $true; Secrets = @('FileData', 'Password') }
    'Enable-ExchangeCertificate' = @{ Names = @('Thumbprint'); OnServer = $true }
    'Remove-ExchangeCertificate' = @{ Names = @('Thumbprint'); OnServer = $true }
    'Retry-Queue' = @{ Names = @('Identity', 'Filter'); OnServer = $true }
}
$readers = @(
    'Get-ExchangeServer', 'Get-TransportService', 'Get-ExchangeCertificate', 'Get-ReceiveConnector', 'Get-SendConnector', 'Get-Queue',
    'Get-AcceptedDomain'
)
$namers = @('Identity', 'Thumbprint', 'Name', 'Filter')
# Each call gets these from us; -WhatIf would make a call that does nothing look as if it had succeeded.
$reserved = @('Confirm', 'WhatIf', 'ErrorAction', 'ErrorVariable', 'WarningAction', 'WarningVariable', 'OutVariable', 'OutBuffer',
    'PipelineVariable', 'InformationAction', 'InformationVariable', 'Verbose', 'Debug')

function Test-Loaded {
    [bool](Get-Command -Name 'Get-ExchangeServer' -ErrorAction SilentlyContinue)
}

function Get-ShellScript {
    if ($env:ExchangeInstallPath) { Join-Path (Join-Path $env:ExchangeInstallPath 'bin') 'RemoteExchange.ps1' }
}

function Test-Edge {
    Test-Path -Path 'HKLM:\SOFTWARE\Microsoft\ExchangeServer\v15\EdgeTransportRole'
}

# Called with a dot, so that the functions of Exchange's script are there for the rest of the module.
function Open-Shell {
    if (Test-Edge) {
        Add-PSSnapin -Name 'Microsoft.Exchange.Management.PowerShell.E2010'  # an Edge server has no remote shell
        return
    }
    $shell = Get-ShellScript
    if (-not $shell -or -not (Test-Path -Path $shell)) {
        throw 'RemoteExchange.ps1 is not there: this host has no management shell of Exchange'
    }
    $said = . $shell *>&1
    $said = @($said) + @(Connect-ExchangeServer -Auto *>&1)
    if (-not (Test-Loaded)) { throw "Connect-ExchangeServer brought no cmdlets. It said: $(($said | Out-String).Trim())" }
}

function Open-Session {
    $uri = $module.Params.session_uri
    if (-not $uri) { $uri = "http://$([System.Net.Dns]::GetHostEntry('').HostName)/PowerShell/" }
    $session = New-PSSession -ConfigurationName 'Microsoft.Exchange' -ConnectionUri $uri -Authentication Kerberos -ErrorAction Stop
    $null = Import-PSSession -Session $session -CommandName ($readers + @($writers.Keys)) -AllowClobber -DisableNameChecking `
        -ErrorAction Stop -WarningAction SilentlyContinue
}

# Exchange limits the number of sessions of a user.
function Close-Session {
    if ($reach -in 'shell', 'session') {
        Get-PSSession | Where-Object { $_.ConfigurationName -eq 'Microsoft.Exchange' } | Remove-PSSession
    }
}

# The DNS names in a certificate's subjectAltName. The extension's own text depends on the language of Windows.
function Get-DnsName {
    param($Certificate)
    $extension = $Certificate.Extensions['2.5.29.17']
    if (-not $extension) { return }
    $data = $extension.RawData
    $at = 0
    while ($at -lt $data.Length) {
        $tag = $data[$at]
        $length = [int]$data[$at + 1]
        $at += 2
        if ($length -gt 127) {
            $octets = $length - 128
            $length = 0
            foreach ($octet in $data[$at..($at + $octets - 1)]) { $length = $length * 256 + $octet }
            $at += $octets
        }
        if ($tag -eq 0x30) { continue }  # the sequence around the names: go into it
        if ($tag -eq 0x82) { [System.Text.Encoding]::ASCII.GetString($data, $at, $length) }
        $at += $length
    }
}

# In a remote session a certificate can come without anything but its octets.
function Add-CertificateFact {
    param($Fact)
    if (-not $Fact['RawData'] -or 'Thumbprint' -notin $Fact['Unknown']) { return }
    $certificate = New-Object -TypeName 'System.Security.Cryptography.X509Certificates.X509Certificate2' `
        -ArgumentList (, [System.Convert]::FromBase64String($Fact['RawData']))
    $Fact['Thumbprint'] = $certificate.Thumbprint
    $Fact['Subject'] = $certificate.Subject
    $Fact['Issuer'] = $certificate.Issuer
    $Fact['NotBefore'] = ConvertTo-Time $certificate.NotBefore
    $Fact['NotAfter'] = ConvertTo-Time $certificate.NotAfter
    $Fact['CertificateDomains'] = [object[]]@(Get-DnsName $certificate)
    $Fact['Unknown'] = [object[]]@($Fact['Unknown'] | Where-Object { -not $Fact.Contains($_) })
}

function ConvertTo-Time {
    param([datetime]$Value)
    $Value.ToUniversalTime().ToString('yyyy-MM-ddTHH:mm:ssZ', [System.Globalization.CultureInfo]::InvariantCulture)
}

# One object as JSON has it. What it lacks, or has in another form than it should, is named in Unknown.
function Get-Fact {
    param($Object, $Wanted)
    $fact = [ordered]@{}
    $unknown = @()
    foreach ($name in $Wanted.Keys) {
        try {
            $property = $Object.PSObject.Properties[$name]
            if (-not $property) { throw 'absent' }
            $value = $property.Value
            $kind = $Wanted[$name]
            if ($null -eq $value) { $fact[$name] = $null }
            # Not "$value": an enumeration from a remote session would become its number.
            elseif ($kind -eq 'text') { $fact[$name] = $value.ToString() }
            elseif ($kind -eq 'list') { $fact[$name] = [object[]]@($value | ForEach-Object { $_.ToString() }) }
            elseif ($kind -eq 'boolean' -and $value -is [bool]) { $fact[$name] = $value }
            elseif ($kind -eq 'integer' -and ($value -is [int] -or $value -is [long])) { $fact[$name] = [long]$value }
            elseif ($kind -eq 'time' -and $value -is [datetime]) { $fact[$name] = ConvertTo-Time $value }
            elseif ($kind -eq 'bytes') { $fact[$name] = [System.Convert]::ToBase64String([byte[]]$value) }
            else { throw 'of another form' }
        }
        catch { $unknown += $name }
    }
    $fact['Unknown'] = [object[]]$unknown
    $fact
}

# The objects of a Get- cmdlet; nothing, and a line in Errors, if it failed.
function Read-Fact {
    param($Cmdlet, $Arguments, $Wanted)
    try {
        foreach ($object in @(& $Cmdlet @Arguments -ErrorAction Stop -WarningAction SilentlyContinue)) { Get-Fact $object $Wanted }
    }
    catch { $observed.Errors[$Cmdlet] = "$_" }
}

# A list that could not be read is null, not empty. Called after Read-Fact, which says so in Errors.
function Add-List {
    param($Name, $Cmdlet, $Facts)
    $observed[$Name] = $null
    if (-not $observed.Errors.Contains($Cmdlet)) { $observed[$Name] = [object[]]@($Facts) }
}

function Read-One {
    param($Cmdlet, $Arguments, $Wanted)
    $facts = @(Read-Fact $Cmdlet $Arguments $Wanted)
    if ($observed.Errors.Contains($Cmdlet)) { return }
    # A Get- cmdlet that does not know the name can answer with all objects.
    if ($facts.Count -ne 1) { $observed.Errors[$Cmdlet] = "$($facts.Count) objects instead of one for the server $server"; return }
    $facts[0]
}

function Get-WindowsVersion {
    try { @{ Version = "$((Get-CimInstance -ClassName 'Win32_OperatingSystem' -ErrorAction Stop).Version)" } }
    catch { @{ Unknown = [object[]]@('Version') } }
}

function Read-Observed {
    $observed = [ordered]@{ Errors = @{} }
    $observed.Server = Read-One 'Get-ExchangeServer' @{ Identity = $server } $serverFacts
    $observed.Windows = Get-WindowsVersion
    $observed.TransportService = Read-One 'Get-TransportService' @{ Identity = $server } $transportFacts
    $certificates = @(Read-Fact 'Get-ExchangeCertificate' @{ Server = $server } $certificateFacts)
    foreach ($certificate in $certificates) { Add-CertificateFact $certificate }
    Add-List 'ExchangeCertificates' 'Get-ExchangeCertificate' $certificates
    Add-List 'ReceiveConnectors' 'Get-ReceiveConnector' @(Read-Fact 'Get-ReceiveConnector' @{ Server = $server } $receiveFacts)
    Add-List 'SendConnectors' 'Get-SendConnector' @(Read-Fact 'Get-SendConnector' @{} $sendFacts)
    Add-List 'Queues' 'Get-Queue' @(Read-Fact 'Get-Queue' @{ Server = $server; ResultSize = 'Unlimited' } $queueFacts)
    $domains = @(Read-Fact 'Get-AcceptedDomain' @{} $domainFacts)
    Add-List 'AcceptedDomains' 'Get-AcceptedDomain' @($domains | ForEach-Object { $_['DomainName'] })
    $observed
}

# What a call acts on, for messages. FileData is never shown.
function Get-Target {
    param($Call)
    foreach ($name in $namers) {
        if ($Call.Parameters[$name]) { return "$($Call.Parameters[$name])" }
    }
    ''
}

# What is wrong with a call, before anything is run; nothing if all is well.
function Find-Fault {
    param($Call)
    $known = $writers["$($Call.Cmdlet)"]
    if (-not $known) { return "the cmdlet is not one of $(($writers.Keys | Sort-Object) -join ', ')" }
    if ($Call.Parameters -isnot [System.Collections.IDictionary]) { return 'Parameters is no dictionary' }
    if (-not ($known.Names | Where-Object { $Call.Parameters.Contains($_) })) { return "it needs $($known.Names -join ' or ')" }
    foreach ($name in $namers) {
        # An empty name can stand for every object there is.
        if ($Call.Parameters.Contains($name) -and -not "$($Call.Parameters[$name])".Trim()) { return "$name is empty" }
    }
    foreach ($name in $Call.Parameters.Keys) {
        $value = $Call.Parameters[$name]
        if ($name -in $reserved) { return "the parameter $name cannot be given" }
        if ($value -is [System.Collections.IDictionary]) {
            if ($name -notin $known.Secrets) { return "$name cannot be a secret" }
            $wanted = "$($value['Secret'])"
            if ($wanted -notin $known.Secrets -or -not $module.Params.secrets -or -not $module.Params.secrets[$wanted]) {
                return "the option secrets has no $wanted, which $name needs"
            }
        }
        elseif ($name -in $known.Secrets) { return "$name has to be a secret" }
        elseif ($value -is [System.Collections.IList]) {
            if (@($value | Where-Object { $_ -isnot [string] })) { return "$name is a list of something else than text" }
        }
        elseif ($null -ne $value -and $value -isnot [string] -and $value -isnot [bool] -and $value -isnot [int] -and $value -isnot [long]) {
            return "$name is neither text, a number, true, false, null nor a list of texts"
        }
    }
    ''
}

# The rights of the user decide which cmdlets and parameters a session has.
function Find-Absent {
    param($Call)
    $command = Get-Command -Name $Call.Cmdlet -ErrorAction SilentlyContinue
    if (-not $command) { return 'this session does not have the cmdlet' }
    $absent = @($Call.Parameters.Keys | Where-Object { -not $command.Parameters.ContainsKey($_) })
    if ($absent) { return "here the cmdlet has no parameter $($absent -join ', ')" }
    ''
}

# The calls, each with its own Undo behind it.
function Get-EveryCall {
    $number = 0
    foreach ($call in $calls) {
        $number += 1
        @{ Call = $call; Where = "call $number ($($call.Cmdlet))" }
        foreach ($undo in @($call.Undo | Where-Object { $null -ne $_ })) { @{ Call = $undo; Where = "Undo of call $number ($($undo.Cmdlet))" } }
    }
}

function Get-Argument {
    param($Call)
    $arguments = @{ Confirm = $false }
    foreach ($name in $Call.Parameters.Keys) {
        $value = $Call.Parameters[$name]
        if ($value -is [System.Collections.IDictionary]) {
            $secret = $module.Params.secrets[$value['Secret']]
            if ($name -eq 'FileData') { $value = [System.Convert]::FromBase64String($secret) }
            else { $value = ConvertTo-SecureString -String $secret -AsPlainText -Force }
        }
        elseif ($value -is [System.Collections.IList]) { $value = [string[]]@($value) }
        $arguments[$name] = $value
    }
    # The session may be that of another server. An Identity has the server in it.
    if ($writers[$Call.Cmdlet].OnServer -and -not ($arguments.Contains('Server') -or $arguments.Contains('Identity'))) { $arguments['Server'] = $server }
    $arguments
}

function Invoke-Call {
    param($Call)
    $arguments = Get-Argument $Call
    $null = & $Call.Cmdlet @arguments -ErrorAction Stop -WarningAction SilentlyContinue -WarningVariable said
    foreach ($warning in $said) { $module.Warn("$($Call.Cmdlet) $(Get-Target $Call): $warning") }
}

# What an error says. Ansible takes secrets out of some parts of a result only.
function Hide-Secret {
    param([string]$Text)
    foreach ($name in 'FileData', 'Password') {
        $secret = if ($module.Params.secrets) { $module.Params.secrets[$name] }
        if ($secret) { $Text = $Text.Replace($secret, '********') }
    }
    $Text
}

# Runs all of them, whatever fails; what came of each goes into the result.
function Invoke-Every {
    param($Every)
    foreach ($call in $Every) {
        $outcome = [ordered]@{ cmdlet = $call.Cmdlet; target = Get-Target $call; message = $null }
        try { Invoke-Call $call }
        catch { $outcome.message = Hide-Secret $_ }
        $outcome
    }
}

$module = [Ansible.Basic.AnsibleModule]::Create($args, $spec)
$server = $module.Params.server
if (-not $server) { $server = [System.Environment]::MachineName }
$calls = @($module.Params.calls | Where-Object { $null -ne $_ })

foreach ($one in Get-EveryCall) {
    $fault = Find-Fault $one.Call
    if ($fault) { $module.FailJson("$($one.Where): $fault. Nothing was run.") }
}

$reach = $module.Params.reach
if ($reach -eq 'auto') {
    $shellScript = Get-ShellScript
    if (Test-Loaded) { $reach = 'loaded' }
    elseif ((Test-Edge) -or ($shellScript -and (Test-Path -Path $shellScript))) { $reach = 'shell' }
    else { $reach = 'session' }
}
$trouble = $null
try {
    if ($reach -eq 'shell') { . Open-Shell }
    elseif ($reach -eq 'session') { Open-Session }
    elseif (-not (Test-Loaded)) { throw 'there is no Get-ExchangeServer' }
}
catch { $trouble = $_ }
if ($trouble) {
    Close-Session
    $module.FailJson("The cmdlets of Exchange cannot be reached (reach: $reach): $trouble. See the notes of exchange_cmdlets about reach, " +
        "become and the second hop; starttls_exchange_reach sets it for a host. Nothing was run.")
}
$module.Result.reach = $reach

if ($module.Params.operation -eq 'read') {
    $module.Result.observed = Read-Observed
    Close-Session
    $module.ExitJson()
}

foreach ($one in Get-EveryCall) {
    $fault = Find-Absent $one.Call
    if ($fault) {
        Close-Session
        $module.FailJson("$($one.Where): $fault. Look at the role of the user, and at the version of Exchange. Nothing was run.")
    }
}
$module.Result.changed = $calls.Count -gt 0
if ($module.CheckMode) {
    Close-Session
    $module.ExitJson()
}

if ($module.Params.operation -eq 'restore') {
    $module.Result.undo = [object[]]@(Invoke-Every $calls)
    Close-Session
}
else {
    $done = @()
    foreach ($call in $calls) {
        try { Invoke-Call $call }
        catch { $trouble = Hide-Secret $_; $id = Hide-Secret $_.FullyQualifiedErrorId; break }
        $done += $call
    }
    $module.Result.done = $done.Count
    $module.Result.undo = [object[]]@()
    if ($trouble) {
        $module.Result.failure = @{
            index = $done.Count; cmdlet = $call.Cmdlet; target = Get-Target $call; message = $trouble; error_id = $id
        }
        [array]::Reverse($done)
        $undo = @($done | ForEach-Object { $_.Undo } | Where-Object { $null -ne $_ })
        $module.Result.undo = [object[]]@(Invoke-Every $undo)
    }
    else { $module.Result.observed = Read-Observed }  # a session of its own would cost seconds
    Close-Session
}

$left = @($module.Result.undo | Where-Object { $_.message })
$story = @($left | ForEach-Object { "$($_.cmdlet) $($_.target): $($_.message)" }) -join '; '
if ($trouble) {
    $after = 'What was done before it was taken back.'
    if (-not $done) { $after = 'Nothing was done before it.' }
    if ($left) { $after = "Not everything could be taken back; look at these by hand: $story" }
    $module.Result.changed = $left.Count -gt 0
    $what = "$($module.Result.failure.cmdlet) $($module.Result.failure.target)".Trim()
    $module.FailJson("call $($module.Result.failure.index + 1), $what, failed: $trouble $after")
}
if ($left) { $module.FailJson("Not everything could be restored; look at these by hand: $story") }
$module.ExitJson()
