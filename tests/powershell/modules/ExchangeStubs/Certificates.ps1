# Certificates of our server, in files that the stand-in serves.

$aes = [byte[]](0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2A)  # the identifier of AES-256 in a PFX

function Get-Stored {
    param($State, $Given)
    if ($Given['Server'] -and -not (Test-OurServer $State $Given.Server)) { return }
    Get-List $State 'Certificates'
}

function Find-Stored {
    param($State, $Given)
    $found = @(Get-Stored $State $Given | Where-Object { $_.Thumbprint -eq $Given.Thumbprint })
    if (-not $found) { Stop-Stub "The certificate with thumbprint $($Given.Thumbprint) was not found." }
    $found[0]
}

function ConvertTo-Certificate {
    param($State, $One)
    $values = @{
        Thumbprint = $One.Thumbprint; Subject = $One.Subject; Issuer = $One.Issuer; CertificateDomains = @($One.CertificateDomains)
        Services = $One.Services; Status = if ($One['Status']) { $One.Status } else { 'Valid' }; HasPrivateKey = $true
        IsSelfSigned = $One.Subject -eq $One.Issuer; RootCAType = if ($One.Subject -eq $One.Issuer) { 'None' } else { 'Registry' }
        NotBefore = $null; NotAfter = $null; RawData = $null
    }
    $file = "$(Get-Root)$($One.File)"
    if ([System.IO.File]::Exists($file)) {
        $loaded = [System.Security.Cryptography.X509Certificates.X509Certificate2]::CreateFromPem([System.IO.File]::ReadAllText($file))
        $values.NotBefore = $loaded.NotBefore; $values.NotAfter = $loaded.NotAfter; $values.RawData = $loaded.RawData
    }
    $lost = switch ($(if ($State.Contains('Session')) { $State.Session['Certificates'] })) {
        'plain' { 'Services', 'Status', 'RootCAType', 'HasPrivateKey', 'IsSelfSigned' }
        'broken' { $values.Keys | Where-Object { $_ -ne 'RawData' } }
    }
    foreach ($name in @($lost)) { $values.Remove("$name") }
    New-Remote 'Get-ExchangeCertificate' $values
}

function Invoke-StubGetExchangeCertificate {
    param($State, $Given)
    foreach ($one in @(Get-Stored $State $Given)) {
        if ($Given['Thumbprint'] -and $one.Thumbprint -ne $Given.Thumbprint) { continue }
        if ($Given['DomainName'] -and -not @($one.CertificateDomains | Where-Object { $_ -in $Given.DomainName })) { continue }
        ConvertTo-Certificate $State $one
    }
}

function Test-Contains {
    param([byte[]]$Data, [byte[]]$Part)
    [System.Convert]::ToHexString($Data).Contains([System.Convert]::ToHexString($Part))
}

function Read-Pfx {
    param($State, $Given)
    $password = if ($Given['Password']) { [System.Net.NetworkCredential]::new('', $Given.Password).Password } else { '' }
    $old = $State.Contains('Windows') -and [version]$State.Windows.Version -lt [version]'10.0.17763'
    try {
        # Windows Server 2016 does not know AES here, and says this.
        if ($old -and (Test-Contains $Given.FileData $aes)) { throw 'AES' }
        $store = [System.Security.Cryptography.X509Certificates.X509CertificateLoader]::LoadPkcs12Collection($Given.FileData, $password, 'Exportable,EphemeralKeySet')
    }
    catch { Stop-Stub 'A special Rpc error occurs on server: Cannot import certificate. The specified network password is not correct.' }
    $store
}

function Invoke-StubImportExchangeCertificate {
    param($State, $Given)
    if ($Given['Server'] -and -not (Test-OurServer $State $Given.Server)) { Stop-Stub 'The stubs import on our server alone.' }
    $store = Read-Pfx $State $Given
    $leaf = @($store | Where-Object { $_.HasPrivateKey })
    if ($leaf.Count -ne 1) { Stop-Stub 'The certificate does not have exactly one private key.' }
    $leaf = $leaf[0]
    $former = @(Get-List $State 'Certificates')
    # Nobody says what a second import gives.
    if (@($former | Where-Object { $_.Thumbprint -eq $leaf.Thumbprint })) { Stop-Stub "The certificate with thumbprint $($leaf.Thumbprint) already exists." }
    $algorithm = [System.Security.Cryptography.X509Certificates.RSACertificateExtensions]::GetRSAPrivateKey($leaf)
    if (-not $algorithm) { $algorithm = [System.Security.Cryptography.X509Certificates.ECDsaCertificateExtensions]::GetECDsaPrivateKey($leaf) }
    $pem = @($algorithm.ExportPkcs8PrivateKeyPem(), $leaf.ExportCertificatePem())
    $pem += @($store | Where-Object { -not $_.HasPrivateKey } | ForEach-Object { $_.ExportCertificatePem() })
    $file = "$env:EXCHANGE_STUBS_DIRECTORY/certificates/$($leaf.Thumbprint).pem"
    [System.IO.File]::WriteAllText("$(Get-Root)$file", ($pem -join "`n") + "`n")
    [System.IO.File]::SetUnixFileMode("$(Get-Root)$file", 'UserRead, UserWrite')
    $names = $leaf.Extensions['2.5.29.17']
    $domains = @(if ($names) { $names.EnumerateDnsNames() } else { $leaf.GetNameInfo('DnsName', $false) })
    $one = [ordered]@{
        File = $file; Thumbprint = $leaf.Thumbprint; Subject = $leaf.Subject; Issuer = $leaf.Issuer; CertificateDomains = $domains
        Services = 'None'; Status = if ($leaf.NotAfter -lt [datetime]::Now) { 'DateInvalid' } else { 'Valid' }
        NotAfter = $leaf.NotAfter.ToUniversalTime().ToString('o')
    }
    $State.Certificates = $former + $one
    Save-State $State
    ConvertTo-Certificate $State $one
}

function Invoke-StubEnableExchangeCertificate {
    param($State, $Given)
    $one = Find-Stored $State $Given
    $wanted = @(Get-Words $Given.Services)
    if (@($one.CertificateDomains | Where-Object { $_.StartsWith('*') }) -and @($wanted | Where-Object { $_ -in 'IMAP', 'POP' })) {
        Stop-Stub 'A certificate with a wildcard cannot be enabled for IMAP or POP.'
    }
    $services = @($wanted + @(Get-Words $one.Services) | Where-Object { $_ -ne 'None' } | Select-Object -Unique)
    if ('SMTP' -in $wanted -and $one.Thumbprint -ne (Get-DefaultThumbprint $State)) {
        # It asks whether to replace the default certificate, and nobody is there to answer. -Force is a yes.
        if (-not $Given['Force']) {
            Stop-Stub 'A command that prompts the user failed because the host program or the command type does not support user interaction.'
        }
        if (-not $State.Contains('TransportService')) { $State['TransportService'] = @{} }
        $State.TransportService['InternalTransportCertificateThumbprint'] = $one.Thumbprint
    }
    $one.Services = @($cmdlets['Enable-ExchangeCertificate'].parameters.Services.accepted_values | Where-Object { $_ -in $services }) -join ', '
    Save-State $State
}

function Invoke-StubRemoveExchangeCertificate {
    param($State, $Given)
    $one = Find-Stored $State $Given
    $name = Get-ServerName $State
    if ($one.Thumbprint -eq (Get-DefaultThumbprint $State)) {
        Stop-Stub "A special Rpc error occurs on server ${name}: The internal transport certificate cannot be removed because that would cause the Microsoft Exchange Transport service to stop."
    }
    $pair = "<I>$($one.Issuer)<S>$($one.Subject)"
    $tagged = @(Get-Send $State | Where-Object { $_.TlsCertificateName -eq $pair })
    if ($tagged) {
        Stop-Stub "A special Rpc error occurs on server ${name}: These certificates are tagged with following Send Connectors : $($tagged.Name -join ', ')."
    }
    $State.Certificates = @($State.Certificates | Where-Object { $_ -ne $one })
    Save-State $State
    [System.IO.File]::Delete("$(Get-Root)$($one.File)")
}
