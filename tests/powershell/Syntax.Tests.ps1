BeforeDiscovery {
    $shipped = @(Get-ChildItem -Path "$PSScriptRoot/../../plugins" -Recurse -Include '*.ps1', '*.psm1' | ForEach-Object { $_.FullName })
}

BeforeAll {
    $allowed = Import-PowerShellDataFile "$PSScriptRoot/windows_powershell_5_1.psd1"
    $language = 'System.Management.Automation.Language'

    # What Windows PowerShell 5.1 would not understand, or does not have: a line for each.
    function Find-Newer {
        param([string]$Text)
        $problems = $null
        $tokens = $null
        $tree = [System.Management.Automation.Language.Parser]::ParseInput($Text, [ref]$tokens, [ref]$problems)
        foreach ($problem in $problems) { "line $($problem.Extent.StartLineNumber): $($problem.Message)" }
        $nodes = $tree.FindAll({ $true }, $true)
        $functions = @($nodes | Where-Object { $_.GetType().Name -eq 'FunctionDefinitionAst' } | ForEach-Object { $_.Name })
        $assigned = @($allowed.Variables) + @(foreach ($node in $nodes) {
                switch ($node.GetType().Name) {
                    'AssignmentStatementAst' { $node.Left.FindAll({ $args[0].GetType().Name -eq 'VariableExpressionAst' }, $false).VariablePath.UserPath }
                    'ParameterAst' { $node.Name.VariablePath.UserPath }
                    'ForEachStatementAst' { $node.Variable.VariablePath.UserPath }
                    'CommandAst' {
                        for ($at = 0; $at -lt $node.CommandElements.Count; $at++) {
                            if ($node.CommandElements[$at].Extent.Text -eq '-WarningVariable') { $node.CommandElements[$at + 1].Extent.Text }
                        }
                    }
                }
            })
        foreach ($node in $nodes) {
            $bad = switch ($node.GetType().Name) {
                'TernaryExpressionAst' { 'the ternary operator' }
                'PipelineChainAst' { '&& or ||' }
                'ParamBlockAst' { }
                'TypeDefinitionAst' { 'a class or enum: shipped code has none' }
                'UsingStatementAst' { 'using: shipped code has none' }
                'BinaryExpressionAst' { if ("$($node.Operator)" -eq 'QuestionQuestion') { '??' } }
                'AssignmentStatementAst' { if ("$($node.Operator)" -eq 'QuestionQuestionEquals') { '??=' } }
                'ScriptBlockAst' { if ($node.CleanBlock) { 'clean {}' } }
                'PipelineAst' { if ($node.Background) { 'a job by &' } }
                'IndexExpressionAst' { if ($node.NullConditional) { '?[]' } }
                'MemberExpressionAst' {
                    if ($node.NullConditional) { '?.' }
                    if ($node.Static -and "$($node.Expression.TypeName)::$($node.Member)" -notin $allowed.Statics) { "[$($node.Expression.TypeName)]::$($node.Member)" }
                }
                'InvokeMemberExpressionAst' {
                    if ($node.NullConditional) { '?.' }
                    if ($node.Static) { if ("$($node.Expression.TypeName)::$($node.Member)" -notin $allowed.Statics) { "[$($node.Expression.TypeName)]::$($node.Member)()" } }
                    elseif (@($node.Arguments | Where-Object { $_ }).Count -notin @($allowed.Methods["$($node.Member)"])) { "the method $($node.Member) with these arguments" }
                }
                { $_ -in 'TypeExpressionAst', 'TypeConstraintAst', 'AttributeAst' } { if ("$($node.TypeName)" -notin $allowed.Types) { "the type $($node.TypeName)" } }
                'VariableExpressionAst' {
                    $name = $node.VariablePath.UserPath
                    if (-not $name.StartsWith('env:') -and $name -notin $assigned) { "the variable $name, which nothing sets" }
                }
                'CommandAst' {
                    $name = $node.GetCommandName()
                    $parameters = @($node.CommandElements | Where-Object { $_.GetType().Name -eq 'CommandParameterAst' } | ForEach-Object { $_.ParameterName })
                    if ($name -and $name -notin $functions) {
                        if (-not $allowed.Commands.ContainsKey($name)) { "the command $name" }
                        elseif ($foreign = @($parameters | Where-Object { $_ -notin $allowed.Commands[$name] })) { "$name -$($foreign -join ' -')" }
                    }
                }
            }
            foreach ($one in @($bad)) { if ($one) { "line $($node.Extent.StartLineNumber): $one" } }
        }
    }
}

Describe 'Windows PowerShell 5.1' {
    It 'has all that <_> uses' -ForEach $shipped {
        $text = [System.IO.File]::ReadAllText($_)
        Find-Newer $text | Should -BeNullOrEmpty
        # Without a mark at its beginning, 5.1 reads a file in the language's own encoding.
        [System.Text.RegularExpressions.Regex]::IsMatch($text, '[^\x00-\x7F]') | Should -BeFalse
    }

    It 'is not asked for more than is allowed: each name is used' {
        $text = (Get-ChildItem -Path "$PSScriptRoot/../../plugins" -Recurse -Include '*.ps1', '*.psm1' | ForEach-Object { [System.IO.File]::ReadAllText($_.FullName) }) -join "`n"
        foreach ($name in @($allowed.Commands.Keys) + $allowed.Types + @($allowed.Methods.Keys) + @($allowed.Statics | ForEach-Object { ($_ -split '::')[1] })) {
            $text | Should -Match ([regex]::Escape($name))
        }
    }

    It 'lacks <Code>, and the test sees it' -ForEach @(
        @{ Code = '$a = $args; $a ? 1 : 2'; Text = '*ternary*' }
        @{ Code = '$a = $args; $a ?? 2'; Text = '*: ??' }
        @{ Code = '$a = $args; $a ??= 2'; Text = '*: ??=' }
        @{ Code = '$a = $args; ${a}?.Length'; Text = '*: ?.' }
        @{ Code = '$a = $args; ${a}?[0]'; Text = '*: ?[[]]' }
        @{ Code = 'Test-Path -Path x && Get-PSSession'; Text = '*&& or ||' }
        @{ Code = 'Test-Path -Path x || Get-PSSession'; Text = '*&& or ||' }
        @{ Code = 'Get-PSSession &'; Text = '*a job by &' }
        @{ Code = '1, 2 | ForEach-Object -Parallel { $_ }'; Text = '*ForEach-Object -Parallel' }
        @{ Code = 'Get-Error'; Text = '*command Get-Error' }
        @{ Code = '$PSStyle'; Text = '*variable PSStyle*' }
        @{ Code = '$IsLinux'; Text = '*variable IsLinux*' }
        @{ Code = 'New-PSSession -HostName x'; Text = '*New-PSSession -HostName' }
        @{ Code = 'ConvertFrom-Json -AsHashtable -InputObject x'; Text = '*ConvertFrom-Json*' }
        @{ Code = 'function f { param($a) process { $a } clean { $null } }'; Text = '*clean {}' }
        @{ Code = '[System.Convert]::ToHexString($args)'; Text = '*ToHexString()' }
        @{ Code = '[System.IO.Path]::DirectorySeparatorChar'; Text = '*DirectorySeparatorChar' }
        @{ Code = '"a".Trim("b")'; Text = '*method Trim*' }
        @{ Code = '"abc".EndsWith("a")'; Text = '*method EndsWith*' }
        @{ Code = '[semver]"1.0"'; Text = '*type semver' }
        @{ Code = 'param([semver]$a)'; Text = '*type semver' }
        @{ Code = 'class A { }'; Text = '*class*' }
        @{ Code = 'using namespace System.IO'; Text = '*using*' }
        @{ Code = '$a = 1; $b'; Text = '*variable b*' }
        @{ Code = 'if ($args {'; Text = 'line 1: *' }
    ) { @(Find-Newer $Code | Where-Object { $_ -like $Text }) | Should -Not -BeNullOrEmpty }
}

Describe 'what Ansible needs of a .ps1' {
    It 'is in <_>' -ForEach $shipped {
        $lines = [System.IO.File]::ReadAllLines($_)
        $lines[0] | Should -BeExactly '#!powershell'
        $lines | Should -Contain '#AnsibleRequires -CSharpUtil Ansible.Basic'
        [System.IO.File]::ReadAllText($_) | Should -Not -Match "`r"
    }
}
