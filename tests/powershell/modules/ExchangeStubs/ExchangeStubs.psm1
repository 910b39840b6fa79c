# Stand-ins for cmdlets of Exchange. They are strict: what the documentation does not allow is an error here.
#
# Names, types, mandatory and accepted values of parameters, and the properties of what comes back, are read from
# exchange-cmdlets.json. The combinations are written below, one function for each cmdlet. The state is that of the stand-in for
# Exchange in tools/lab/exchange, so a change is seen on the wire.
#
#   EXCHANGE_STUBS_DIRECTORY  where state.json lies, as the stand-in sees it
#   EXCHANGE_STUBS_ROOT       what stands before each path here, such as /proc/123/root; nothing by default
#
# state.json may have, for the stubs alone:
#   OtherServers   more servers of the organisation: Name, Fqdn
#   Windows        Version, for Get-CimInstance
#   Faults         calls that fail: Cmdlet, Message, and Target (Identity, Thumbprint or Name) if only that one
#   Session        Certificates: "plain" (without Services and Status) or "broken" (RawData alone), as remote sessions give them
#                  Absent: cmdlet -> the parameters that the user's role does not have
# calls.jsonl gets a line for each call that changes something: Cmdlet and Parameters, without secrets.

$ErrorActionPreference = 'Stop'
Set-StrictMode -Version 2
. $PSScriptRoot/State.ps1
. $PSScriptRoot/Binding.ps1
. $PSScriptRoot/Objects.ps1
. $PSScriptRoot/Server.ps1
. $PSScriptRoot/ReceiveConnectors.ps1
. $PSScriptRoot/SendConnectors.ps1
. $PSScriptRoot/Certificates.ps1
. $PSScriptRoot/Queues.ps1

$here = (Import-PowerShellDataFile -Path $PSScriptRoot/ExchangeStubs.psd1).FunctionsToExport
foreach ($name in $here | Where-Object { $_ -ne 'Get-CimInstance' }) {
    . ([scriptblock]::Create((Get-FunctionText $name)))
}

function Get-CimInstance {
    [CmdletBinding()]
    param([string]$ClassName)
    if ($ClassName -ne 'Win32_OperatingSystem') { throw "Invalid class $ClassName" }
    $state = Read-State
    $version = if ($state.Contains('Windows')) { $state.Windows.Version } else { '10.0.20348' }
    [pscustomobject]@{ Version = $version; Caption = 'Microsoft Windows Server' }
}

Export-ModuleMember -Function $here
