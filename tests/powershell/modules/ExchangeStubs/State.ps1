# The state: state.json of the stand-in for Exchange, replaced as a whole.

function Get-Root { "$env:EXCHANGE_STUBS_ROOT" }

function Get-StateFile {
    param([string]$Name)
    if (-not $env:EXCHANGE_STUBS_DIRECTORY) { throw 'EXCHANGE_STUBS_DIRECTORY is not set: where is state.json?' }
    "$(Get-Root)$env:EXCHANGE_STUBS_DIRECTORY/$Name"
}

function Read-State {
    [System.IO.File]::ReadAllText((Get-StateFile 'state.json')) | ConvertFrom-Json -AsHashtable
}

function Save-State {
    param($State)
    $file = Get-StateFile 'state.json'
    $aside = Get-StateFile ".state.json.$PID"
    [System.IO.File]::WriteAllText($aside, ($State | ConvertTo-Json -Depth 20) + "`n")
    [System.IO.File]::SetUnixFileMode($aside, 'UserRead, UserWrite')
    [System.IO.File]::Move($aside, $file, $true)
}

# The elements of a list, if it is there.
function Get-List {
    param($State, [string]$Name)
    if ($State.Contains($Name)) { $State[$Name] }
}

function Get-ServerName {
    param($State)
    if ($State.Server['Name']) { $State.Server.Name } else { $State.Server.Fqdn.Split('.')[0].ToUpperInvariant() }
}

# The servers of the organisation, ours first.
function Get-Server {
    param($State)
    @{ Name = Get-ServerName $State; Fqdn = $State.Server.Fqdn }
    foreach ($other in Get-List $State 'OtherServers') { $other }
}

# Whether a name is that of our server; an error if it is that of none.
function Test-OurServer {
    param($State, [string]$Name)
    $found = @(Get-Server $State | Where-Object { $_.Name -eq $Name -or $_.Fqdn -eq $Name })
    if (-not $found) { Stop-Stub "The operation couldn't be performed because object '$Name' couldn't be found." 'ManagementObjectNotFoundException' }
    $found[0].Name -eq (Get-ServerName $State)
}

function Add-Line {
    param([string]$File, $Record)
    [System.IO.File]::AppendAllText((Get-StateFile $File), ($Record | ConvertTo-Json -Depth 5 -Compress) + "`n")
}
