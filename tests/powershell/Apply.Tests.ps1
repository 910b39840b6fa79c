BeforeAll {
    . $PSScriptRoot/Harness.ps1

    function Get-Send { (Get-State).SendConnectors[0] }

    # Two changes with what takes them back.
    function New-Calls {
        @(
            @{ Cmdlet = 'New-ReceiveConnector'
                Parameters = @{ Name = 'From gateway'; TransportRole = 'FrontendTransport'; Custom = $true; Bindings = @('0.0.0.0:25'); RemoteIPRanges = @('192.0.2.1')
                    AuthMechanism = @('Tls'); PermissionGroups = @('AnonymousUsers') }
                Undo = @(@{ Cmdlet = 'Remove-ReceiveConnector'; Parameters = @{ Identity = 'EX1\From gateway' } }) }
            @{ Cmdlet = 'Set-SendConnector'
                Parameters = @{ Identity = 'To gateway'; RequireTLS = $true; TlsAuthLevel = 'EncryptionOnly'; Port = 2526 }
                Undo = @(
                    @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; RequireTLS = $false; TlsAuthLevel = $null } }
                    @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; Port = 25 } }
                ) }
        )
    }
}

Describe 'apply' {
    BeforeEach { $null = New-Organisation }
    AfterEach { Remove-Organisation }

    It 'runs calls in their order, with each kind of value' {
        $result = Invoke-Module @{ operation = 'apply'; calls = New-Calls }
        $result.changed | Should -BeTrue
        $result.Contains('failed') | Should -BeFalse
        $result.done | Should -Be 2
        $result.undo.Count | Should -Be 0
        $result.Contains('failure') | Should -BeFalse
        $result.Contains('undo') | Should -BeTrue
        (Get-Calls).Cmdlet | Should -Be @('New-ReceiveConnector', 'Set-SendConnector')
        (Get-Send).RequireTLS | Should -BeTrue
        (Get-Send).TlsAuthLevel | Should -BeExactly 'EncryptionOnly'
        (Get-Send).Port | Should -BeExactly 2526
        $new = @((Get-State).ReceiveConnectors | Where-Object { $_.Name -eq 'From gateway' })[0]
        $new.AuthMechanism | Should -BeExactly 'Tls'
        $new.RemoteIPRanges | Should -BeExactly @('192.0.2.1')
    }

    It 'reads what is there after the last call, and not after one that failed' {
        $result = Invoke-Module @{ operation = 'apply'; calls = New-Calls }
        @($result.observed.ReceiveConnectors | Where-Object { $_.Name -eq 'From gateway' }) | Should -HaveCount 1
        $result.observed.SendConnectors[0].TlsAuthLevel | Should -BeExactly 'EncryptionOnly'
        $call = @{ Cmdlet = 'Remove-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Not there' } }
        (Invoke-Module @{ operation = 'apply'; calls = @($call) }).Contains('observed') | Should -BeFalse
    }

    It 'sets null' {
        $null = Invoke-Module @{ operation = 'apply'; calls = New-Calls }
        $null = Invoke-Module @{ operation = 'apply'; calls = @(@{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; TlsAuthLevel = $null } }) }
        (Get-Send).Contains('TlsAuthLevel') | Should -BeTrue
        $null -eq (Get-Send).TlsAuthLevel | Should -BeTrue
    }

    It 'sets an empty list' {
        Edit-State { param($state) $state.ReceiveConnectors[0]['TlsDomainCapabilities'] = @('example.test:AcceptCloudServicesMail') }
        $call = @{ Cmdlet = 'Set-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Default Frontend EX1'; TlsDomainCapabilities = @() } }
        (Invoke-Module @{ operation = 'apply'; calls = @($call) }).done | Should -Be 1
        (Get-State).ReceiveConnectors[0].TlsDomainCapabilities.Count | Should -Be 0
    }

    It 'changes nothing without a call' {
        $result = Invoke-Module @{ operation = 'apply'; calls = @() }
        $result.changed | Should -BeFalse
        $result.done | Should -Be 0
    }

    It 'passes on what a cmdlet warns of' {
        $call = @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; Port = 25 } }
        $result = Invoke-Module @{ operation = 'apply'; calls = @($call) }
        @($result.warnings) | Should -HaveCount 1
        $result.warnings[0] | Should -BeLike "Set-SendConnector To gateway: *no settings of 'To gateway' have been modified*"
    }

    It 'answers the question of Remove- itself' {
        $null = Invoke-Module @{ operation = 'apply'; calls = New-Calls }
        $call = @{ Cmdlet = 'Remove-ReceiveConnector'; Parameters = @{ Identity = 'EX1\From gateway' } }
        (Invoke-Module @{ operation = 'apply'; calls = @($call) }).done | Should -Be 1
        @((Get-State).ReceiveConnectors | Where-Object { $_.Name -eq 'From gateway' }) | Should -HaveCount 0
    }

    It 'has a queue tried again' {
        $queue = @{ Identity = 'EX1\3'; Status = 'Retry'; MessageCount = 1 }
        [System.IO.File]::WriteAllText("$env:EXCHANGE_STUBS_DIRECTORY/queue.json", (@{ Queues = @($queue) } | ConvertTo-Json -Depth 5))
        (Invoke-Module @{ operation = 'apply'; calls = @(@{ Cmdlet = 'Retry-Queue'; Parameters = @{ Identity = 'EX1\3' } }) }).done | Should -Be 1
        (Get-State).RetryQueue | Should -Not -BeNullOrEmpty
        @(Get-Calls)[0].Parameters.Contains('Server') | Should -BeFalse
        $null = Invoke-Module @{ operation = 'apply'; calls = @(@{ Cmdlet = 'Retry-Queue'; Parameters = @{ Filter = "Status -eq 'Retry'" } }) }
        @(Get-Calls)[1].Parameters.Server | Should -BeExactly 'EX1'
    }
}

Describe 'apply, certificates' {
    BeforeEach { $null = New-Organisation }
    AfterEach { Remove-Organisation }

    BeforeAll {
        $password = 'secret-of-the-test'
        $import = @{ Cmdlet = 'Import-ExchangeCertificate'; Parameters = @{ FileData = @{ Secret = 'FileData' }; Password = @{ Secret = 'Password' }; FriendlyName = 'x'; PrivateKeyExportable = $false } }
    }

    It 'imports a certificate, and shows nothing of it' {
        $pfx = New-Pfx
        $result = Invoke-Module @{ operation = 'apply'; calls = @($import); secrets = @{ FileData = $pfx; Password = $password } }
        $result.done | Should -Be 1
        (Get-State).Certificates.Thumbprint | Should -Contain $keys.Public.Thumbprint
        @(Get-Calls)[0].Parameters.Server | Should -BeExactly 'EX1'
        $global:moduleOutput[0] | Should -Not -BeLike "*$password*"
        $global:moduleOutput[0] | Should -Not -BeLike "*$($pfx.Substring(0, 60))*"
        $result.invocation.module_args.secrets.FileData | Should -BeExactly 'VALUE_SPECIFIED_IN_NO_LOG_PARAMETER'
    }

    It 'shows no secret when the import fails' {
        $result = Invoke-Module @{ operation = 'apply'; calls = @($import); secrets = @{ FileData = New-Pfx; Password = 'another-password' } }
        $result.failed | Should -BeTrue
        $result.failure.cmdlet | Should -BeExactly 'Import-ExchangeCertificate'
        $global:moduleOutput[0] | Should -Not -BeLike '*another-password*'
    }

    It 'lets no cmdlet quote a secret' {
        Mock Import-ExchangeCertificate { throw "cannot use $([System.Net.NetworkCredential]::new('', $Password).Password)" }
        $result = Invoke-Module @{ operation = 'apply'; calls = @($import); secrets = @{ FileData = New-Pfx; Password = $password } }
        $result.failed | Should -BeTrue
        $result.failure.message | Should -BeExactly 'cannot use ********'
        $global:moduleOutput[0] | Should -Not -BeLike "*$password*"
    }

    It 'imports, enables, puts the default back, and removes' {
        $thumbprint = $keys.Public.Thumbprint
        $calls = @(
            $import
            @{ Cmdlet = 'Enable-ExchangeCertificate'; Parameters = @{ Thumbprint = $thumbprint; Services = @('SMTP'); Force = $true } }
            @{ Cmdlet = 'Enable-ExchangeCertificate'; Parameters = @{ Thumbprint = $keys.Own.Thumbprint; Services = @('SMTP'); Force = $true } }
        )
        $result = Invoke-Module @{ operation = 'apply'; calls = $calls; secrets = @{ FileData = New-Pfx; Password = $password } }
        $result.done | Should -Be 3
        @(Get-Calls)[1].Parameters.Server | Should -BeExactly 'EX1'
        $state = Get-State
        $state.TransportService.InternalTransportCertificateThumbprint | Should -BeExactly $keys.Own.Thumbprint
        @($state.Certificates | Where-Object { $_.Thumbprint -eq $thumbprint })[0].Services | Should -BeExactly 'SMTP'
        $remove = @{ Cmdlet = 'Remove-ExchangeCertificate'; Parameters = @{ Thumbprint = $thumbprint } }
        (Invoke-Module @{ operation = 'apply'; calls = @($remove) }).done | Should -Be 1
        @(Get-Calls)[3].Parameters.Server | Should -BeExactly 'EX1'
        (Get-State).Certificates.Thumbprint | Should -Not -Contain $thumbprint
    }

    It 'leaves a server that was given' {
        $call = @{ Cmdlet = 'Remove-ExchangeCertificate'; Parameters = @{ Thumbprint = 'A0'; Server = 'ex1.example.test' } }
        $null = Invoke-Module @{ operation = 'apply'; calls = @($call) }
        @(Get-Calls)[0].Parameters.Server | Should -BeExactly 'ex1.example.test'
    }
}

Describe 'apply, when a call fails' {
    BeforeEach { $null = New-Organisation }
    AfterEach { Remove-Organisation }

    It 'takes back what was done, the last first' {
        $calls = @(New-Calls) + @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; TlsDomain = 'gw.example.test' }
            Undo = @(@{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; TlsDomain = $null } }) } +
            @{ Cmdlet = 'Remove-SendConnector'; Parameters = @{ Identity = 'To gateway' } }
        $result = Invoke-Module @{ operation = 'apply'; calls = $calls }
        $result.failed | Should -BeTrue
        $result.changed | Should -BeFalse
        $result.done | Should -Be 2
        $result.failure.index | Should -Be 2
        $result.failure.cmdlet | Should -BeExactly 'Set-SendConnector'
        $result.failure.target | Should -BeExactly 'To gateway'
        $result.failure.message | Should -BeLike 'The TLSDomain parameter can only be set*'
        $result.failure.error_id | Should -BeLike '*,Microsoft.Exchange.Management.SystemConfigurationTasks.SetSendConnector*'
        $result.msg | Should -BeLike 'call 3, Set-SendConnector To gateway, failed: The TLSDomain parameter*taken back.'
        $calls = @(Get-Calls)
        $calls.Cmdlet | Should -Be @('New-ReceiveConnector', 'Set-SendConnector', 'Set-SendConnector', 'Set-SendConnector', 'Set-SendConnector', 'Remove-ReceiveConnector')
        $calls[3].Parameters.Contains('RequireTLS') | Should -BeTrue
        $calls[4].Parameters.Contains('Port') | Should -BeTrue
        $result.undo.cmdlet | Should -Be @('Set-SendConnector', 'Set-SendConnector', 'Remove-ReceiveConnector')
        $result.undo[2].target | Should -BeExactly 'EX1\From gateway'
        @($result.undo | Where-Object { $null -ne $_.message }) | Should -HaveCount 0
        (Get-Send).RequireTLS | Should -BeFalse
        (Get-Send).Port | Should -Be 25
        @((Get-State).ReceiveConnectors) | Should -HaveCount 3
    }

    It 'goes on taking back when that fails too, and says what is left' {
        Edit-State { param($state) $state['Faults'] = @(@{ Cmdlet = 'Remove-SendConnector'; Message = 'no' }, @{ Cmdlet = 'Set-ReceiveConnector'; Message = 'Access is denied.' }) }
        $calls = @(
            (New-Calls)[0]
            @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; Port = 26 }; Undo = @(@{ Cmdlet = 'Set-ReceiveConnector'; Parameters = @{ Identity = 'EX1\Default EX1'; RequireTLS = $false } }) }
            @{ Cmdlet = 'Remove-SendConnector'; Parameters = @{ Identity = 'To gateway' } }
        )
        $result = Invoke-Module @{ operation = 'apply'; calls = $calls }
        $result.failed | Should -BeTrue
        $result.changed | Should -BeTrue
        $result.undo.Count | Should -Be 2
        $result.undo[0].message | Should -BeLike '*Access is denied.*'
        $null -eq $result.undo[1].message | Should -BeTrue
        $result.msg | Should -BeLike '*by hand: Set-ReceiveConnector EX1\Default EX1: *Access is denied.*'
        $result.msg | Should -Not -BeLike '*taken back.*'
        @((Get-State).ReceiveConnectors) | Should -HaveCount 3
    }

    It 'takes nothing back when the first one fails' {
        Edit-State { param($state) $state['Faults'] = @(@{ Cmdlet = 'New-ReceiveConnector'; Message = 'no' }) }
        $result = Invoke-Module @{ operation = 'apply'; calls = New-Calls }
        $result.failed | Should -BeTrue
        $result.changed | Should -BeFalse
        $result.msg | Should -BeLike '*no Nothing was done before it.'
        $result.done | Should -Be 0
        $result.undo.Count | Should -Be 0
        @(Get-Calls) | Should -HaveCount 1
    }
}

Describe 'check mode' {
    BeforeEach { $null = New-Organisation }
    AfterEach { Remove-Organisation }

    It 'runs nothing, and says that it would' {
        $before = [System.IO.File]::ReadAllText("$env:EXCHANGE_STUBS_DIRECTORY/state.json")
        $result = Invoke-Module -CheckMode @{ operation = 'apply'; calls = New-Calls }
        $result.changed | Should -BeTrue
        $result.Contains('done') | Should -BeFalse
        Get-Calls | Should -BeNullOrEmpty
        [System.IO.File]::ReadAllText("$env:EXCHANGE_STUBS_DIRECTORY/state.json") | Should -BeExactly $before
        (Invoke-Module -CheckMode @{ operation = 'restore'; calls = New-Calls }).changed | Should -BeTrue
        Get-Calls | Should -BeNullOrEmpty
        (Invoke-Module -CheckMode @{ operation = 'apply'; calls = @() }).changed | Should -BeFalse
    }

    It 'reads' {
        (Invoke-Module -CheckMode @{ operation = 'read' }).observed.Server.Name | Should -BeExactly 'EX1'
    }

    It 'refuses what apply would refuse' {
        (Invoke-Module -CheckMode @{ operation = 'apply'; calls = @(@{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = '' } }) }).failed | Should -BeTrue
        (Invoke-Module -CheckMode @{ operation = 'apply'; calls = @(@{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'x'; RequireSSL = $true } }) }).failed | Should -BeTrue
    }
}

Describe 'restore' {
    BeforeEach { $null = New-Organisation }
    AfterEach { Remove-Organisation }

    It 'runs all calls, in their order' {
        $result = Invoke-Module @{ operation = 'restore'; calls = New-Calls }
        $result.Contains('failed') | Should -BeFalse
        $result.changed | Should -BeTrue
        $result.undo.cmdlet | Should -Be @('New-ReceiveConnector', 'Set-SendConnector')
        (Get-Calls).Cmdlet | Should -Be @('New-ReceiveConnector', 'Set-SendConnector')
        $result.Contains('done') | Should -BeFalse
    }

    It 'goes on after one that fails, takes nothing back, and fails in the end' {
        Edit-State { param($state) $state['Faults'] = @(@{ Cmdlet = 'New-ReceiveConnector'; Message = 'no' }) }
        $result = Invoke-Module @{ operation = 'restore'; calls = New-Calls }
        $result.failed | Should -BeTrue
        $result.changed | Should -BeTrue
        $result.msg | Should -BeLike 'Not everything could be restored*New-ReceiveConnector From gateway: no*'
        (Get-Calls).Cmdlet | Should -Be @('New-ReceiveConnector', 'Set-SendConnector')
        (Get-Send).RequireTLS | Should -BeTrue
        $result.Contains('failure') | Should -BeFalse
    }
}

Describe 'a call that is refused' {
    BeforeEach { $null = New-Organisation }
    AfterEach { Remove-Organisation }

    It 'is one with <Why>' -ForEach @(
        @{ Why = 'another cmdlet'; Call = @{ Cmdlet = 'Remove-Mailbox'; Parameters = @{ Identity = 'x' } }; Text = '*not one of Enable-ExchangeCertificate, *' }
        @{ Why = 'a cmdlet that reads'; Call = @{ Cmdlet = 'Get-SendConnector'; Parameters = @{ Identity = 'x' } }; Text = '*not one of*' }
        @{ Why = 'no cmdlet'; Call = @{ Parameters = @{ Identity = 'x' } }; Text = '*not one of*' }
        @{ Why = 'no parameters'; Call = @{ Cmdlet = 'Set-SendConnector' }; Text = '*no dictionary*' }
        @{ Why = 'no identity'; Call = @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Port = 25 } }; Text = '*needs Identity*' }
        @{ Why = 'an empty identity'; Call = @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = '' } }; Text = '*Identity is empty*' }
        @{ Why = 'a blank identity'; Call = @{ Cmdlet = 'Remove-SendConnector'; Parameters = @{ Identity = '  ' } }; Text = '*Identity is empty*' }
        @{ Why = 'a null identity'; Call = @{ Cmdlet = 'Remove-ReceiveConnector'; Parameters = @{ Identity = $null } }; Text = '*Identity is empty*' }
        @{ Why = 'an empty thumbprint'; Call = @{ Cmdlet = 'Remove-ExchangeCertificate'; Parameters = @{ Thumbprint = '' } }; Text = '*Thumbprint is empty*' }
        @{ Why = 'an identity for a thumbprint'; Call = @{ Cmdlet = 'Enable-ExchangeCertificate'; Parameters = @{ Identity = 'x'; Services = @('SMTP') } }; Text = '*needs Thumbprint*' }
        @{ Why = 'an empty new name'; Call = @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'x'; Name = '' } }; Text = '*Name is empty*' }
        @{ Why = 'an empty filter'; Call = @{ Cmdlet = 'Retry-Queue'; Parameters = @{ Filter = '' } }; Text = '*Filter is empty*' }
        @{ Why = 'no queue'; Call = @{ Cmdlet = 'Retry-Queue'; Parameters = @{ Resubmit = $true } }; Text = '*needs Identity or Filter*' }
        @{ Why = '-WhatIf'; Call = @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'x'; WhatIf = $true } }; Text = '*WhatIf cannot be given*' }
        @{ Why = '-ErrorAction'; Call = @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'x'; ErrorAction = 'Ignore' } }; Text = '*ErrorAction cannot be given*' }
        @{ Why = '-Confirm'; Call = @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'x'; Confirm = $true } }; Text = '*Confirm cannot be given*' }
        @{ Why = 'a secret elsewhere'; Call = @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'x'; Comment = @{ Secret = 'Password' } } }; Text = '*Comment cannot be a secret*' }
        @{ Why = 'a password in the open'; Call = @{ Cmdlet = 'Import-ExchangeCertificate'; Parameters = @{ FileData = @{ Secret = 'FileData' }; Password = 'x' } }; Text = '*Password has to be a secret*' }
        @{ Why = 'a certificate in the open'; Call = @{ Cmdlet = 'Import-ExchangeCertificate'; Parameters = @{ FileData = 'x' } }; Text = '*FileData has to be a secret*' }
        @{ Why = 'a secret that is not there'; Call = @{ Cmdlet = 'Import-ExchangeCertificate'; Parameters = @{ FileData = @{ Secret = 'Other' } } }; Text = '*secrets has no Other, which FileData needs*' }
        @{ Why = 'a list of numbers'; Call = @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'x'; SmartHosts = @(1, 2) } }; Text = '*SmartHosts is a list of something else*' }
        @{ Why = 'a fraction'; Call = @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'x'; Port = 2.5 } }; Text = '*Port is neither*' }
    ) {
        $result = Invoke-Module @{ operation = 'apply'; calls = @((New-Calls)[0], $Call); secrets = @{ FileData = 'eA=='; Password = 'p-p-p-p' } }
        $result.failed | Should -BeTrue
        $result.msg | Should -BeLike $Text
        $result.msg | Should -BeLike 'call 2 (*Nothing was run.'
        Get-Calls | Should -BeNullOrEmpty
    }

    It 'is not <Cmdlet> with <Name>, and is without' -ForEach @(
        @{ Cmdlet = 'Set-ReceiveConnector'; Name = 'Identity' }, @{ Cmdlet = 'New-ReceiveConnector'; Name = 'Name' }
        @{ Cmdlet = 'Remove-ReceiveConnector'; Name = 'Identity' }, @{ Cmdlet = 'Set-SendConnector'; Name = 'Identity' }
        @{ Cmdlet = 'New-SendConnector'; Name = 'Name' }, @{ Cmdlet = 'Remove-SendConnector'; Name = 'Identity' }
        @{ Cmdlet = 'Import-ExchangeCertificate'; Name = 'FileData' }, @{ Cmdlet = 'Enable-ExchangeCertificate'; Name = 'Thumbprint' }
        @{ Cmdlet = 'Remove-ExchangeCertificate'; Name = 'Thumbprint' }, @{ Cmdlet = 'Retry-Queue'; Name = 'Identity' }
    ) {
        $value = if ($Name -eq 'FileData') { @{ Secret = 'FileData' } } else { 'x' }
        $options = @{ operation = 'apply'; secrets = @{ FileData = 'eA==' }; calls = @(@{ Cmdlet = $Cmdlet; Parameters = @{ $Name = $value } }) }
        (Invoke-Module -CheckMode $options).Contains('failed') | Should -BeFalse
        $options.calls = @(@{ Cmdlet = $Cmdlet; Parameters = @{ } })
        (Invoke-Module -CheckMode $options).msg | Should -BeLike "*($Cmdlet): it needs $Name*"
    }

    It 'has a parameter that the module gives itself' {
        foreach ($name in 'Confirm', 'WhatIf', 'ErrorAction', 'ErrorVariable', 'WarningAction', 'WarningVariable', 'OutVariable', 'OutBuffer',
            'PipelineVariable', 'InformationAction', 'InformationVariable', 'Verbose', 'Debug') {
            $call = @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'To gateway'; $name = 'x' } }
            (Invoke-Module @{ operation = 'apply'; calls = @($call) }).msg | Should -BeLike "*the parameter $name cannot be given*"
        }
    }

    It 'is refused in an Undo, too' {
        $call = (New-Calls)[0]
        $call.Undo = @(@{ Cmdlet = 'Remove-ReceiveConnector'; Parameters = @{ Identity = '' } })
        $result = Invoke-Module @{ operation = 'apply'; calls = @($call) }
        $result.failed | Should -BeTrue
        $result.msg | Should -BeLike 'Undo of call 1 (Remove-ReceiveConnector): Identity is empty*'
        Get-Calls | Should -BeNullOrEmpty
    }

    It 'is one whose secret was not given' {
        $call = @{ Cmdlet = 'Import-ExchangeCertificate'; Parameters = @{ FileData = @{ Secret = 'FileData' } } }
        (Invoke-Module @{ operation = 'apply'; calls = @($call) }).msg | Should -BeLike '*secrets has no FileData*'
        (Invoke-Module @{ operation = 'apply'; calls = @($call); secrets = @{ Password = 'p-p-p-p' } }).msg | Should -BeLike '*secrets has no FileData*'
    }

    It 'is one with a parameter that the session lacks' {
        $result = Invoke-Module @{ operation = 'apply'; calls = @((New-Calls)[0], @{ Cmdlet = 'Set-SendConnector'; Parameters = @{ Identity = 'x'; RequireSSL = $true } }) }
        $result.failed | Should -BeTrue
        $result.msg | Should -BeLike 'call 2 (Set-SendConnector): here the cmdlet has no parameter RequireSSL*Nothing was run.'
        Get-Calls | Should -BeNullOrEmpty
    }

    It 'is one with a cmdlet that the session lacks' {
        Mock Get-Command { } -ParameterFilter { $Name -eq 'Set-SendConnector' }
        Mock Get-Command { [pscustomobject]@{ Parameters = @{ Name = 1; TransportRole = 1; Custom = 1; Bindings = 1; RemoteIPRanges = 1; AuthMechanism = 1; PermissionGroups = 1; Identity = 1 } } }
        $result = Invoke-Module @{ operation = 'apply'; calls = New-Calls }
        $result.failed | Should -BeTrue
        $result.msg | Should -BeLike 'call 2 (Set-SendConnector): this session does not have the cmdlet*'
        Get-Calls | Should -BeNullOrEmpty
    }

    It 'has to be there at all' {
        (Invoke-Module @{ operation = 'apply' }).msg | Should -BeLike '*calls*'
        (Invoke-Module @{ operation = 'restore' }).msg | Should -BeLike '*calls*'
        (Invoke-Module @{ operation = 'erase' }).failed | Should -BeTrue
        (Invoke-Module @{ }).failed | Should -BeTrue
    }
}
