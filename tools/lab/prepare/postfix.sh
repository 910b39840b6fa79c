#!/bin/sh
# The starting state of a Postfix host of the lab: mail flows, nothing offers or asks for TLS.
# Environment: LAB_ROLE (gateway, server, outside), LAB_FQDN, LAB_DOMAIN, LAB_SUBNET, LAB_GATEWAY, LAB_ROUTES (a line for each
# domain of the fleet: the domain, then its mail servers), LAB_RELAYS (of a server: a line for each domain that it hands on, and the host),
# LAB_SMARTHOST (of a server: where all other mail goes, if not to the gateway).
set -eu

# What an earlier rollout left goes: other instances, their units, queues, keys, journals, the policy service and its user, the mail, the log.
postfix stop >/dev/null 2>&1 || true
for instance in /etc/postfix-*; do
    [ -d "$instance" ] || continue
    postmulti -i "${instance#/etc/}" -p stop >/dev/null 2>&1 || true
    rm -rf "$instance" "/var/spool/${instance#/etc/}" "/var/lib/${instance#/etc/}"
done
for unit in /etc/systemd/system/postfix@mailfleet*.service; do
    systemctl --quiet disable --now "${unit##*/}" 2>/dev/null || true
done
find /etc/systemd/system -name 'postfix@*mailfleet*' -exec rm -rf {} +
find /etc/postfix -mindepth 1 -delete
tar -C /etc -xf /var/lib/mailfleet-lab/pristine.tar
rm -rf /etc/mailfleet /var/lib/mailfleet-starttls /usr/local/lib/mailfleet-starttls /var/mail/* /var/lib/postfix/*_scache.*
if id mailfleet-starttls >/dev/null 2>&1; then
    pkill -u mailfleet-starttls || true
    userdel mailfleet-starttls
fi

# Debian 12 comes with TLS switched on and a made-up certificate, Debian 13 without: start from the same.
postconf -X smtpd_tls_cert_file smtpd_tls_key_file smtp_tls_CApath smtp_tls_session_cache_database 2>/dev/null || true

postconf -e \
    "compatibility_level = 3.6" "biff = no" "inet_protocols = ipv4" "inet_interfaces = all" \
    "smtputf8_enable = no" "myhostname = $LAB_FQDN" "mynetworks = 127.0.0.0/8" "home_mailbox =" \
    "mail_spool_directory = /var/mail" "alias_maps =" \
    "minimal_backoff_time = 60s" "queue_run_delay = 60s" \
    "smtpd_tls_security_level = none" "smtp_tls_security_level = none"

relay=$(printf '%s\n' "$LAB_ROUTES" | awk '{print $1}' | xargs)
case $LAB_ROLE in
gateway)
    type=$(postconf -h default_database_type)
    {
        echo '# Written by hand, as on many a gateway.'
        printf '%s\n' "$LAB_ROUTES" | awk '{printf "%-15s smtp:", $1; for (i = 2; i <= NF; i++) printf "%s[%s]", (i > 2 ? ", " : ""), $i; print ""}'
        echo 'partner.test    smtp:[mx.partner.test]'
    } >/etc/postfix/transport
    postmap "$type:/etc/postfix/transport"
    postconf -e "mydestination = $LAB_FQDN, localhost" "myorigin = $LAB_FQDN" "relay_domains = $relay" \
        "mynetworks = 127.0.0.0/8 $LAB_SUBNET" "transport_maps = $type:/etc/postfix/transport"
    ;;
server)
    postconf -e "mydestination = $LAB_DOMAIN, $LAB_FQDN, localhost" "myorigin = ${LAB_DOMAIN%% *}" \
        "relayhost = [${LAB_SMARTHOST:-$LAB_GATEWAY}]"
    [ -z "${LAB_RELAYS:-}" ] || {
        # It stands between the gateway and other servers.
        type=$(postconf -h default_database_type)
        printf '%s\n' "$LAB_RELAYS" | awk '{printf "%-15s smtp:[%s]\n", $1, $2}' >/etc/postfix/transport
        postmap "$type:/etc/postfix/transport"
        postconf -e "transport_maps = $type:/etc/postfix/transport" "mynetworks = 127.0.0.0/8 $LAB_SUBNET" \
            "relay_domains = $(printf '%s\n' "$LAB_RELAYS" | awk '{print $1}' | xargs)"
    }
    ;;
outside)
    for domain in $relay; do echo "$domain smtp:[$LAB_GATEWAY]"; done >/etc/postfix/transport
    type=$(postconf -h default_database_type)
    postmap "$type:/etc/postfix/transport"
    # A typical sender on the internet: uses TLS where it is offered.
    postconf -e "mydestination = $LAB_DOMAIN, $LAB_FQDN, localhost" "myorigin = ${LAB_DOMAIN%% *}" \
        "transport_maps = $type:/etc/postfix/transport" "smtp_tls_security_level = may" \
        "smtp_tls_loglevel = 1" "smtpd_tls_received_header = yes"
    # Its mailbox can be read by IMAP as well, once it has a certificate and somebody starts Dovecot.
    systemctl stop dovecot 2>/dev/null || true
    rm -rf /var/lib/mailfleet-imap
    mkdir -p /etc/dovecot
    install -d -o trace -g mail /var/lib/mailfleet-imap
    cat >/etc/dovecot/dovecot.conf <<'CONF'
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols = imap
listen = *
log_path = /var/log/dovecot.log
ssl = required
ssl_server_cert_file = /etc/mailfleet/starttls.pem
ssl_server_key_file = /etc/mailfleet/starttls.pem
mail_driver = mbox
mail_path = /var/lib/mailfleet-imap
mail_inbox_path = /var/mail/%{user}
mail_access_groups = mail
passdb static {
  password = {PLAIN}imap-secret
}
userdb static {
  fields {
    uid = trace
    gid = mail
    home = /var/lib/mailfleet-imap
  }
}
CONF
    ;;
esac

systemctl daemon-reload # the units of other instances are made from main.cf
systemctl reset-failed postfix.service 'postfix@*.service' 2>/dev/null || true
systemctl restart postfix
postsuper -d ALL >/dev/null 2>&1 || true
: >/var/log/mail.log
: >/var/lib/mailfleet-lab/prepared
