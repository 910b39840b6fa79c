#!/bin/sh
# A Postfix gateway whose mail goes through Debian's amavis behind the queue, as the package's README.postfix has it. rspamd waits beside it.
set -eu

# What an earlier run left goes.
rm -f /etc/amavis/conf.d/*-mailfleet* /etc/amavis/conf.d/60-broken
systemctl restart amavis

postconf -e 'content_filter = smtp-amavis:[127.0.0.1]:10024'
grep -q '^smtp-amavis' /etc/postfix/master.cf || cat >>/etc/postfix/master.cf <<'CF'
smtp-amavis unix -      -       -       -       2       smtp
    -o smtp_data_done_timeout=1200
    -o smtp_send_xforward_command=yes
    -o disable_dns_lookups=yes
    -o max_use=20
127.0.0.1:10025 inet n  -       -       -       -       smtpd
    -o content_filter=
    -o smtpd_delay_reject=no
    -o smtpd_client_restrictions=permit_mynetworks,reject
    -o smtpd_helo_restrictions=
    -o smtpd_sender_restrictions=
    -o smtpd_recipient_restrictions=permit_mynetworks,reject
    -o smtpd_data_restrictions=reject_unauth_pipelining
    -o smtpd_end_of_data_restrictions=
    -o smtpd_restriction_classes=
    -o mynetworks=127.0.0.0/8
    -o smtpd_error_sleep_time=0
    -o smtpd_soft_error_limit=1001
    -o smtpd_hard_error_limit=1000
    -o smtpd_client_connection_count_limit=0
    -o smtpd_client_connection_rate_limit=0
    -o receive_override_options=no_header_body_checks,no_unknown_recipient_checks,no_milters
    -o local_header_rewrite_clients=
CF
systemctl restart postfix
find /etc/postfix /etc/amavis -type f -exec sha256sum {} + >/var/lib/mailfleet-lab/filtered
