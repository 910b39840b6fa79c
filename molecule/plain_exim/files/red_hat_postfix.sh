#!/bin/sh
# Debian's Postfix with the directories, main.cf, unit and log of the Red Hat family: red_hat_postfix.sh on|off
# Its main.cf names all its directories, so no string of a program has to be replaced. It offers TLS from the first start there, with a
# certificate of its own making.
set -eu
AWAY=/var/lib/mailfleet-lab/debian
case $1 in
on)
    systemctl stop postfix@-.service postfix.service
    mkdir -p $AWAY /usr/libexec /usr/lib64 /etc/pki/tls/certs /etc/pki/tls/private /etc/pki/ca-trust/extracted/pem
    cp -a /etc/postfix /etc/rsyslog.conf $AWAY
    mv /usr/lib/postfix/sbin /usr/libexec/postfix
    mv /usr/lib/postfix /usr/lib64/postfix
    echo /usr/lib64/postfix >/etc/ld.so.conf.d/postfix.conf
    ldconfig
    cp /etc/ssl/certs/ca-certificates.crt /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem
    ln -s /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem /etc/pki/tls/certs/ca-bundle.crt
    mv /etc/ssl/certs/ca-certificates.crt $AWAY
    openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj "/CN=$(hostname -f)" \
        -keyout /etc/pki/tls/private/postfix.key -out /etc/pki/tls/certs/postfix.pem 2>/dev/null
    postconf -c /etc/postfix -e "command_directory = /usr/sbin" "daemon_directory = /usr/libexec/postfix" \
        "data_directory = /var/lib/postfix" "mail_owner = postfix" "setgid_group = postdrop" "html_directory = no" \
        "meta_directory = /etc/postfix" "shlib_directory = /usr/lib64/postfix" \
        "smtpd_tls_cert_file = /etc/pki/tls/certs/postfix.pem" "smtpd_tls_key_file = /etc/pki/tls/private/postfix.key" \
        "smtpd_tls_security_level = may" "smtp_tls_CApath = /etc/pki/tls/certs" \
        "smtp_tls_CAfile = /etc/pki/tls/certs/ca-bundle.crt" "smtp_tls_security_level = may"
    postconf -F '*/*/chroot = n'
    rm -rf /var/spool/postfix/etc /var/spool/postfix/lib /var/spool/postfix/usr
    # Nothing of Debian's units is left: no template of instances, and no program that makes units of it.
    mkdir -p /etc/systemd/system-generators
    ln -s /dev/null /etc/systemd/system-generators/postfix-instance-generator
    mv /lib/systemd/system/postfix.service /lib/systemd/system/postfix@.service $AWAY
    cat >/lib/systemd/system/postfix.service <<'UNIT'
[Unit]
Description=Postfix Mail Transport Agent
After=syslog.target network.target

[Service]
Type=forking
PIDFile=/var/spool/postfix/pid/master.pid
PrivateTmp=true
ProtectSystem=true
ExecStart=/usr/sbin/postfix start
ExecReload=/usr/sbin/postfix reload
ExecStop=/usr/sbin/postfix stop

[Install]
WantedBy=multi-user.target
UNIT
    # The labels of SELinux's policy, where this machine lets a host have some: a kernel without SELinux does.
    python3 - <<'PY'
import contextlib
import os

with contextlib.suppress(OSError):
    for path in ("/etc/postfix", "/etc/postfix/main.cf", "/etc/postfix/master.cf"):
        os.setxattr(path, "security.selinux", b"system_u:object_r:postfix_etc_t:s0")
PY
    sed -i 's:/var/log/mail\.log:/var/log/maillog:' /etc/rsyslog.conf
    mv /var/log/mail.log $AWAY
    mv /etc/os-release $AWAY
    printf '%s\n' 'NAME="AlmaLinux"' 'VERSION="9.4 (Seafoam Ocelot)"' 'ID="almalinux"' 'ID_LIKE="rhel centos fedora"' \
        'VERSION_ID="9.4"' 'PLATFORM_ID="platform:el9"' >/etc/os-release
    systemctl daemon-reload
    systemctl restart rsyslog
    systemctl start postfix
    ;;
off)
    systemctl stop postfix
    rm -rf /etc/mailfleet /var/lib/mailfleet-starttls /etc/postfix /etc/rsyslog.conf /etc/os-release /etc/pki /etc/ld.so.conf.d/postfix.conf /var/log/maillog \
        /lib/systemd/system/postfix.service /etc/systemd/system-generators/postfix-instance-generator
    mv $AWAY/postfix $AWAY/rsyslog.conf $AWAY/os-release /etc
    mv $AWAY/ca-certificates.crt /etc/ssl/certs
    mv $AWAY/postfix.service $AWAY/postfix@.service /lib/systemd/system
    mv $AWAY/mail.log /var/log
    mv /usr/lib64/postfix /usr/lib/postfix
    mv /usr/libexec/postfix /usr/lib/postfix/sbin
    ldconfig
    systemctl daemon-reload
    systemctl restart rsyslog
    systemctl start postfix
    ;;
esac
