# Servers and domains.

function Invoke-StubGetExchangeServer {
    param($State, $Given)
    if ($Given['Identity']) { $null = Test-OurServer $State $Given.Identity }
    foreach ($one in Get-Server $State) {
        if ($Given['Identity'] -and $Given.Identity -notin $one.Name, $one.Fqdn) { continue }
        $version = [version]$(if ($State.Server['Version']) { $State.Server.Version } else { '15.2.2562.17' })
        $edge = [bool]$State.Server['IsEdgeServer']
        New-Remote 'Get-ExchangeServer' @{
            Name = $one.Name; Identity = $one.Name; Fqdn = $one.Fqdn; IsEdgeServer = $edge; IsMailboxServer = -not $edge
            AdminDisplayVersion = "Version $($version.Major).$($version.Minor) (Build $($version.Build).$($version.Revision))"
            ServerRole = if ($edge) { 'Edge' } else { 'Mailbox' }
        }
    }
}

# The default certificate: the one that is named, or else the first that a server signed itself.
function Get-DefaultThumbprint {
    param($State)
    if ($State.Contains('TransportService') -and $State.TransportService['InternalTransportCertificateThumbprint']) {
        return $State.TransportService.InternalTransportCertificateThumbprint
    }
    $own = @(Get-List $State 'Certificates' | Where-Object { $_.Subject -eq $_.Issuer })
    if ($own) { $own[0].Thumbprint }
}

function Invoke-StubGetTransportService {
    param($State, $Given)
    foreach ($one in Get-Server $State) {
        if ($Given['Identity'] -and $Given.Identity -notin $one.Name, $one.Fqdn) { continue }
        $ours = $one.Name -eq (Get-ServerName $State)
        New-Remote 'Get-TransportService' @{
            Name = $one.Name; Identity = $one.Name
            InternalTransportCertificateThumbprint = if ($ours) { Get-DefaultThumbprint $State } else { $null }
        }
    }
}

function Invoke-StubGetAcceptedDomain {
    param($State, $Given)
    foreach ($one in Select-Named @(Get-List $State 'AcceptedDomains') $Given) { New-Remote 'Get-AcceptedDomain' $one }
}
