# Receive connectors: they belong to a server.

$presets = @{
    Custom = @{ PermissionGroups = 'None'; Needs = @('Bindings', 'RemoteIPRanges') }
    Partner = @{ PermissionGroups = 'Partners'; Needs = @('Bindings', 'RemoteIPRanges') }
    Internet = @{ PermissionGroups = 'AnonymousUsers'; Needs = @('Bindings') }
    Client = @{ PermissionGroups = 'ExchangeUsers'; Needs = @('RemoteIPRanges'); Port = 587 }
    Internal = @{ PermissionGroups = 'ExchangeServers'; Needs = @('RemoteIPRanges'); Port = 25 }
}
$everybody = @('::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', '0.0.0.0-255.255.255.255')

function Get-Receive {
    param($State)
    foreach ($one in @(Get-List $State 'ReceiveConnectors')) {
        if (-not $one['Identity']) { $one['Identity'] = "$(Get-ServerName $State)\$($one.Name)" }
        if (-not $one['Guid']) { $one['Guid'] = Get-StubGuid $one.Identity }
        $defaults = @{ ProtocolLoggingLevel = 'None'; TlsDomainCapabilities = @(); SuppressXAnonymousTls = $false; Enabled = $true
            AuthMechanism = 'Tls, Integrated, BasicAuth, BasicAuthRequireTLS, ExchangeServer'; RequireTLS = $false; TlsCertificateName = $null
            PermissionGroups = 'AnonymousUsers, ExchangeServers, ExchangeLegacyServers'; Fqdn = $null; TransportRole = 'FrontendTransport' }
        foreach ($name in $defaults.Keys) { if (-not $one.Contains($name)) { $one[$name] = $defaults[$name] } }
        $one
    }
}

function Invoke-StubGetReceiveConnector {
    param($State, $Given)
    if ($Given['Server'] -and -not (Test-OurServer $State $Given.Server)) { return }
    foreach ($one in Select-Named @(Get-Receive $State) $Given) { New-Remote 'Get-ReceiveConnector' $one }
}

function Get-Words {
    param($Text)
    @("$Text".Split(',').Trim() | Where-Object { $_ })
}

# First and last address of a range, as numbers; the family in front.
function Get-Range {
    param([string]$Text)
    try {
        $low, $high = if ($Text.Contains('/')) {
            $network = [System.Net.IPNetwork]::Parse($Text)
            $octets = $network.BaseAddress.GetAddressBytes()
            for ($bit = $network.PrefixLength; $bit -lt $octets.Length * 8; $bit++) { $octets[$bit -shr 3] = $octets[$bit -shr 3] -bor (128 -shr ($bit -band 7)) }
            $network.BaseAddress, [System.Net.IPAddress]::new($octets)
        }
        elseif ($Text.Contains('-')) { $Text.Split('-') | ForEach-Object { [System.Net.IPAddress]::Parse($_) } }
        else { [System.Net.IPAddress]::Parse($Text), [System.Net.IPAddress]::Parse($Text) }
    }
    catch { Stop-Stub "'$Text' is not a valid IP address range." 'FormatException' }
    $low.AddressFamily
    [System.Numerics.BigInteger]::new($low.GetAddressBytes(), $true, $true)
    [System.Numerics.BigInteger]::new($high.GetAddressBytes(), $true, $true)
}

function Test-SameBinding {
    param([string]$One, [string]$Other)
    $here, $there = $One.LastIndexOf(':'), $Other.LastIndexOf(':')
    if ($One.Substring($here) -ne $Other.Substring($there)) { return $false }
    $addresses = $One.Substring(0, $here), $Other.Substring(0, $there)
    $addresses[0] -eq $addresses[1] -or '0.0.0.0' -in $addresses -or '[::]' -in $addresses
}

function Assert-Ranges {
    param($One, $Others)
    foreach ($binding in $One.Bindings) {
        if ($binding -notmatch '\A(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F:]+\]):\d{1,5}\z') { Stop-Stub "'$binding' is not a valid IP binding." 'FormatException' }
    }
    $mine = @($One.RemoteIPRanges | ForEach-Object { , @(Get-Range $_) })
    foreach ($other in $Others) {
        if (-not @($One.Bindings | Where-Object { $here = $_; $other.Bindings | Where-Object { Test-SameBinding $here $_ } })) { continue }
        $conflict = "The values that you specified for the Bindings and RemoteIPRanges parameters conflict with the settings on Receive connector ""$($other.Identity)""."
        if ($other.TransportRole -ne $One.TransportRole) { Stop-Stub $conflict 'ReceiveConnectorRoleConflictException' }
        foreach ($a in $mine) {
            foreach ($b in @($other.RemoteIPRanges | ForEach-Object { , @(Get-Range $_) })) {
                if ($a[0] -ne $b[0] -or $a[1] -gt $b[2] -or $b[1] -gt $a[2]) { continue }
                $inside = ($a[1] -ge $b[1] -and $a[2] -le $b[2]) -or ($b[1] -ge $a[1] -and $b[2] -le $a[2])
                $same = $a[1] -eq $b[1] -and $a[2] -eq $b[2]
                if ($same -or -not $inside) { Stop-Stub $conflict 'ConnectorMappingConflictException' }
            }
        }
    }
}

function Assert-Receive {
    param($State, $One, $Others)
    $mechanisms = @(Get-Words $One.AuthMechanism)
    $groups = @(Get-Words $One.PermissionGroups)
    if ($One.RequireTLS -and 'Tls' -notin $mechanisms) { Stop-Stub 'RequireTLS can only be set if the AuthMechanism parameter contains Tls.' }
    if ('None' -in $mechanisms -and $mechanisms.Count -gt 1) { Stop-Stub 'The AuthMechanism value None cannot be combined with other values.' }
    if ('BasicAuthRequireTLS' -in $mechanisms -and ('BasicAuth' -notin $mechanisms -or 'Tls' -notin $mechanisms)) {
        Stop-Stub 'The AuthMechanism value BasicAuthRequireTLS needs the values BasicAuth and Tls.'
    }
    if ('ExternalAuthoritative' -in $mechanisms) {
        if (@($mechanisms | Where-Object { $_ -notin 'ExternalAuthoritative', 'Tls' })) { Stop-Stub 'The AuthMechanism value ExternalAuthoritative can only be combined with Tls.' }
        if ('ExchangeServers' -notin $groups) { Stop-Stub 'The AuthMechanism value ExternalAuthoritative needs the permission group ExchangeServers.' }
    }
    if ('ExchangeServer' -in $mechanisms -and $One.Fqdn -and $One.Fqdn -notin $State.Server.Fqdn, (Get-ServerName $State)) {
        Stop-Stub "If the AuthMechanism parameter contains ExchangeServer, the Fqdn has to be $($State.Server.Fqdn), $(Get-ServerName $State) or `$null."
    }
    if ($One.SuppressXAnonymousTls) { Stop-Stub 'SuppressXAnonymousTls needs UseDowngradedExchangeServerAuth on the transport service.' }
    if ($One.Name.Length -gt 64) { Stop-Stub 'The name is longer than 64 characters.' }
    if (@($Others | Where-Object { $_.Name -eq $One.Name })) { Stop-Stub "The connector '$($One.Identity)' already exists." 'ADObjectAlreadyExistsException' }
    Assert-Ranges $One $Others
}

function Invoke-StubNewReceiveConnector {
    param($State, $Given)
    if ($Given['Server'] -and -not (Test-OurServer $State $Given.Server)) { Stop-Stub 'The stubs make connectors on our server alone.' }
    $usages = @($presets.Keys | Where-Object { $Given[$_] -or $Given['Usage'] -eq $_ })
    if ($usages.Count -gt 1) { Stop-Stub 'A connector has one usage type.' }
    $preset = $presets[$(if ($usages) { $usages[0] } else { 'Custom' })]
    $lacking = @($preset.Needs | Where-Object { -not $Given[$_] })
    if ($lacking) { Stop-Stub "This usage type needs $($lacking -join ' and ')." }
    # Nobody says which role is taken without it.
    if (-not $Given['TransportRole']) { Stop-Stub 'TransportRole has to be given: what is taken without it is not documented.' }
    $name = Get-ServerName $State
    $one = [ordered]@{
        Name = $Given.Name; Identity = "$name\$($Given.Name)"; Enabled = $true; Bindings = @("0.0.0.0:$($preset['Port'])"); RemoteIPRanges = $everybody
        Fqdn = $State.Server.Fqdn; AuthMechanism = 'Tls'; PermissionGroups = $preset.PermissionGroups; RequireTLS = $false
        TlsCertificateName = $null; TlsDomainCapabilities = @(); SuppressXAnonymousTls = $false; ProtocolLoggingLevel = 'None'
    }
    $one['Guid'] = [guid]::NewGuid().ToString()
    $null = Update-Object $one $Given (@('Server', 'Usage') + @($presets.Keys))
    $others = @(Get-Receive $State)
    Assert-Receive $State $one $others
    $State.ReceiveConnectors = $others + $one
    Save-State $State
    New-Remote 'Get-ReceiveConnector' $one
}

function Invoke-StubSetReceiveConnector {
    param($State, $Given)
    $every = @(Get-Receive $State)
    $one = Find-Object $every $Given.Identity
    $changed = Update-Object $one $Given @('Identity')
    Assert-Receive $State $one @($every | Where-Object { $_ -ne $one })
    if (-not $changed) { Write-Unchanged $one; return }
    $one.Identity = "$(Get-ServerName $State)\$($one.Name)"
    $State.ReceiveConnectors = $every
    Save-State $State
}

function Invoke-StubRemoveReceiveConnector {
    param($State, $Given)
    $every = @(Get-Receive $State)
    $one = Find-Object $every $Given.Identity
    $State.ReceiveConnectors = @($every | Where-Object { $_ -ne $one })
    Save-State $State
}
