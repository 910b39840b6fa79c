# What comes back: objects as a remote session gives them. Booleans and numbers stay, everything else is of a type of Exchange's own.

class StubText {
    [string]$Value
    StubText([string]$value) { $this.Value = $value }
    [string] ToString() { return $this.Value }
}

$enumerations = @{}

# A value of an enumeration. In a remote session it is a number that shows as text.
function New-Enumeration {
    param([string]$Type, [string[]]$Names, [string]$Text)
    if (-not $enumerations.ContainsKey($Type)) {
        $number = -1
        $flagged = $Type -in $flags
        $members = foreach ($name in $Names) {
            $number = if (-not $flagged) { $number + 1 } elseif ($name -eq 'None') { 0 } elseif ($number -lt 1) { 1 } else { $number * 2 }
            "$name = $number"
        }
        $attribute = if ($flagged) { '[Flags()] ' } else { '' }
        $enumerations[$Type] = Invoke-Expression "$attribute enum Stub$Type { $($members -join '; ') }; [Stub$Type]"
    }
    [enum]::Parse($enumerations[$Type], $Text)
}

function ConvertTo-Property {
    param([string]$Cmdlet, [string]$Name, $Value)
    if ($null -eq $Value -or $Value -is [bool] -or $Value -is [int] -or $Value -is [datetime] -or $Value -is [byte[]]) { return , $Value }
    if ($Value -is [long]) { return [int]$Value }
    if ($Value -is [array]) { return , [System.Collections.ArrayList]@($Value | ForEach-Object { [StubText]::new("$_") }) }
    $writer = $cmdlets[$Cmdlet.Replace('Get-', 'Set-')]
    if ($writer -and $writer.parameters.Contains($Name) -and $writer.parameters[$Name].accepted_values) {
        $parameter = $writer.parameters[$Name]
        return New-Enumeration $parameter.type $parameter.accepted_values $Value
    }
    [StubText]::new("$Value")
}

# An object of a Get- cmdlet: the properties that a capture shows, with the values that are known here.
function New-Remote {
    param([string]$Cmdlet, $Values)
    $properties = [ordered]@{}
    if ($captured.Contains($Cmdlet)) {
        foreach ($entry in $captured[$Cmdlet].properties.GetEnumerator()) {
            $type = $entry.Value.type
            $properties[$entry.Key] = if ($type -eq 'Boolean') { $false }
            elseif ($type -like '*MultiValuedProperty*') { , [System.Collections.ArrayList]@() }
            else { $null }
        }
    }
    foreach ($name in $Values.Keys) { $properties[$name] = ConvertTo-Property $Cmdlet $name $Values[$name] }
    $properties['PSComputerName'] = 'stub'
    $text = [System.Management.Automation.PSSerializer]::Serialize([pscustomobject]$properties, 3)
    [System.Management.Automation.PSSerializer]::Deserialize($text)
}

# With MultiValuedProperty: the former list, changed by a list or by @{Add=..;Remove=..}.
function Join-Value {
    param($Former, $Given)
    if ($Given -isnot [hashtable]) { return , @($Given | Where-Object { $null -ne $_ }) }
    $kept = @($Former | Where-Object { $_ -notin @($Given['Remove']) })
    , @($kept + @($Given['Add'] | Where-Object { $null -ne $_ }))
}

# The object that a name stands for, of those that are there.
function Find-Object {
    param($Objects, [string]$Identity)
    $found = @($Objects | Where-Object { $_['Identity'] -eq $Identity -or $_['Guid'] -eq $Identity -or $_['Name'] -eq $Identity })
    if ($found.Count -ne 1) {
        Stop-Stub "The operation couldn't be performed because object '$Identity' couldn't be found on 'dc1.example.test'." 'ManagementObjectNotFoundException'
    }
    $found[0]
}

# What a Get- with an Identity gives. One that is null or unknown gives all.
function Select-Named {
    param($Objects, $Given)
    if (-not $Given['Identity']) { return $Objects }
    $found = @($Objects | Where-Object { $_['Identity'] -eq $Given.Identity -or $_['Name'] -eq $Given.Identity -or $_['Guid'] -eq $Given.Identity })
    if ($found) { $found } else { $Objects }
}

# A GUID for an object that has none in the state yet; always the same one for the same name.
function Get-StubGuid {
    param([string]$Name)
    [guid]::new([System.Security.Cryptography.MD5]::HashData([System.Text.Encoding]::UTF8.GetBytes($Name))).ToString()
}

# Sets what was given, of the properties that Get- shows. Whether something changed.
function Update-Object {
    param($Object, $Given, [string[]]$Except)
    $changed = $false
    foreach ($name in $Given.Keys | Where-Object { $_ -notin $Except }) {
        $value = $Given[$name]
        if ($value -is [hashtable] -or $value -is [array]) { $value = Join-Value $Object[$name] $value }
        if (($value | ConvertTo-Json -Compress) -cne ($Object[$name] | ConvertTo-Json -Compress)) { $changed = $true }
        $Object[$name] = $value
    }
    $changed
}

function Write-Unchanged {
    param($Object)
    Write-Warning "The command completed successfully but no settings of '$($Object.Identity)' have been modified."
}
