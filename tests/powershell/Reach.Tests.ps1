BeforeAll { . $PSScriptRoot/Harness.ps1 }

# How the cmdlets are reached. No Exchange is here: what the module would call is mocked, and what it asks for is looked at.
Describe 'reach' {
    BeforeEach {
        $null = New-Organisation
        $script:install = Join-Path $env:EXCHANGE_STUBS_DIRECTORY 'V15'
        $null = New-Item -ItemType Directory -Path "$install/bin" -Force
        # Like the real one, it talks, and defines a function for whoever loads it with a dot.
        [System.IO.File]::WriteAllText("$install/bin/RemoteExchange.ps1",
            "Write-Host 'Welcome'; Write-Output 'banner'; function Connect-ExchangeServer { param([switch]`$Auto) 'connected'; `$global:connected += @([bool]`$Auto) }")
        $global:connected = @()
        $env:ExchangeInstallPath = $null
        $script:sessions = @(
            [pscustomobject]@{ ConfigurationName = 'Microsoft.Exchange'; Id = 7 }, [pscustomobject]@{ ConfigurationName = 'Other'; Id = 8 }
        )
        Mock Get-PSSession { $sessions }
        Mock Remove-PSSession -RemoveParameterType Session { $global:closed += @($Session.Id) }
        $global:closed = @()
        Mock New-PSSession { 'the session' }
        Mock Import-PSSession -RemoveParameterType Session { }
        # Whether the cmdlets are there: a list of answers, the last one for ever.
        function Set-Loaded { param([bool[]]$Answers)
            $global:answers = [System.Collections.Generic.Queue[bool]]::new($Answers)
            Mock Get-Command -ParameterFilter { $Name -eq 'Get-ExchangeServer' } {
                if ($(if ($global:answers.Count -gt 1) { $global:answers.Dequeue() } else { $global:answers.Peek() })) { 'there' }
            }
        }
    }
    AfterEach {
        Remove-Organisation
        $env:ExchangeInstallPath = $null
        foreach ($name in 'connected', 'closed', 'answers') { Remove-Variable -Name $name -Scope Global -ErrorAction SilentlyContinue }
    }

    It 'auto takes cmdlets that are there' {
        $env:ExchangeInstallPath = $install
        $result = Invoke-Module @{ operation = 'read'; reach = 'auto' }
        $result.reach | Should -BeExactly 'loaded'
        $global:connected | Should -HaveCount 0
        Should -Invoke New-PSSession -Times 0 -Exactly
        $global:closed | Should -HaveCount 0
    }

    It 'auto is what is done without a word' {
        (Invoke-Module @{ operation = 'read'; reach = $null }).reach | Should -BeExactly 'loaded'
        Set-Loaded $false
        (Invoke-Module @{ operation = 'read'; reach = $null }).reach | Should -BeExactly 'session'
    }

    It 'an option that does not fit is refused: <Why>' -ForEach @(
        @{ Why = 'reach'; Options = @{ operation = 'read'; reach = 'telnet' }; Words = "*reach*auto, shell, session, loaded*telnet*" }
        @{ Why = 'operation'; Options = @{ operation = 'write' }; Words = "*operation*read, apply, restore*write*" }
        @{ Why = 'no operation'; Options = @{ operation = $null }; Words = '*missing required arguments: operation*' }
    ) {
        $result = Invoke-Module $Options
        $result.failed | Should -BeTrue
        $result.msg | Should -BeLike $Words
        $global:closed | Should -HaveCount 0
    }

    It 'auto takes the management shell where it is installed, and closes its session' {
        $env:ExchangeInstallPath = $install
        Set-Loaded $false, $true
        $result = Invoke-Module @{ operation = 'read'; reach = 'auto' }
        $result.reach | Should -BeExactly 'shell'
        $result.observed.Server.Name | Should -BeExactly 'EX1'
        $global:connected | Should -Be @($true)
        $global:closed | Should -Be @(7)
        Should -Invoke New-PSSession -Times 0 -Exactly
    }

    It 'auto takes a session elsewhere' {
        Set-Loaded $false
        (Invoke-Module @{ operation = 'read'; reach = 'auto' }).reach | Should -BeExactly 'session'
        $env:ExchangeInstallPath = '/nowhere'
        (Invoke-Module @{ operation = 'read'; reach = 'auto' }).reach | Should -BeExactly 'session'
    }

    It 'shell is used though the cmdlets are there' {
        $env:ExchangeInstallPath = $install
        (Invoke-Module @{ operation = 'read'; reach = 'shell' }).reach | Should -BeExactly 'shell'
        $global:connected | Should -Be @($true)
    }

    It 'shell says what is missing' {
        $result = Invoke-Module @{ operation = 'read'; reach = 'shell' }
        $result.failed | Should -BeTrue
        $result.msg | Should -BeLike '*(reach: shell): RemoteExchange.ps1 is not there*starttls_exchange_reach*'
        $env:ExchangeInstallPath = '/nowhere'
        (Invoke-Module @{ operation = 'read'; reach = 'shell' }).msg | Should -BeLike '*RemoteExchange.ps1 is not there*'
    }

    It 'shell says what Exchange said, if nothing came of it' {
        $env:ExchangeInstallPath = $install
        Set-Loaded $false
        $result = Invoke-Module @{ operation = 'read'; reach = 'shell' }
        $result.failed | Should -BeTrue
        $result.msg | Should -BeLike '*brought no cmdlets*banner*connected*'
        $global:closed | Should -Be @(7)
    }

    It 'an Edge server has a snap-in' {
        function Add-PSSnapin { param($Name) $global:connected += @($Name) }
        Mock Test-Path -ParameterFilter { $Path -like 'HKLM:*EdgeTransportRole' } { $true }
        Set-Loaded $false, $true
        (Invoke-Module @{ operation = 'read'; reach = 'auto' }).reach | Should -BeExactly 'shell'
        $global:connected | Should -Be @('Microsoft.Exchange.Management.PowerShell.E2010')
    }

    It 'session asks for a Kerberos session, imports what it needs, and closes it' {
        $result = Invoke-Module @{ operation = 'read'; reach = 'session'; session_uri = 'http://ex1.example.test/PowerShell/' }
        $result.reach | Should -BeExactly 'session'
        Should -Invoke New-PSSession -Times 1 -Exactly -ParameterFilter {
            $ConfigurationName -eq 'Microsoft.Exchange' -and $ConnectionUri -eq 'http://ex1.example.test/PowerShell/' -and $Authentication -eq 'Kerberos' -and $ErrorAction -eq 'Stop'
        }
        Should -Invoke Import-PSSession -Times 1 -Exactly -ParameterFilter {
            $Session -eq 'the session' -and $AllowClobber -and $ErrorAction -eq 'Stop' -and $DisableNameChecking -and
            -not (Compare-Object $CommandName @('Get-ExchangeServer', 'Get-TransportService', 'Get-ExchangeCertificate', 'Get-ReceiveConnector', 'Get-SendConnector', 'Get-Queue',
                    'Get-AcceptedDomain', 'Set-ReceiveConnector', 'New-ReceiveConnector', 'Remove-ReceiveConnector', 'Set-SendConnector', 'New-SendConnector', 'Remove-SendConnector',
                    'Import-ExchangeCertificate', 'Enable-ExchangeCertificate', 'Remove-ExchangeCertificate', 'Retry-Queue'))
        }
        $global:closed | Should -Be @(7)
    }

    It 'session goes to the host itself without an address' {
        $null = Invoke-Module @{ operation = 'read'; reach = 'session' }
        $wanted = "http://$([System.Net.Dns]::GetHostEntry('').HostName)/PowerShell/"
        Should -Invoke New-PSSession -Times 1 -Exactly -ParameterFilter { "$ConnectionUri" -eq $wanted }
    }

    It 'session says why it was refused' {
        Mock New-PSSession { throw 'Access is denied.' }
        $result = Invoke-Module @{ operation = 'apply'; reach = 'session'; calls = @(@{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; Port = 26 } }) }
        $result.failed | Should -BeTrue
        $result.msg | Should -BeLike '*(reach: session): Access is denied.*second hop*Nothing was run.'
        Get-Calls | Should -BeNullOrEmpty
    }

    It 'loaded needs the cmdlets' {
        $env:ExchangeInstallPath = $install
        Set-Loaded $false
        $result = Invoke-Module @{ operation = 'read'; reach = 'loaded' }
        $result.failed | Should -BeTrue
        $result.msg | Should -BeLike '*(reach: loaded): there is no Get-ExchangeServer*'
        $global:closed | Should -HaveCount 0
    }

    It 'closes the session after <Name>' -ForEach @(
        @{ Name = 'a change'; Options = @{ operation = 'apply'; calls = @(@{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; Port = 26 } }) } }
        @{ Name = 'a change that failed'; Options = @{ operation = 'apply'; calls = @(@{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'none'; Port = 26 } }) } }
        @{ Name = 'a restore'; Options = @{ operation = 'restore'; calls = @(@{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; Port = 26 } }) } }
        @{ Name = 'a call with a parameter that is not there'; Options = @{ operation = 'apply'; calls = @(@{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'x'; Nonsense = 26 } }) } }
    ) {
        $null = Invoke-Module ($Options + @{ reach = 'session' })
        $global:closed | Should -Be @(7)
    }

    It 'closes the session in check mode' {
        $null = Invoke-Module -CheckMode @{ operation = 'apply'; reach = 'session'; calls = @(@{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; Port = 26 } }) }
        $global:closed | Should -Be @(7)
        Get-Calls | Should -BeNullOrEmpty
    }
}
