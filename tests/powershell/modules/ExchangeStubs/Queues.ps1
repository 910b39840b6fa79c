# Queues: the stand-in writes what waits, and looks at RetryQueue.

function Get-Waiting {
    $file = Get-StateFile 'queue.json'
    if (-not [System.IO.File]::Exists($file)) { return }
    @(([System.IO.File]::ReadAllText($file) | ConvertFrom-Json -AsHashtable).Queues)
}

function Invoke-StubGetQueue {
    param($State, $Given)
    if ($Given['Filter']) { Stop-Stub 'The stubs know no filter.' }
    if ($Given['Server'] -and -not (Test-OurServer $State $Given.Server)) { return }
    foreach ($one in Get-Waiting) {
        if ($Given['Identity'] -and $one.Identity -ne $Given.Identity) { continue }
        $values = $one.Clone()
        $values.Remove('Messages')
        New-Remote 'Get-Queue' $values
    }
}

function Invoke-StubRetryQueue {
    param($State, $Given)
    if ($Given['Identity'] -and -not @(Get-Waiting | Where-Object { $_.Identity -eq $Given.Identity })) {
        Stop-Stub "The queue ""$($Given.Identity)"" doesn't exist."
    }
    if ($Given['Server'] -and -not (Test-OurServer $State $Given.Server)) { Stop-Stub 'The stubs have the queues of our server alone.' }
    $State['RetryQueue'] = [datetime]::UtcNow.Ticks
    Save-State $State
}
