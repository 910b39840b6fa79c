#!/bin/sh
# The starting state of a stand-in for Exchange, that of a new installation: TLS is offered with its own certificate, and nothing insists
# on it. See tools/lab/exchange.
# Environment: LAB_FQDN, LAB_DOMAIN (accepted domains), LAB_BEHAVIOUR (on_premises, online), LAB_SMARTHOST,
# LAB_CERTIFICATE_NAME (of the inbound connector), LAB_CA (the lab's authority, PEM), LAB_PEM (key, certificate and intermediates that it issued), LAB_PROGRAM (tools/lab/exchange: tar, gzip, base64).
set -eu

systemctl stop exchange 2>/dev/null || true
rm -rf /usr/local/lib/lab /var/lib/exchange
mkdir -p /usr/local/lib/lab /var/lib/exchange/certificates /var/lib/exchange/roots
printf %s "$LAB_PROGRAM" | base64 -d | tar -C /usr/local/lib/lab -xz

# Exchange makes one for itself when it is installed; online it has a public one alone.
cd /var/lib/exchange
umask 077
if [ "$LAB_BEHAVIOUR" = on_premises ]; then
    name=$(echo "${LAB_FQDN%%.*}" | tr a-z A-Z)
    openssl req -x509 -newkey rsa:2048 -nodes -days 1825 -subj "/CN=$name" -addext "subjectAltName=DNS:$name,DNS:$LAB_FQDN" \
        -keyout key.new -out certificate.new 2>/dev/null
    cat key.new certificate.new >certificates/1-own.pem
    rm key.new certificate.new
fi
printf '%s\n' "$LAB_PEM" >certificates/2-public.pem
printf '%s\n' "$LAB_CA" >roots/public.pem

cd /usr/local/lib/lab
python3 -m exchange.first /var/lib/exchange
cat >/etc/systemd/system/exchange.service <<'UNIT'
[Unit]
Description=A stand-in for Exchange
After=network.target

[Service]
WorkingDirectory=/usr/local/lib/lab
ExecStart=/usr/bin/python3 -m exchange /var/lib/exchange
Restart=on-failure

[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --quiet exchange
systemctl start exchange
timeout 60 sh -c 'until ss -Hltn "sport = :25" | grep -q .; do sleep 0.1; done'
: >/var/lib/mailfleet-lab/prepared
