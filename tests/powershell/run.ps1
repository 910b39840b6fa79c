# Runs the Pester tests in this process: run.ps1 [PATH...]. A line for each test that failed, and the counts. EXCHANGE_MODULE: another .ps1 to test.
param([Parameter(ValueFromRemainingArguments)][string[]]$Path)
$ErrorActionPreference = 'Stop'
if (-not $Path) { $Path = (Get-ChildItem "$PSScriptRoot/*.Tests.ps1").FullName }
$configuration = New-PesterConfiguration
$configuration.Run.Path = $Path
$configuration.Run.PassThru = $true
$configuration.Output.Verbosity = if ($env:PESTER_OUTPUT) { $env:PESTER_OUTPUT } else { 'None' }
$result = Invoke-Pester -Configuration $configuration
foreach ($test in $result.Failed) { "FAILED $($test.ExpandedPath): $($test.ErrorRecord[0].DisplayErrorMessage)" }
foreach ($container in $result.FailedContainers) { "FAILED $($container.Item): $($container.ErrorRecord[0])" }
"Pester on PowerShell $($PSVersionTable.PSVersion): $($result.PassedCount) passed, $($result.FailedCount) failed, $($result.SkippedCount) skipped"
exit [int]($result.Result -ne 'Passed')
