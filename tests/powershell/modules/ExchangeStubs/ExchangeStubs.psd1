@{
    RootModule = 'ExchangeStubs.psm1'
    ModuleVersion = '0.1.0'
    GUID = '7b4f5a0e-4b7c-4c5e-9f0d-2f6a1c1d9e11'
    Description = 'Stand-ins for cmdlets of Exchange, for tests. PowerShell loads the module when one of them is called.'
    FunctionsToExport = @(
        'Get-ExchangeServer', 'Get-TransportService', 'Get-AcceptedDomain',
        'Get-ExchangeCertificate', 'Import-ExchangeCertificate', 'Enable-ExchangeCertificate', 'Remove-ExchangeCertificate',
        'Get-ReceiveConnector', 'New-ReceiveConnector', 'Set-ReceiveConnector', 'Remove-ReceiveConnector',
        'Get-SendConnector', 'New-SendConnector', 'Set-SendConnector', 'Remove-SendConnector',
        'Get-Queue', 'Retry-Queue', 'Get-CimInstance'
    )
    CmdletsToExport = @()
    VariablesToExport = @()
    AliasesToExport = @()
}
