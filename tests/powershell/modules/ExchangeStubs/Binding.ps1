# What a cmdlet takes: its parameters, their types, which ones belong together.

$reference = [System.IO.File]::ReadAllText("$PSScriptRoot/../../exchange-cmdlets.json") | ConvertFrom-Json -AsHashtable
$cmdlets = $reference.cmdlets
$captured = $reference.captured
$common = @('Confirm', 'WhatIf')
$flags = @('AuthMechanisms', 'PermissionGroups', 'AllowedServices')
$texts = @('String', 'Fqdn', 'SmtpX509Identifier', 'SmtpDomainWithSubdomains')

class StubError : System.Exception {
    [string]$Kind
    StubError([string]$message, [string]$kind) : base($message) { $this.Kind = $kind }
}

# An error of the cmdlet itself. A caller sees it as Exchange gives it: it ends nothing, unless ErrorAction says so.
function Stop-Stub {
    param([string]$Message, [string]$Kind = 'InvalidOperationException')
    throw [StubError]::new($Message, $Kind)
}

# An error of PowerShell, before the cmdlet runs.
function Stop-Binding {
    param([string]$Message)
    throw [System.Management.Automation.ParameterBindingException]::new($Message)
}

function Get-Edition {
    $version = [version]'15.2.2562.17'
    if ($env:EXCHANGE_STUBS_DIRECTORY -and [System.IO.File]::Exists((Get-StateFile 'state.json'))) {
        $state = Read-State
        if ($state.Contains('Server') -and $state.Server.Contains('Version')) { $version = [version]$state.Server.Version }
    }
    if ($version -lt [version]'15.2') { '2016' } elseif ($version -lt [version]'15.2.2562') { '2019' } else { 'SE' }
}

function Get-Absent {
    param([string]$Cmdlet)
    if (-not $env:EXCHANGE_STUBS_DIRECTORY -or -not [System.IO.File]::Exists((Get-StateFile 'state.json'))) { return }
    $state = Read-State
    if ($state.Contains('Session') -and $state.Session.Contains('Absent')) { $state.Session.Absent[$Cmdlet] }
}

# The parameters that a cmdlet has in this edition.
function Get-StubParameter {
    param([string]$Cmdlet)
    $edition = Get-Edition
    $absent = @(Get-Absent $Cmdlet)
    foreach ($entry in $cmdlets[$Cmdlet].parameters.GetEnumerator()) {
        if ($entry.Key -notin $common -and $edition -in $entry.Value.applicable -and $entry.Key -notin $absent) { $entry.Key }
    }
}

function Get-FunctionText {
    param([string]$Cmdlet)
    $entry = $cmdlets[$Cmdlet]
    $declared = foreach ($name in Get-StubParameter $Cmdlet) {
        $parameter = $entry.parameters[$name]
        $position = if ($parameter.Contains('position')) { "[Parameter(Position = $($parameter.position - 1))]" } else { '' }
        $type = if ($parameter.type -eq 'SwitchParameter') { '[switch]' } else { '[object]' }
        "$position$type`$$name"
    }
    $should = if ($entry.supports_should_process) { 'SupportsShouldProcess = $true' } else { '' }
    "function $Cmdlet { [CmdletBinding($should)] param($($declared -join ', ')) Invoke-Stub `$PSCmdlet '$Cmdlet' `$PSBoundParameters }"
}

function Invoke-Stub {
    param($Caller, [string]$Cmdlet, $Bound)
    $given = @{}
    try {
        $known = $cmdlets[$Cmdlet].parameters
        foreach ($name in $Bound.Keys | Where-Object { $known.Contains($_) -and $_ -notin $common }) { $given[$name] = ConvertTo-Value $Cmdlet $name $Bound[$name] }
        Assert-Set $Cmdlet $given
    }
    catch {
        $id = "ParameterBindingFailed,$Cmdlet"
        $Caller.ThrowTerminatingError([System.Management.Automation.ErrorRecord]::new($_.Exception, $id, 'InvalidArgument', $null))
    }
    if ($Bound['WhatIf']) { return }
    try {
        $state = Read-State
        if ($cmdlets[$Cmdlet].supports_should_process) {
            # Nobody is there to answer.
            if ($Cmdlet -like 'Remove-*' -and ($Bound['Confirm'] -or -not $Bound.ContainsKey('Confirm'))) {
                Stop-Stub 'A command that prompts the user failed because the host program or the command type does not support user interaction.'
            }
            Add-Line 'calls.jsonl' @{ Cmdlet = $Cmdlet; Parameters = Hide-Secret $given }
        }
        Assert-NoFault $state $Cmdlet $given
        & "Invoke-Stub$($Cmdlet.Replace('-', ''))" $state $given
    }
    catch {
        if ($_.Exception -isnot [StubError]) { throw }
        $id = "AA21DCE6,Microsoft.Exchange.Management.SystemConfigurationTasks.$($Cmdlet.Replace('-', ''))"
        $record = [System.Management.Automation.ErrorRecord]::new($_.Exception, $id, 'InvalidOperation', $null)
        $Caller.WriteError($record)
    }
}

function Hide-Secret {
    param($Given)
    $shown = @{}
    foreach ($name in $Given.Keys) {
        $value = $Given[$name]
        $shown[$name] = if ($value -is [byte[]] -or $value -is [securestring]) { 'secret' } else { $value }
    }
    $shown
}

function Assert-NoFault {
    param($State, [string]$Cmdlet, $Given)
    foreach ($fault in Get-List $State 'Faults') {
        $targets = @($Given['Identity'], $Given['Thumbprint'], $Given['Name'])
        if ($fault.Cmdlet -eq $Cmdlet -and (-not $fault['Target'] -or $fault.Target -in $targets)) { Stop-Stub $fault.Message }
    }
}

# One parameter set has to have all its mandatory parameters, and no parameter of another set may be there.
function Assert-Set {
    param([string]$Cmdlet, $Given)
    $parameters = $cmdlets[$Cmdlet].parameters
    $missing = $null
    $edition = Get-Edition
    foreach ($set in $cmdlets[$Cmdlet].sets.GetEnumerator()) {
        $own = @($parameters.Values | Where-Object { "$($_.parameter_sets)" -eq $set.Key })
        if ($own -and -not @($own | Where-Object { $edition -in $_.applicable })) { continue }
        $foreign = @($Given.Keys | Where-Object { '(All)' -notin $parameters[$_].parameter_sets -and $set.Key -notin $parameters[$_].parameter_sets })
        $lacking = @($set.Value | Where-Object { -not $Given.Contains($_) -or $null -eq $Given[$_] })
        if (-not $foreign -and -not $lacking) { return }
        if (-not $foreign -and ($null -eq $missing -or $lacking.Count -lt $missing.Count)) { $missing = $lacking }
    }
    if ($null -ne $missing) { Stop-Binding "Cannot process command because of one or more missing mandatory parameters: $($missing -join ' ')." }
    Stop-Binding 'Parameter set cannot be resolved using the specified named parameters.'
}

# A parameter's value as the stub works with it: text, boolean, number, list of texts; or an error.
function ConvertTo-Value {
    param([string]$Cmdlet, [string]$Name, $Value)
    $parameter = $cmdlets[$Cmdlet].parameters[$Name]
    $type = $parameter.type
    $wrong = "Cannot process argument transformation on parameter '$Name'. Cannot convert value ""$Value"" to type $type."
    if ($type -eq 'SwitchParameter') { return [bool]$Value }
    if ($type -eq 'Boolean') { if ($Value -is [bool]) { return $Value } Stop-Binding $wrong }
    if ($null -eq $Value) { return $null }
    if ($type -eq 'Int32') { if ($Value -is [int] -or $Value -is [long]) { return [int]$Value } Stop-Binding $wrong }
    if ($type -eq 'Byte[]') { if ($Value -is [byte[]]) { return , $Value } Stop-Binding $wrong }
    if ($type -eq 'SecureString') { if ($Value -is [securestring]) { return $Value } Stop-Binding $wrong }
    if ($type -eq 'MultiValuedProperty') {
        $all = if ($Value -is [hashtable]) { foreach ($key in $Value.Keys) { if ($key -notin 'Add', 'Remove') { Stop-Binding $wrong } $Value[$key] } } else { $Value }
        if (@($all | Where-Object { $_ -isnot [string] })) { Stop-Binding $wrong }
        if ($Value -is [hashtable]) { return $Value }
        return , [string[]]@($Value)
    }
    if ($parameter.accepted_values) {
        $words = @($Value | ForEach-Object { if ($_ -isnot [string]) { Stop-Binding $wrong } $_.Split(',').Trim() })
        if ($words.Count -ne 1 -and ($type -notin $flags -or $Name -eq 'SmartHostAuthMechanism')) { Stop-Binding $wrong }
        $found = @($parameter.accepted_values | Where-Object { $_ -in $words })
        if (-not $words -or @($words | Where-Object { $_ -notin $found })) {
            Stop-Binding "$wrong The possible enumeration values are ""$($parameter.accepted_values -join ', ')""."
        }
        return $found -join ', '
    }
    if ($type -in $texts -or $type -like '*IdParameter' -or $type -in 'QueueIdentity', 'Unlimited', 'EnhancedTimeSpan', 'ByteQuantifiedSize') {
        if ($Value -isnot [string] -and -not ($type -eq 'Unlimited' -and $Value -is [int])) { Stop-Binding $wrong }
        if ($type -eq 'Fqdn' -and $Value -notmatch '\A[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\z') { Stop-Binding $wrong }
        if ($type -eq 'SmtpX509Identifier' -and $Value -notmatch '\A<I>.+<S>.+\z') { Stop-Binding $wrong }
        if ($type -eq 'SmtpDomainWithSubdomains' -and $Value -notmatch '\A(\*\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\z') { Stop-Binding $wrong }
        return "$Value"
    }
    Stop-Binding "$wrong (the stubs do not know this type)"
}
