# Send connectors: they belong to the organisation.

$usageSwitches = @('Custom', 'Internal', 'Internet', 'Partner', 'Usage')

function Get-Send {
    param($State)
    foreach ($one in @(Get-List $State 'SendConnectors')) {
        $defaults = @{ Identity = $one.Name; Guid = Get-StubGuid $one.Name; Enabled = $true; AddressSpaces = @('SMTP:*;1'); SmartHosts = @()
            DNSRoutingEnabled = $false; Port = 25; Fqdn = $null; RequireTLS = $false; IgnoreSTARTTLS = $false; TlsAuthLevel = $null; TlsDomain = $null
            TlsCertificateName = $null; DomainSecureEnabled = $false; CloudServicesMailEnabled = $false; FrontendProxyEnabled = $false
            SourceTransportServers = @(Get-ServerName $State); SmartHostAuthMechanism = 'None' }
        foreach ($name in $defaults.Keys) { if (-not $one.Contains($name)) { $one[$name] = $defaults[$name] } }
        $one
    }
}

function Invoke-StubGetSendConnector {
    param($State, $Given)
    foreach ($one in Select-Named @(Get-Send $State) $Given) { New-Remote 'Get-SendConnector' $one }
}

# "*" becomes "SMTP:*;1", as Get- shows it.
function ConvertTo-AddressSpace {
    param([string]$Text)
    $kind, $rest = if ($Text.Contains(':')) { $Text.Split(':', 2) } else { 'SMTP', $Text }
    $space, $cost = $rest.Split(';', 2)
    "${kind}:$space;$(if ($cost) { $cost } else { 1 })"
}

function Assert-Send {
    param($State, $One, $Others, $Given)
    if ($One.RequireTLS -and $One.IgnoreSTARTTLS) { Stop-Stub 'RequireTLS cannot be set while IgnoreSTARTTLS is $true.' }
    if ($One.TlsAuthLevel -and ($One.IgnoreSTARTTLS -or -not $One.RequireTLS)) {
        Stop-Stub 'TlsAuthLevel cannot be set while IgnoreSTARTTLS is $true or RequireTLS is $false.'
    }
    if ($One.TlsDomain -and $One.TlsAuthLevel -ne 'DomainValidation') {
        Stop-Stub 'The TLSDomain parameter can only be set if the TLSAuthLevel parameter is set to DomainValidation.'
    }
    if ($One.TlsAuthLevel -eq 'DomainValidation' -and -not $One.DNSRoutingEnabled -and -not $One.TlsDomain) {
        Stop-Stub 'TlsDomain has to be set if TlsAuthLevel is DomainValidation and DNSRoutingEnabled is $false.'
    }
    if ($Given['SmartHosts'] -and $One.DNSRoutingEnabled) { Stop-Stub 'SmartHosts can only be set if DNSRoutingEnabled is $false.' }
    if ($Given.Contains('DNSRoutingEnabled') -and -not $Given.DNSRoutingEnabled -and -not $Given['SmartHosts']) {
        Stop-Stub 'DNSRoutingEnabled $false needs SmartHosts in the same call.'
    }
    if (-not $One.DNSRoutingEnabled -and -not @($One.SmartHosts)) { Stop-Stub 'A connector without DNS routing needs SmartHosts.' }
    if ($One.DomainSecureEnabled -and (-not $One.DNSRoutingEnabled -or $One.IgnoreSTARTTLS)) {
        Stop-Stub 'DomainSecureEnabled needs DNS routing, and IgnoreSTARTTLS $false.'
    }
    if (-not @($One.AddressSpaces)) { Stop-Stub 'A connector needs an address space.' }
    if ($One.Port -lt 1 -or $One.Port -gt 65535) { Stop-Stub 'Port is between 1 and 65535.' }
    foreach ($server in $One.SourceTransportServers) { $null = Test-OurServer $State $server }
    if (@($Others | Where-Object { $_.Name -eq $One.Name })) { Stop-Stub "The connector '$($One.Name)' already exists." 'ADObjectAlreadyExistsException' }
}

function Invoke-StubNewSendConnector {
    param($State, $Given)
    if (@($usageSwitches | Where-Object { $Given[$_] }).Count -gt 1) { Stop-Stub 'A connector has one usage type.' }
    $one = [ordered]@{
        Name = $Given.Name; Identity = $Given.Name; Guid = [guid]::NewGuid().ToString(); Enabled = $true; AddressSpaces = @(); SmartHosts = @()
        DNSRoutingEnabled = $true; Port = 25; Fqdn = $null; RequireTLS = $false; IgnoreSTARTTLS = $false; TlsAuthLevel = $null; TlsDomain = $null
        TlsCertificateName = $null; DomainSecureEnabled = $false; CloudServicesMailEnabled = $false; FrontendProxyEnabled = $false
        SourceTransportServers = @(Get-ServerName $State); ProtocolLoggingLevel = 'None'; SmartHostAuthMechanism = 'None'
    }
    $null = Update-Object $one $Given ($usageSwitches + 'Force')
    $one.AddressSpaces = @($one.AddressSpaces | ForEach-Object { ConvertTo-AddressSpace $_ })
    $others = @(Get-Send $State)
    Assert-Send $State $one $others $Given
    $State.SendConnectors = $others + $one
    Save-State $State
    New-Remote 'Get-SendConnector' $one
}

function Invoke-StubSetSendConnector {
    param($State, $Given)
    $every = @(Get-Send $State)
    $one = Find-Object $every $Given.Identity
    $changed = Update-Object $one $Given @('Identity', 'Force')
    $one.AddressSpaces = @($one.AddressSpaces | ForEach-Object { ConvertTo-AddressSpace $_ })
    Assert-Send $State $one @($every | Where-Object { $_ -ne $one }) $Given
    if (-not $changed) { Write-Unchanged $one; return }
    $one.Identity = $one.Name
    $State.SendConnectors = $every
    Save-State $State
}

function Invoke-StubRemoveSendConnector {
    param($State, $Given)
    $every = @(Get-Send $State)
    $one = Find-Object $every $Given.Identity
    $State.SendConnectors = @($every | Where-Object { $_ -ne $one })
    Save-State $State
}
