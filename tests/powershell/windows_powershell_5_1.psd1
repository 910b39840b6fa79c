# What our .ps1 may use: it is in Windows PowerShell 5.1, and in .NET Framework 4.7. Whoever adds a name has looked it up there.
@{
    # Cmdlet = the parameters that may be used. '*': a cmdlet of Exchange, or one that a variable names.
    Commands = @{
        'Add-PSSnapin' = @('Name')
        'Connect-ExchangeServer' = @('Auto')
        'ConvertTo-SecureString' = @('String', 'AsPlainText', 'Force')
        'ForEach-Object' = @()
        'Get-CimInstance' = @('ClassName', 'ErrorAction')
        'Get-Command' = @('Name', 'ErrorAction')
        'Get-PSSession' = @()
        'Import-PSSession' = @('Session', 'CommandName', 'AllowClobber', 'DisableNameChecking', 'ErrorAction', 'WarningAction')
        'Join-Path' = @()
        'New-Object' = @('TypeName', 'ArgumentList')
        'New-PSSession' = @('ConfigurationName', 'ConnectionUri', 'Authentication', 'ErrorAction')
        'Out-String' = @()
        'Remove-PSSession' = @()
        'Sort-Object' = @()
        'Test-Path' = @('Path')
        'Where-Object' = @()
    }
    Types = @(
        'Ansible.Basic.AnsibleModule', 'array', 'bool', 'byte[]', 'datetime', 'int', 'long', 'object[]', 'ordered', 'string', 'string[]'
        'System.Collections.IDictionary', 'System.Collections.IList', 'System.Convert', 'System.Environment', 'System.Globalization.CultureInfo'
        'System.Net.Dns', 'System.Security.Cryptography.X509Certificates.X509Certificate2', 'System.Text.Encoding'
    )
    # Type::Member of what is static.
    Statics = @(
        'Ansible.Basic.AnsibleModule::Create', 'array::Reverse', 'System.Convert::FromBase64String', 'System.Convert::ToBase64String'
        'System.Environment::MachineName', 'System.Globalization.CultureInfo::InvariantCulture', 'System.Net.Dns::GetHostEntry'
        'System.Text.Encoding::ASCII'
    )
    # Methods and how many arguments they may have: newer versions have more of the same name.
    Methods = @{
        Contains = @(1); ContainsKey = @(1); ExitJson = @(0); FailJson = @(1); GetString = @(3); Replace = @(2); ToString = @(0, 2)
        ToUniversalTime = @(0); Trim = @(0); Warn = @(1)
    }
    # Variables that PowerShell 5.1 sets itself.
    Variables = @('_', 'args', 'false', 'null', 'true')
}
