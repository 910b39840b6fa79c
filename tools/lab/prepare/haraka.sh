#!/bin/sh
# The starting state of a Haraka gateway of the lab: it takes mail for the fleet's domains, offers STARTTLS with a
# certificate of its own and hands the mail on in plaintext or over TLS as the mail servers offer it.
# Environment: LAB_FQDN, LAB_ROUTES (a line for each domain of the fleet: the domain, then its mail server), LAB_CA (the lab's authority, PEM).
set -eu

systemctl stop haraka
find /etc/haraka -mindepth 1 -delete
tar -C /etc -xf /var/lib/mailfleet-lab/pristine.tar
rm -rf /etc/mailfleet /var/lib/mailfleet-starttls
printf '%s\n' "$LAB_CA" >/usr/local/share/ca-certificates/lab.crt
update-ca-certificates >/dev/null 2>&1

cd /etc/haraka/config
echo "$LAB_FQDN" >me
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=$LAB_FQDN" -keyout tls_key.pem -out tls_cert.pem 2>/dev/null
# Otherwise Haraka makes parameters of its own, which takes it up to half a minute.
openssl genpkey -genparam -algorithm DH -pkeyopt group:ffdhe2048 -out dhparams.pem 2>/dev/null
printf '%s\n' tls relay >plugins
printf '%s\n' 'listen=0.0.0.0:25' 'nodes=2' >smtp.ini
printf '%s\n' '[relay]' 'acl=false' 'force_routing=true' 'dest_domains=true' >relay.ini
{
    echo '[domains]'
    printf '%s\n' "$LAB_ROUTES" | awk '{printf "%s={\"action\":\"accept\",\"nexthop\":\"%s\"}\n", $1, $2}'
} >relay_dest_domains.ini
echo 'temp_fail_intervals=10s*30,1m*60' >outbound.ini
cat >tls.ini <<'INI'
; Written by hand, as on many a gateway.
key=tls_key.pem
cert=tls_cert.pem

[outbound]
; an old appliance
no_tls_hosts[]=192.0.2.25
INI

systemctl reset-failed haraka 2>/dev/null || true
systemctl enable --quiet haraka
systemctl start haraka
timeout 120 sh -c 'until ss -Hltn "sport = :25" | grep -q .; do sleep 0.1; done'
: >/var/lib/mailfleet-lab/prepared
