#!/bin/sh
# The starting state of an Exim host of the lab: mail flows, nothing offers or asks for TLS.
# Environment: LAB_ROLE (gateway, server), LAB_FQDN, LAB_DOMAIN, LAB_SUBNET, LAB_SPLIT (true: Debian's split configuration),
# LAB_GATEWAY, LAB_ROUTES (a line for each domain of the fleet: the domain, then its mail servers), LAB_RELAYS (of a server: a line for
# each domain that it hands on, and the host), LAB_SMARTHOST (of a server: where all other mail goes, if not to the gateway).
set -eu

systemctl stop exim4
find /etc/exim4 -mindepth 1 -delete
tar -C /etc -xf /var/lib/mailfleet-lab/pristine.tar
rm -rf /etc/mailfleet /var/lib/mailfleet-starttls /var/mail/*
find /var/spool/exim4/input /var/spool/exim4/msglog /var/spool/exim4/db -type f -delete 2>/dev/null || true

type=smarthost smarthost=${LAB_SMARTHOST:-$LAB_GATEWAY} relay= nets=
if [ "${LAB_RELAYS:-}" ]; then # it stands between the gateway and other servers
    relay=$(printf '%s\n' "$LAB_RELAYS" | awk '{print $1}' | paste -sd:) nets=$LAB_SUBNET
    printf '%s\n' "$LAB_RELAYS" | awk '{print $1 ": " $2}' >/etc/exim4/hubbed_hosts
fi
if [ "$LAB_ROLE" = gateway ]; then
    type=internet smarthost= relay=$(printf '%s\n' "$LAB_ROUTES" | awk '{print $1}' | paste -sd:) nets=$LAB_SUBNET LAB_DOMAIN=$LAB_FQDN
    # Debian's own way to say where relayed domains go, written by hand.
    printf '%s\n' "$LAB_ROUTES" | awk '{printf "%s:", $1; for (i = 2; i <= NF; i++) printf "%s %s", (i > 2 ? " :" : ""), $i; print ""}' \
        >/etc/exim4/hubbed_hosts
fi
echo "${LAB_DOMAIN%% *}" >/etc/mailname
cat >/etc/exim4/update-exim4.conf.conf <<CONF
dc_eximconfig_configtype='$type'
dc_other_hostnames='$(echo "$LAB_DOMAIN" | tr ' ' :):$LAB_FQDN'
dc_local_interfaces='0.0.0.0'
dc_readhost=''
dc_relay_domains='$relay'
dc_minimaldns='false'
dc_relay_nets='$nets'
dc_smarthost='$smarthost'
CFILEMODE='644'
dc_use_split_config='$LAB_SPLIT'
dc_hide_mailname='false'
dc_mailname_in_oh='true'
dc_localdelivery='mail_spool'
CONF

macros=/etc/exim4/exim4.conf.localmacros
[ "$LAB_SPLIT" = false ] || macros=/etc/exim4/conf.d/main/000_localmacros
# Debian's Exim offers STARTTLS with a certificate made up on the fly unless told not to.
cat >"$macros" <<'CONF'
MAIN_TLS_ENABLE = yes
MAIN_TLS_ADVERTISE_HOSTS =
REMOTE_SMTP_HOSTS_AVOID_TLS = *
REMOTE_SMTP_SMARTHOST_HOSTS_AVOID_TLS = *
CONF

# The lab's DNS answers for an address with the container's name; /etc/hosts has the right one.
sed -i 's/^ *host_lookup = MAIN_HOST_LOOKUP/&\nhost_lookup_order = byaddr:bydns/' \
    /etc/exim4/exim4.conf.template /etc/exim4/conf.d/main/*

update-exim4.conf
for log in mainlog rejectlog paniclog; do
    rm -f /var/log/exim4/$log
done
install -o Debian-exim -g adm -m 640 /dev/null /var/log/exim4/mainlog
# The scenario of hosts that only send has one whose daemon takes no mail.
sed -i "s/^QUEUERUNNER='queueonly'/QUEUERUNNER='combined'/" /etc/default/exim4
systemctl reset-failed exim4 2>/dev/null || true
systemctl start exim4
: >/var/lib/mailfleet-lab/prepared
