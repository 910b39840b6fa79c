#!/bin/sh
# A mail server that may ask the lab's ACME authority (authority.sh), with listeners for users besides port 25. TLS stays off.
# Environment: LAB_CA (the roots of the authority's web server), LAB_DNS (the address of its name service), LAB_SECRET (of the TSIG key).
set -eu

# What an earlier run left goes.
systemctl --quiet disable --now mailfleet-starttls-renew.timer 2>/dev/null || true
rm -rf /etc/letsencrypt /usr/local/sbin/mailfleet-starttls /etc/systemd/system/mailfleet-starttls-renew.* /etc/systemd/system/certbot*.service.d
systemctl --quiet disable --now certbot.timer # the tests say when something is renewed

printf '%s\n' "$LAB_CA" >/etc/ssl/lab-ca.pem
mkdir -p /etc/letsencrypt
cat >/etc/letsencrypt/cli.ini <<'CONF'
max-log-backups = 0
# certbot waits a minute for other name servers, and there are none.
dns-rfc2136-propagation-seconds = 1
CONF
umask 077
cat >/etc/letsencrypt/rfc2136.ini <<CONF
dns_rfc2136_server = $LAB_DNS
dns_rfc2136_name = certbot.
dns_rfc2136_secret = $LAB_SECRET
dns_rfc2136_algorithm = HMAC-SHA256
CONF
umask 022

if [ -d /etc/postfix ]; then
    postconf -M 'submission/inet=submission inet n - y - - smtpd -o syslog_name=postfix/submission' \
        'smtps/inet=smtps inet n - y - - smtpd -o smtpd_tls_wrappermode=yes'
    postfix reload 2>/dev/null
else
    macros=/etc/exim4/conf.d/main/000_localmacros
    grep -q "^dc_use_split_config='true'" /etc/exim4/update-exim4.conf.conf || macros=/etc/exim4/exim4.conf.localmacros
    printf 'daemon_smtp_ports = 25 : 587 : 465\ntls_on_connect_ports = 465\n' >>"$macros"
    update-exim4.conf
    systemctl restart exim4
fi
systemctl daemon-reload
