# Changes the module in one place at a time, from its syntax tree, and lets the Pester tests find it.
#   mutants.ps1 -List    a line for each mutant, as JSON: number, line, what
#   mutants.ps1          tries those whose numbers it reads; a line for each, as JSON: number, killed (the first test that failed, or null)
param([switch]$List)
$ErrorActionPreference = 'Stop'
$source = [System.IO.File]::ReadAllText("$PSScriptRoot/../../plugins/modules/exchange_cmdlets.ps1")
$tree = [System.Management.Automation.Language.Parser]::ParseInput($source, [ref]$null, [ref]$null)
$opposite = @{ Ieq = '-ne'; Ine = '-eq'; Iin = '-notin'; Inotin = '-in'; Igt = '-ge'; Ilt = '-le'; Is = '-isnot'; IsNot = '-is'; And = '-or'; Or = '-and'; Plus = '-'; Minus = '+' }

# The text that replaces a node, and what was done. A node can have several.
function Get-Change {
    param($Node)
    $text = $Node.Extent.Text
    switch ($Node.GetType().Name) {
        'CommandAst' {
            $elements = $Node.CommandElements
            for ($at = 1; $at -lt $elements.Count; $at++) {
                if ($elements[$at].GetType().Name -ne 'CommandParameterAst') { continue }
                $from = $elements[$at].Extent.StartOffset
                $last = $elements[$at]
                if (-not $last.Argument -and $at + 1 -lt $elements.Count -and $elements[$at + 1].GetType().Name -ne 'CommandParameterAst') { $last = $elements[$at + 1] }
                $start = $Node.Extent.StartOffset
                @{ Text = $text.Remove($from - $start, $last.Extent.EndOffset - $from); What = "without $($elements[$at].Extent.Text) in: $text" }
            }
        }
        'BinaryExpressionAst' {
            $new = $opposite["$($Node.Operator)"]
            if ($new -and "$($Node.Operator)" -notin 'Plus', 'Minus') { @{ Text = "$($Node.Left.Extent.Text) $new $($Node.Right.Extent.Text)"; What = "$new in: $text" } }
            if ("$($Node.Operator)" -in 'And', 'Or') {
                @{ Text = $Node.Left.Extent.Text; What = "left side only: $text" }
                @{ Text = $Node.Right.Extent.Text; What = "right side only: $text" }
            }
        }
        'UnaryExpressionAst' { if ("$($Node.TokenKind)" -eq 'Not') { @{ Text = $Node.Child.Extent.Text; What = "without -not: $text" } } }
        'IfStatementAst' {
            foreach ($clause in $Node.Clauses) {
                $start = $clause.Item1.Extent.StartOffset - $Node.Extent.StartOffset
                $length = $clause.Item1.Extent.Text.Length
                @{ Text = $text.Remove($start, $length).Insert($start, "-not ($($clause.Item1.Extent.Text))"); What = "the opposite of: $($clause.Item1.Extent.Text)" }
                @{ Text = $text.Remove($start, $length).Insert($start, '$true'); What = "always: $($clause.Item1.Extent.Text)" }
            }
        }
        'VariableExpressionAst' {
            $name = $Node.VariablePath.UserPath
            if ($name -eq 'true') { @{ Text = '$false'; What = '$false for $true' } }
            if ($name -eq 'false') { @{ Text = '$true'; What = '$true for $false' } }
        }
        'ConstantExpressionAst' { if ($Node.Value -is [int]) { @{ Text = "$($Node.Value + 1)"; What = "$($Node.Value + 1) for $text" } } }
        'StringConstantExpressionAst' {
            # What a person reads is not tested by the word.
            if ($Node.Parent.Parent.Parent.GetType().Name -ne 'ThrowStatementAst' -and "$($Node.StringConstantType)" -eq 'SingleQuoted' -and $text -notmatch ' ' -and $text.Length -gt 2) { @{ Text = "'Mutant'"; What = "another text for $text" } }
        }
        'HashtableAst' {
            foreach ($pair in $Node.KeyValuePairs) {
                if ("$($pair.Item1)$($pair.Item2)" -eq "type'str'") { continue }  # what Ansible takes without it
                $start = $pair.Item1.Extent.StartOffset - $Node.Extent.StartOffset
                $end = $pair.Item2.Extent.EndOffset - $Node.Extent.StartOffset
                $tail = if ($text.Substring($end).StartsWith(';')) { 1 } else { 0 }
                @{ Text = $text.Remove($start, $end - $start + $tail); What = "without $($pair.Item1.Extent.Text) = $($pair.Item2.Extent.Text)" }
            }
        }
        { $_ -in 'StatementBlockAst', 'NamedBlockAst' } {
            $before = $null
            foreach ($statement in $Node.Statements) {
                if ($statement.GetType().Name -eq 'FunctionDefinitionAst') { $before = $null; continue }
                $start = $statement.Extent.StartOffset - $Node.Extent.StartOffset
                $short = $statement.Extent.Text.Split("`n")[0]
                @{ Text = $text.Remove($start, $statement.Extent.Text.Length).Insert($start, '$null = $null'); What = "without: $short" }
                # The order of what is done, not of what is remembered.
                if ($before -and $before.GetType().Name -eq 'PipelineAst' -and $statement.GetType().Name -eq 'PipelineAst') {
                    $first = $before.Extent.StartOffset - $Node.Extent.StartOffset
                    $between = $text.Substring($first + $before.Extent.Text.Length, $start - $first - $before.Extent.Text.Length)
                    $swapped = $statement.Extent.Text + $between + $before.Extent.Text
                    @{ Text = $text.Remove($first, $swapped.Length).Insert($first, $swapped); What = "the other way round: $($before.Extent.Text.Split("`n")[0]) | $short" }
                }
                $before = $statement
            }
        }
    }
}

$mutants = [System.Collections.Generic.List[object]]::new()
foreach ($node in $tree.FindAll({ $true }, $true)) {
    foreach ($change in @(Get-Change $node)) {
        $where = $node
        while ($where -and $where.GetType().Name -ne 'FunctionDefinitionAst') { $where = $where.Parent }
        $mutated = $source.Remove($node.Extent.StartOffset, $node.Extent.Text.Length).Insert($node.Extent.StartOffset, $change.Text)
        $mutants.Add(@{ number = $mutants.Count; line = $node.Extent.StartLineNumber; what = $change.What; text = $mutated; in = $(if ($where) { $where.Name }) })
    }
}
if ($List) { foreach ($one in $mutants) { @{ number = $one.number; line = $one.line; what = $one.what } | ConvertTo-Json -Compress }; exit 0 }

# The tests of what was changed come first.
function Get-Order {
    param([string]$Function)
    if ($Function -match 'Open|Close|Edge|Loaded|Shell') { 'Reach', 'Read', 'Apply' } elseif ($Function -match 'Fact|Read|Add|Time|Dns|Windows') { 'Read', 'Apply', 'Reach' } else { 'Apply', 'Read', 'Reach' }
}

$file = Join-Path ([System.IO.Path]::GetTempPath()) "exchange_cmdlets_$PID.ps1"
$env:EXCHANGE_MODULE = $file
$configuration = New-PesterConfiguration
$configuration.Run.PassThru = $true
$configuration.Run.SkipRemainingOnFailure = 'Run'
$configuration.Output.Verbosity = 'None'
try {
    while ($null -ne ($number = [System.Console]::In.ReadLine())) {
        $one = $mutants[[int]$number]
        [System.IO.File]::WriteAllText($file, $one.text)
        $configuration.Run.Path = @(Get-Order $one.in | ForEach-Object { "$PSScriptRoot/$_.Tests.ps1" })
        $result = Invoke-Pester -Configuration $configuration *>&1 | Where-Object { $_.PSObject.TypeNames -contains 'Pester.Run' } | Select-Object -Last 1
        $killed = if (-not $result) { 'Pester ended' } elseif ($result.Failed.Count) { $result.Failed[0].ExpandedPath } elseif ($result.Result -ne 'Passed') { 'Pester failed' }
        [System.Console]::Out.WriteLine((@{ number = $one.number; killed = $killed } | ConvertTo-Json -Compress))
        Get-ChildItem ([System.IO.Path]::GetTempPath()) -Filter 'exchange-*' -Directory | Where-Object { $_.FullName -eq $env:EXCHANGE_STUBS_DIRECTORY } | Remove-Item -Recurse -Force
    }
}
finally { Remove-Item -Force -Path $file -ErrorAction SilentlyContinue }
