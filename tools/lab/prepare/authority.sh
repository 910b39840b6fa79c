#!/bin/sh
# An ACME authority, pebble, and the bind9 in which it looks up names and in which clients prove them (RFC 2136).
# Environment: LAB_HOSTS (a line for each host of the fleet: its name in fleet.test, its address), LAB_LIFE (seconds that a certificate lives).
# LAB_PEM (key, certificate and chain of pebble's own web server). What others need is in /var/lib/mailfleet-lab: key.secret (the secret
# of the TSIG key "certbot.") and roots.pem. Each start of pebble makes another root.
set -eu

umask 077
mkdir -p /etc/pebble
printf '%s\n' "$LAB_PEM" >/etc/pebble/own.pem
umask 022
cat >/etc/pebble/pebble.json <<CONF
{"pebble": {
  "listenAddress": "0.0.0.0:14000", "managementListenAddress": "0.0.0.0:15000",
  "certificate": "/etc/pebble/own.pem", "privateKey": "/etc/pebble/own.pem",
  "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "", "externalAccountBindingRequired": false,
  "certificateValidityPeriod": $LAB_LIFE
}}
CONF
# It neither refuses good nonces nor waits at random, as it does to try its clients; and it looks at each name each time.
cat >/etc/systemd/system/pebble.service <<'UNIT'
[Unit]
After=network.target named.service

[Service]
Environment=PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 PEBBLE_AUTHZREUSE=0
ExecStart=/usr/bin/pebble -config /etc/pebble/pebble.json -dnsserver 127.0.0.1:53
UNIT

secret=/var/lib/mailfleet-lab/key.secret
[ -s "$secret" ] || (umask 077; head -c 32 /dev/urandom | base64 >"$secret")
cat >/etc/bind/named.conf.options <<'CONF'
options { directory "/var/cache/bind"; recursion no; dnssec-validation no; listen-on { any; }; listen-on-v6 { none; }; };
CONF
cat >/etc/bind/named.conf.local <<CONF
key "certbot." { algorithm hmac-sha256; secret "$(cat "$secret")"; };
zone "fleet.test" { type primary; file "/var/lib/bind/fleet.test"; update-policy { grant certbot. zonesub TXT; }; };
CONF
chown root:bind /etc/bind/named.conf.local
chmod 640 /etc/bind/named.conf.local
systemctl stop named
rm -f /var/lib/bind/fleet.test*
{
    printf '$TTL 1\n@ SOA ca.fleet.test. hostmaster.fleet.test. 1 600 60 600 1\n@ NS ca.fleet.test.\n'
    printf '%s\n' "$LAB_HOSTS" | awk 'NF {print $1 " A " $2; print "other." $1 " A " $2}'
} >/var/lib/bind/fleet.test
chown bind: /var/lib/bind/fleet.test

systemctl daemon-reload
systemctl restart named pebble
python3 - <<'CODE'
import ssl, time, urllib.request

context = ssl._create_unverified_context()  # this host asks itself
for _ in range(100):
    try:
        with urllib.request.urlopen("https://127.0.0.1:15000/roots/0", context=context) as answer:
            text = answer.read().decode()
        break
    except OSError:
        time.sleep(0.1)
with open("/var/lib/mailfleet-lab/roots.pem", "w") as file:
    file.write(text)
CODE
