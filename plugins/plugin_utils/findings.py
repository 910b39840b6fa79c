# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue of findings: every code that the collection reports, with its severity and advice.

A new finding needs one entry in CATALOGUE and the line that yields it. C(python -m tests.support.generated) writes the
table in docs/findings.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

SEVERITIES = ("error", "warning", "notice")
"""The severities of a finding, the worst first."""

PAGE = "docs/findings.md"

GROUPS = {
    "handshake": "The handshake test does not complete",
    "certificate": "Certificates, when they are installed and when they are served",
    "installation": "Input of the module tls_certificate",
    "tls": "TLS and SMTP",
    "dns": "DANE and MTA-STS",
    "host": "Hosts and messages",
    "peer": "Peers of a mail server, and what Exchange says",
    "plan": "The plan of a run: what stands in the way",
    "listener": "Listeners, as the daemon says and as they are",
    "alert": "Alerts of a report",
}
"""Group of entries -> its heading in the documentation."""


class UnknownFindingError(EngineError):
    """A code is not in the catalogue."""


@dataclass(frozen=True)
class Entry:
    """One kind of finding.

    description is one sentence. advice is the next action, as the second half of a sentence. title is the heading of an
    alert in the report page. Entries of other groups have no title.
    """

    group: str
    code: str
    severity: str
    description: str
    advice: str
    title: str = ""

    @property
    def link(self) -> str:
        """The link to the entry's documentation, relative to the root of the collection."""
        return f"{PAGE}#{self.code}"


_ENTRIES = (
    # handshake
    Entry("handshake", "connect_failed", "error", "The server cannot be connected to.",
          "check that the server runs, listens on this address and accepts this host"),
    Entry("handshake", "name_not_resolved", "error", "The host that makes the test cannot resolve the name of the server.",
          "correct starttls_hostname of the server, or the name service of the host that made the test"),
    Entry("handshake", "no_route", "error", "The host that makes the test has no route to the server.",
          "correct the address of the server, or the routes and the firewall of the host that made the test"),
    Entry("handshake", "timeout", "error", "The server does not answer in time.",
          "check that the server is not overloaded and that no firewall filters the connection; if it only waits before it answers, set a "
          "longer timeout (starttls_probe_timeout)"),
    Entry("handshake", "greeting_rejected", "error", "The server greets with an error.",
          "find out why the server refuses this client; its log has the reason"),
    Entry("handshake", "not_smtp", "error", "The answer is not SMTP.",
          "check that the port is that of a mail server"),
    Entry("handshake", "ehlo_rejected", "error", "The server refuses EHLO.",
          "find out why the server refuses EHLO from this client; its log has the reason. If it objects to the name, set helo_name"),
    Entry("handshake", "starttls_not_offered", "error", "The answer to EHLO does not list STARTTLS.",
          "switch STARTTLS on at the server; if it is on, a device on the path removes it"),
    Entry("handshake", "starttls_not_configured", "error", "The configuration of the daemon switches STARTTLS off.",
          "wait if another run is under way, else run enable_tls; find out which tool or run switched it off"),
    Entry("handshake", "configuration_not_reloaded", "error",
          "The configuration offers STARTTLS, and the daemon has not read it since it was edited.",
          "run enable_tls, which reloads the daemon, and let the tool that edits the files do that, too"),
    Entry("handshake", "starttls_refused", "error", "The server offers STARTTLS and then refuses it.",
          "check that the daemon can read key and certificate and that they belong together"),
    Entry("handshake", "plaintext_after_220", "error", "Plaintext follows the answer to STARTTLS.",
          "a device on the path injects plaintext, or the server is vulnerable to injection: update it"),
    Entry("handshake", "tls_failed", "error", "The TLS handshake fails.",
          "read the server's log; a key that does not belong to the certificate is the usual reason"),
    Entry("handshake", "connection_closed", "error", "The server closes the connection before the test is complete.",
          "read the server's log for the reason"),
    Entry("handshake", "ehlo_tls_rejected", "error", "The server refuses EHLO inside TLS.",
          "read the server's log for the reason"),
    Entry("handshake", "client_certificate_required", "error", "The server requires a certificate of the client.",
          "configure the server to request a client certificate at most, not to require one; partners have none"),
    # certificate
    Entry("certificate", "bad_name", "error", "A certificate cannot hold this name.",
          "give a name that a certificate can hold"),
    Entry("certificate", "wrong_certificate", "error", "The served certificate is not the one that was installed.",
          "check which file the daemon reads, and reload the daemon"),
    Entry("certificate", "certificate_file_gone", "error", "The daemon is told to serve a file in which there is no certificate.",
          "run enable_tls, which installs it again, or correct the path in the configuration; find out who removed the file"),
    Entry("certificate", "certificate_of_its_own", "error",
          "The daemon makes a certificate itself, because its configuration names no file.",
          "run enable_tls, which names the file again; find out which tool or switch of its configuration took the setting away"),
    Entry("certificate", "other_certificate_configured", "warning",
          "The daemon is told to serve another file than the one that was installed.",
          "run enable_tls to serve the installed one, or set starttls_certificate_path to the other file, and find out who changed it"),
    Entry("certificate", "certificate_not_reloaded", "error",
          "The certificate file was replaced, and the daemon still serves the one that it read before.",
          "reload the daemon, or run enable_tls, which does; let what renews the file reload the daemon"),
    Entry("certificate", "certificate_not_loaded", "error", "STARTTLS is configured, and the daemon could not load the certificate.",
          "correct what the daemon says, then run enable_tls"),
    Entry("certificate", "bad_certificate", "error", "The certificate, or its extensions, cannot be decoded.",
          "have it issued again"),
    Entry("certificate", "name_mismatch", "error", "The served certificate does not cover the name of the server.",
          "get one with that name, or correct the name if the server is called differently"),
    Entry("certificate", "name_not_covered", "error", "The certificate to install does not cover one of names.",
          "get one with that name, or correct names if the server is called differently"),
    Entry("certificate", "name_in_common_name_only", "warning",
          "The certificate has the name in its common name only, which newer clients do not read.",
          "have it issued again with the name as a subject alternative name"),
    Entry("certificate", "not_yet_valid", "error", "The certificate is not valid yet.",
          "install one that is valid now, and check that the clocks are right"),
    Entry("certificate", "expired", "error", "The certificate has expired.", "install a new one"),
    Entry("certificate", "expiring", "error", "The certificate has less than a tenth of its life left, or fewer days than min_days_left.",
          "renew it, or lower min_days_left"),
    Entry("certificate", "expires_soon", "warning",
          "The certificate has less than a third of its life left, or fewer days than warn_days_left.",
          "check that its renewal is in progress"),
    Entry("certificate", "weak_key", "error",
          "A certificate has a key that partners refuse: RSA under 2048 bits, an elliptic curve under 256 bits, or DSA.",
          "have it issued for RSA with at least 2048 bits, or ECDSA P-256"),
    Entry("certificate", "weak_signature", "error", "A certificate is signed with MD5 or SHA-1, which partners refuse.",
          "have it issued again with SHA-256"),
    Entry("certificate", "wrong_purpose", "error", "A certificate is not for TLS servers.",
          "request a certificate for a TLS server (serverAuth)"),
    Entry("certificate", "wrong_key_usage", "error",
          "The key usage of a certificate lacks digitalSignature, so GnuTLS refuses it (Key usage violation).",
          "have it issued again with the key usage digitalSignature (with RSA keyEncipherment too)"),
    Entry("certificate", "not_everywhere", "warning",
          "OpenSSL, GnuTLS or Schannel does not take the certificate, and others do.",
          "have it issued for ECDSA P-256 or RSA with at least 2048 bits, signed with SHA-256, unless all partners take this one"),
    Entry("certificate", "untrusted", "error", "The chain does not end at a root that is trusted.",
          "serve the intermediates with it, or name its CA if it is a private one"),
    Entry("certificate", "incomplete_chain", "warning",
          "An intermediate is not served and is trusted only because the CA certificates hold it.",
          "append it to the file with the certificate"),
    Entry("certificate", "self_signed", "error", "The certificate is signed by itself.",
          "get one from a certification authority, or set allow_self_signed if no partner checks it"),
    Entry("certificate", "chain_incomplete", "error", "The chain to install lacks an intermediate.",
          "append the missing certificate to the chain"),
    Entry("certificate", "chain_out_of_order", "error", "The chain to install is in the wrong order.",
          "put the server's certificate first, then the one that signed it, and so on"),
    Entry("certificate", "chain_unrelated", "error", "A certificate to install does not belong to the chain.",
          "remove it, or give the chain that came with the certificate"),
    Entry("certificate", "duplicate_issuer", "warning", "The chain to install has two certificates of one issuer.",
          "remove the one that is not used"),
    Entry("certificate", "issuer_not_ca", "error", "A certificate of the chain may not sign the one below it.",
          "have the certificate issued by a certification authority"),
    Entry("certificate", "ca_as_leaf", "error", "The server's certificate is that of a certification authority.",
          "put the server's own certificate first"),
    Entry("certificate", "key_mismatch", "error", "The private key does not belong to the certificate.",
          "give the key that the certificate was requested with"),
    Entry("certificate", "not_proved", "notice",
          "A survey could not prove that the server has the key of its certificate.",
          "test it with mode full"),
    # installation
    Entry("installation", "bad_option", "error", "An option of the task is missing or wrong.", "correct the option"),
    Entry("installation", "unreadable", "error", "A file cannot be read on the controller.",
          "correct the path or its permissions"),
    Entry("installation", "not_pem", "error", "A file is not the PEM that was asked for.", "give the file in PEM"),
    Entry("installation", "key_ambiguous", "error", "The file has more than one private key.",
          "leave only the key of the certificate"),
    Entry("installation", "key_encrypted", "error", "The private key is protected by a passphrase.",
          "remove the passphrase and keep the key in Ansible Vault"),
    Entry("installation", "key_invalid", "error", "The private key cannot be decoded.",
          "make a new key and certificate if the file is damaged"),
    Entry("installation", "not_pkcs12", "error", "A PKCS#12 file cannot be read with its password.",
          "correct starttls_pkcs12_file, starttls_pkcs12_content or starttls_pkcs12_password"),
    Entry("installation", "not_issued", "error", "The command of the authority has issued no certificate.",
          "see what it said, and correct starttls_certificate_command"),
    # tls
    Entry("tls", "old_tls", "error", "The agreed TLS version is older than min_tls_version.",
          "switch the newer version on, or update the server"),
    Entry("tls", "old_tls_offered", "warning", "The server accepts TLS 1.0 or TLS 1.1 too.",
          "set starttls_min_tls: TLSv1.2 and run enable_tls, which first shows who still needs the old versions; elsewhere switch them off "
          "(Postfix: smtpd_tls_protocols, Exim: openssl_options)"),
    Entry("tls", "no_tls13", "notice", "The server does not offer TLS 1.3.",
          "update its TLS library, or switch it on"),
    Entry("tls", "command_injection", "error", "The server answers commands inside TLS that were sent in plaintext.",
          "update the server, or the proxy in front of it"),
    Entry("tls", "starttls_offered_in_tls", "warning", "The server offers STARTTLS again inside TLS.",
          "update it, or find the device on the path that rewrites its answers"),
    Entry("tls", "auth_in_plaintext", "warning", "The server lets clients send passwords before TLS.",
          "let it offer AUTH inside TLS only (Postfix: smtpd_tls_auth_only, Exim: auth_advertise_hosts)"),
    Entry("tls", "client_certificate_requested", "notice",
          "The server requests a certificate of the client and continues without one.",
          "switch that off if nothing uses it"),
    Entry("tls", "large_hello_lost", "error", "The server does not understand a ClientHello of 1.5 kB, as OpenSSL 3.5 and newer send it.",
          "find the firewall, load balancer or server on the path that reads only the first segment of it, and update that"),
    Entry("tls", "no_resumption", "notice", "TLS sessions cannot be resumed.",
          "give the server a session cache or tickets if it has many sessions"),
    # dns
    Entry("dns", "dane_mismatch", "error", "No TLSA record matches the served certificate.",
          "publish a record for the certificate that is served, before it is served"),
    Entry("dns", "dane_insecure", "warning", "There are TLSA records without DNSSEC.",
          "sign the zone, or ask a resolver that validates"),
    Entry("dns", "dane_unusable", "warning", "SMTP uses none of the TLSA records.",
          "publish a record '3 1 1', with the SHA-256 hash of the public key"),
    Entry("dns", "dane_failed", "warning", "The TLSA records cannot be looked up or compared.",
          "check that the zone and the resolver work; until then senders with DANE defer mail"),
    Entry("dns", "dane_not_checked", "warning", "The check dane was asked for, and the name of the server is not a domain name.",
          "set starttls_hostname to the name that the DNS knows the host by (of the module starttls_probe: name of the target)"),
    Entry("dns", "mta_sts_not_checked", "warning", "The check mta_sts was asked for, and no recipient domain is known.",
          "set starttls_domain of the host to a domain whose MX records name it (of the module starttls_probe: domain of the target)"),
    Entry("dns", "mta_sts_mismatch", "error", "The server does not match the MTA-STS policy of the domain.",
          "correct the policy and the id of its record, or the server; senders that follow the policy do not deliver"),
    Entry("dns", "mta_sts_testing", "warning",
          "The server does not match the MTA-STS policy of the domain, which has the mode testing.",
          "correct the policy and the id of its record, or the server, before the mode becomes enforce"),
    Entry("dns", "mta_sts_invalid", "warning", "The MTA-STS record or policy is invalid.",
          "correct it; senders ignore it"),
    Entry("dns", "mta_sts_failed", "warning", "The MTA-STS policy cannot be fetched.",
          "make the policy reachable; senders without a cached policy deliver without MTA-STS"),
    # host
    Entry("host", "not_gathered", "error", "A result of the host is missing.",
          "read the message for the reason"),
    Entry("host", "not_tested_from_gateway", "warning", "No gateway of this run tested the mail server.",
          "run it for the gateways as well, because they connect to the mail server"),
    Entry("host", "another_server", "warning",
          "The server that answered a gateway greets with another name than the one that answered the host itself.",
          "look up the name on the gateway, and what listens there; behind a load balancer that is right, but of the host nothing is "
          "proved then"),
    Entry("host", "could_not_look", "notice",
          "The controller could not look at the server: it cannot resolve its name, has no route or gets no connection.",
          "set starttls_address of the host to an address that the controller reaches, if it is to look as well"),
    Entry("host", "only_itself", "warning", "Only the host itself tested its server, so nothing proves that others reach it.",
          "set starttls_address of the host to an address that the controller reaches, and run verify_tls"),
    Entry("host", "loopback_only", "error", "The mail server listens on the loopback only, so no other host can deliver to it.",
          "let it listen where the gateways reach it (Postfix: inet_interfaces, Exim: local_interfaces); if the host is to send only, set "
          "starttls_inbound: none"),
    Entry("host", "relay_not_tested", "warning", "A send-only host has no relay that takes all its mail, so nothing was tested.",
          "give it one relay (relayhost of Postfix, a smart host of Exim), or look at a message that it sends"),
    Entry("host", "unproven", "error", "Nobody could look at the server of the host, so nothing is proved.",
          "repair what keeps the others from looking, and run verify_tls again"),
    Entry("host", "not_tested", "error", "Nothing was tested on the host.", "run the test on the host"),
    Entry("host", "unreachable", "error",
          "Ansible cannot reach the host, or the server does not answer EHLO and the test gives no reason.",
          "check that the host and its server run"),
    Entry("host", "not_as_wanted", "error", "The host does not insist on TLS, or not as the inventory wants it to.",
          "run enable_tls, which sets what the inventory wants, or correct the inventory"),
    Entry("host", "in_force_unknown", "warning",
          "It cannot be told whether the gateway insists on TLS as the inventory wants it to: its configuration was edited.",
          "look at what stands beside the collection's entries, and run enable_tls, which puts its own in front again"),
    Entry("host", "gateway_differs", "error", "The daemon of a gateway does not do what the collection set there.",
          "see who changed it, then run enable_tls, which sets it again"),
    Entry("host", "gateway_unproved", "error",
          "TLS was promised there, and it cannot be told whether the daemon of the gateway still keeps the promise.",
          "remove what the message names, or run enable_tls, which repairs what is the collection's"),
    Entry("host", "gateway_not_told", "warning", "It cannot be told whether the daemon of a gateway does what the collection set there.",
          "look at what the message names; what is not read is not proved"),
    Entry("host", "gateway_record_replaced", "error",
          "The note of what was set on a gateway is not the one that the last run wrote: a backup was restored, or it was edited.",
          "run enable_tls, which sets what the inventory says; what else was set there is not known any more"),
    Entry("host", "gateway_files_edited", "warning", "Files of the collection on a gateway are not as the last run left them.",
          "see who changed them, then run enable_tls, which writes them again"),
    Entry("host", "instance_differs", "warning",
          "A further Postfix instance of a gateway has other settings than the first one, from which they were copied.",
          "run enable_tls, which copies them again"),
    Entry("host", "conffile_edited", "warning",
          "A file of a gateway that dpkg asks about at an upgrade has lines of the collection: an unattended upgrade stops there.",
          "set starttls_exim_split: true and run enable_tls, which takes the lines out"),
    Entry("host", "still_offered", "error", "STARTTLS is offered although it was switched off.",
          "check the server's configuration, and reload the server"),
    Entry("host", "unknown_finding", "error", "A result has a finding that this version of the collection does not know.",
          "use one version of the collection for all results"),
    Entry("host", "message", "error", "A test message was lost or was not transported as expected.",
          "see what the queue or the Received headers in the message say; recover_deferred_mail delivers what waits for want of TLS"),
    Entry("host", "message_waits", "warning", "A test message waits, because a next hop wants a second try later (greylisting).",
          "run verify_tls again after the time of the next try, or take the sending host out of the greylisting"),
    Entry("host", "hop_unproven", "warning", "The Received header of a hop of a test message does not tell whether TLS was used.",
          "count on the headers of your own mail servers; if this is one of them, look for TLS of the hop in its log"),
    # peer
    Entry("peer", "peer_not_tested", "warning", "The proof with the peer did not reach to RCPT.",
          "set proof_sender (an address of an accepted domain) and proof_recipient (outside every accepted domain) of the peer in "
          "starttls_peers"),
    Entry("peer", "peer_proof_missing", "error", "The peer judges at RCPT, is to be required, and has no addresses for a proof.",
          "set proof_sender (an address of an accepted domain) and proof_recipient (outside every accepted domain) of the peer in "
          "starttls_peers, or level: opportunistic"),
    Entry("peer", "peer_differs", "error", "A mail server has another peer than the inventory wants, or lacks it.",
          "run enable_tls, which sets the peers of the inventory"),
    Entry("peer", "peer_in_plaintext", "warning", "Mail goes to the peer in plaintext now, as level: opportunistic allows.",
          "switch TLS on at the peer, then set level: required"),
    Entry("peer", "peer_unknown_reply", "error", "The peer refuses with a reply whose cause is not known here.",
          "look the reply up in the documentation of the peer, or ask its administrator; it was not guessed at"),
    Entry("peer", "client_certificate_refused", "error", "The peer ends the TLS handshake because of the client certificate.",
          "compare client_certificate of the peer in starttls_peers with what the peer accepts: its issuer, its purposes, its dates"),
    Entry("peer", "client_name_not_accepted", "error",
          "The client certificate has no accepted domain as a name, so Exchange Online attributes the mail to no tenant.",
          "use a certificate that has an accepted domain of the tenant as a name (as it is, or as *.DOMAIN), or make a name of this "
          "one an accepted domain"),
    Entry("peer", "client_name_below_domain", "warning",
          "The client certificate is for a host below an accepted domain, not for the domain.",
          "make that host name an accepted domain of the tenant, or give the inbound connector *.DOMAIN as "
          "TlsSenderCertificateName; the proof that reaches to RCPT tells whether it is enough"),
    Entry("peer", "client_names_not_compared", "notice",
          "No accepted domain is known, so the names of the client certificate were not compared.",
          "set proof_sender of the peer in starttls_peers to an address of an accepted domain"),
    Entry("peer", "client_purpose_missing", "notice", "The client certificate lacks the purpose clientAuth.",
          "public authorities stopped issuing that purpose in 2026, and it is not known what Exchange Online does without it: only the "
          "proof that reaches to RCPT tells; other peers that let OpenSSL verify the certificate refuse it"),
    Entry("peer", "client_not_public", "error",
          "The client certificate, as it is in the file, does not hang on a public root.",
          "append its intermediates to client_certificate, or use a certificate of a public authority"),
    Entry("peer", "client_root_unknown", "notice", "The controller does not trust the chain of the client certificate.",
          "see that the peer knows the root or the certificate itself; the proof tells"),
    Entry("peer", "peer_certificate_unfit", "error", "The certificate that the peer serves does not pass the check of its entry.",
          "correct check, names, pin_fingerprints or pin_issuer_file of the peer in starttls_peers, or have the peer serve another one"),
    Entry("peer", "peer_certificate_not_asked", "warning",
          "The peer did not ask for the client certificate, so it was not presented.",
          "check that hosts of the peer name the server that knows the certificate, and that no device on the way ends TLS"),
    Entry("peer", "peer_refuses_resumed", "warning",
          "The peer knows the client certificate in a new TLS session, and refuses the recipient when that session is resumed.",
          "let nothing resume sessions with this peer; a transport that peer_tls set with a client certificate resumes none"),
    Entry("peer", "peer_resumed_unknown", "notice", "The proof on a resumed TLS session could not be made.",
          "make the proof again; until then it is not known whether the peer knows the certificate of a resumed session"),
    Entry("peer", "peer_not_attributed", "error",
          "Exchange Online attributes the mail to no tenant: it does not know the certificate, or not one of its names.",
          "append the intermediates to client_certificate, use a certificate that has an accepted domain of this one tenant as a "
          "name, give the inbound connector that name (TlsSenderCertificateName), and take proof_sender from an accepted domain"),
    Entry("peer", "peer_untrusted_root", "error", "Exchange Online does not know the root of the client certificate.",
          "use a certificate of a public authority as client_certificate, with its intermediates in the file"),
    Entry("peer", "peer_wants_starttls", "error",
          "Exchange insists on TLS and takes the session for one in plaintext.",
          "find the device on the way that ends TLS; in Exchange, compare TlsCertificateName of the receive connector with "
          "Get-ExchangeCertificate"),
    Entry("peer", "peer_starttls_gone", "error",
          "Exchange offers no STARTTLS: its receive connector has no usable certificate, or no Tls in AuthMechanism.",
          "in Exchange, look for event 12014, and compare TlsCertificateName, Fqdn and AuthMechanism of the receive connector with "
          "Get-ExchangeCertificate; a renewed certificate has to be named there again"),
    Entry("peer", "peer_not_anonymous", "error",
          "The receive connector of Exchange that took the connection takes no mail without authentication.",
          "in Exchange, give the connector whose RemoteIPRanges hold this host the PermissionGroups AnonymousUsers, or name another "
          "port in hosts"),
    Entry("peer", "peer_relay_denied", "error", "The peer takes no mail for the domain of the recipient from this host.",
          "set proof_recipient to an address of a domain that the peer accepts, or let the peer relay for this host"),
    Entry("peer", "peer_recipient_unknown", "error", "The peer does not know the recipient.",
          "set proof_recipient to an address that exists there"),
    Entry("peer", "peer_unavailable", "error", "Exchange takes no mail on this receive connector now.",
          "in Exchange, check that the transport services run, and that an own connector on port 25 has the TransportRole "
          "FrontendTransport"),
    Entry("peer", "peer_hello_lost", "error", "Exchange says that it got no EHLO in this session, although it was sent.",
          "find the device on the way that speaks SMTP itself, and take it out of the way of TLS"),
    Entry("peer", "peer_outdated_exchange", "error",
          "Exchange Online throttles or blocks mail of an Exchange server that is out of date.",
          "update the Exchange server whose mail goes this way"),
    Entry("peer", "peer_busy", "warning", "The peer has too much to do, and refuses for the moment.",
          "make the proof again later; the reply says nothing about TLS"),
    Entry("peer", "peer_greylisted", "warning", "The peer makes an unknown sender wait (greylisting).",
          "make the proof again after the time that the peer wants, or have this host exempted there"),
    Entry("peer", "peer_connector_certificate", "error",
          "Exchange cannot use the certificate that its send connector names.",
          "in Exchange, set TlsCertificateName of the send connector to a certificate that Get-ExchangeCertificate lists as valid"),
    Entry("peer", "peer_served_name", "error",
          "Exchange Online does not find the name that its connector expects in the certificate that this side serves.",
          "serve a certificate that covers TlsDomain of the outbound connector (tls_domain of the peer in starttls_peers)"),
    Entry("peer", "peer_met_no_starttls", "error", "Exchange Online insists on TLS, and this side offered no STARTTLS.",
          "switch STARTTLS on at the mail server to which the connector delivers"),
    # plan
    Entry("plan", "no_privilege", "error", "The user of the run may not do as root what the change needs.",
          "set become for the host, and let its user run sudo; where sudo asks for a terminal (requiretty), switch pipelining off"),
    Entry("plan", "no_python", "error", "The host has no Python that Ansible can use.",
          "install Python 3.9 or newer there, or set ansible_python_interpreter"),
    Entry("plan", "not_put_back", "warning", "A host of a workflow does not go back to what it was before it.",
          "look at the host, and change it by hand or with enable_tls if it has to be as it was"),
    Entry("plan", "relay_without_tls", "warning", "The relay of a send-only host completes no handshake, so mail goes to it in plaintext.",
          "switch TLS on at the relay, or name another one"),
    Entry("plan", "no_gateway", "error", "The inventory has no gateway, and the step needs one.",
          "name the gateways in the group mail_gateways"),
    Entry("plan", "not_read", "error", "The host could not be read, so nothing is known of it.",
          "repair what the message says; an unknown host stops the run"),
    Entry("plan", "no_product", "error", "No known mail server is on the host.",
          "install one, or set starttls_kind"),
    Entry("plan", "two_products", "error", "More than one mail server is on the host.", "set starttls_kind"),
    Entry("plan", "daemon_not_running", "error", "The daemon does not run.",
          "start it; a change is proved on the running daemon"),
    Entry("plan", "configuration_broken", "error", "The daemon refuses its own configuration.",
          "correct it as the daemon says, before anything is added to it"),
    Entry("plan", "not_answering", "error", "The daemon runs and does not answer on its own port.",
          "find out why in its log, or correct starttls_port and starttls_own_address"),
    Entry("plan", "port_in_use", "error", "Another program uses a port that the change needs.",
          "stop that program, or choose another port"),
    Entry("plan", "no_disk_space", "error", "There is too little disk space for the change.", "make room there"),
    Entry("plan", "change_refused", "error", "The change cannot be made safely on this host.",
          "do what the message says"),
    Entry("plan", "not_reversible", "error",
          "A setting of the administrator would keep TLS from being switched off again, so it is not switched on.",
          "take out the setting that the message names, or set it so that disable_tls can go on"),
    Entry("plan", "certificate_unfit", "error", "The certificate or its key cannot be installed.",
          "give one that the message does not object to"),
    Entry("plan", "certificate_missing", "error", "There is no certificate for the host.",
          "set starttls_certificate_file and starttls_private_key_file, or install one at starttls_certificate_path"),
    Entry("plan", "certificate_not_read", "error", "The certificate that is on the host could not be looked at.",
          "correct starttls_certificate_path or starttls_private_key_path, or install the program openssl there"),
    Entry("plan", "certificate_newer_kept", "warning",
          "The host has a certificate that ends later than the one to install. It passes the same check, so it stays.",
          "give the run that one (starttls_certificate_file and starttls_private_key_file), or set starttls_certificate_replace: true to "
          "install the older one all the same"),
    Entry("plan", "certificate_newer_unfit", "error",
          "The host has a certificate that ends later than the one to install, and it does not pass the same check.",
          "set starttls_certificate_replace: true to install the one of the run in its place, or correct the one on the host"),
    Entry("plan", "certificate_not_issued", "error", "The host or the controller cannot have the certificate issued.",
          "do what the message says"),
    Entry("plan", "certificate_to_request", "error",
          "The key of the certificate is made on the host, and the authority has not issued the certificate yet.",
          "run rotate_certificate: it makes the key and writes the request (CSR); have it signed, and set starttls_certificate_file"),
    Entry("plan", "certificate_issue", "notice", "The run has a certificate issued.",
          "nothing; look at starttls_certificate_source if that is not wanted"),
    Entry("plan", "certificate_renewal_due", "warning",
          "The certificate has less than a third of its life left, and the authority is asked by a request (CSR).",
          "run rotate_certificate: it writes the request; have it signed, and set starttls_certificate_file"),
    Entry("plan", "certificate_request_void", "warning",
          "The key that waits on the host for its certificate is of another kind than the one that is wanted.",
          "nothing: a new key is made. A request (CSR) or a TLSA record for the former one is void, so have the new one signed"),
    Entry("plan", "tlsa_not_published", "error",
          "TLSA records are published for the host, and none of them fits the certificate to install: senders that check DANE would defer.",
          "publish the records of the message beside those that are there, wait for their TTL, and run again"),
    Entry("plan", "tlsa_unknown", "warning", "Whether TLSA records fit the certificate to install is not known.",
          "see whether the resolver answers (starttls_resolver)"),
    Entry("plan", "edge_server", "error", "The host is an Edge Transport server of Exchange, which is not supported.",
          "take it out of mail_servers, and set its TLS by hand"),
    Entry("plan", "exchange_not_read", "error", "Something of Exchange could not be read that the change depends on.",
          "see whether the account may read it, and starttls_exchange_reach"),
    Entry("plan", "connector_shared", "error",
          "RequireTLS on a receive connector of Exchange would also concern hosts that nobody has named.",
          "name the host that sends in starttls_peers, and it gets a receive connector of its own"),
    Entry("plan", "connector_conflict", "error", "A new connector of Exchange would get in the way of one that is there.",
          "do what the message says"),
    Entry("plan", "connector_refused", "error", "A connector of Exchange must not be changed in this way, or there is none.",
          "do what the message says"),
    Entry("plan", "internal_certificate", "error",
          "Enabling a certificate replaces the internal transport certificate of Exchange, and it could not be put back.",
          "do what the message says"),
    Entry("plan", "mode_not_expressible", "error", "The gateway cannot express the delivery mode.",
          "choose another delivery mode"),
    Entry("plan", "server_not_reachable", "error", "The gateway cannot reach a mail server.",
          "check that it runs, listens on this address and takes mail from the gateway, and that no firewall is between them"),
    Entry("plan", "server_without_starttls", "error",
          "The delivery mode needs TLS, and no handshake is completed with the mail server.",
          "switch STARTTLS on there first (enable_tls), or choose a delivery mode that does not need it"),
    Entry("plan", "server_requires_tls", "error",
          "The mail server takes mail over TLS only, and the delivery mode may deliver in plaintext.",
          "choose the delivery mode 'required', or let the mail server take plaintext first"),
    Entry("plan", "server_below_floor", "error",
          "A mail server does not reach the floor for TLS versions (starttls_min_tls) of its gateway, and mail for it would wait.",
          "update that server first, or take starttls_min_tls away for the gateway"),
    Entry("plan", "next_hop_without_starttls", "error",
          "The mail server is to send over TLS only, and no handshake is completed with its next hop.",
          "let the next hop accept TLS first, or leave starttls_outbound at 'opportunistic'"),
    Entry("plan", "peer_without_evidence", "error",
          "A mail server is to send to a peer over TLS only, and the test from it does not show that the peer takes that.",
          "switch TLS on at the peer first; starttls_require_without_evidence goes on without"),
    Entry("plan", "peer_sends_unknown", "error",
          "A mail server is to take mail over TLS only, and it is not known whether a peer that sends to it uses TLS always.",
          "let the peer require TLS first (Exchange: RequireTLS of the send connector), then set starttls_require_without_evidence"),
    Entry("plan", "peer_may_insist", "warning",
          "A mail server is to switch TLS off, and it is not known whether a peer that sends to it insists on TLS: its mail would wait.",
          "let the peer send without TLS first (Exchange: RequireTLS of the send connector off)"),
    Entry("plan", "peer_extra", "warning", "A mail server has a peer that the inventory lacks.",
          "add it to starttls_peers, or take it out: the module peer_tls with its name and state: absent"),
    Entry("plan", "peer_keeps_tls", "warning",
          "A peer that may know the mail server by what TLS shows keeps TLS: without, it would refuse the mail for good.",
          "to take it out, use the module peer_tls with its name and state: absent, or the playbook uninstall"),
    Entry("plan", "hops_in_a_circle", "error", "Mail servers that send over TLS only wait for each other.",
          "leave starttls_outbound at 'opportunistic' on one of them until all accept TLS"),
    Entry("plan", "domain_not_accepted", "error", "The gateway takes no mail for a domain of an email config.",
          "let the gateway accept the domain, or correct email_configs"),
    Entry("plan", "mail_would_loop", "error", "A gateway is itself a mail server of an email config that has a delivery mode.",
          "leave delivery_mode of the email config away; the gateway then delivers that mail itself, as before"),
    Entry("plan", "outside_limit", "error", "A host outside this run would have to change, too.",
          "take it into the run, or run without --limit"),
    Entry("plan", "email_config_extra", "warning", "The gateway has an email config that the inventory lacks.",
          "add it to email_configs; to remove it, add the same entry with state: absent"),
    Entry("plan", "delivery_mode_differs", "error",
          "The gateway delivers in another mode than the inventory wants, or than the collection set there.",
          "correct delivery_mode in email_configs, or run enable_tls, which sets the mode of the inventory"),
    Entry("plan", "delivery_mode_unknown", "warning", "The gateway does not tell in which mode it delivers the mail of a domain.",
          "see in the gateway's own routing which transport takes that domain; what is not read is not proved"),
    Entry("plan", "queue_not_empty", "warning", "Mail waits for a route that is to be removed; the change waits for it.",
          "see to its delivery first: the change waits for it as long as starttls_queue_timeout says, then refuses"),
    Entry("plan", "uninstall_incomplete", "warning", "Not everything can be put back as it was before the first change.",
          "compare these files with a backup"),
    Entry("plan", "removed_domain_accepted", "warning",
          "The gateway still takes mail for a domain of an email config that is removed.",
          "take the domain out of the gateway's list of domains, or see to its route there"),
    Entry("plan", "busy_server", "warning", "TLS for all mail would use a large share of a core of the mail server.",
          "prefer 'match_sender', or watch its load while the mode is changed"),
    Entry("plan", "interrupted_run", "warning", "A run was killed during a change, and its journal is on the host.",
          "run the playbook: it undoes that change first"),
    Entry("plan", "another_run", "error", "Another run changes the fleet and holds its lock.",
          "wait until it has ended, then run again; if it was killed, run once with -e starttls_lock_break=true"),
    Entry("plan", "lock_left", "warning", "The lock of the fleet is that of a run that does not count any more.",
          "nothing: the next run that changes something takes the lock over"),
    Entry("plan", "edits_not_read", "warning",
          "The configuration of the mail server was edited, and the running server has not read that yet.",
          "reload the mail server yourself, or see that the edit may become active: the next change reloads it"),
    Entry("plan", "weaker_way", "warning",
          "TLS is to be required of outgoing mail, and some of it keeps another TLS level.",
          "see that this mail may go in plaintext, or take the setting out that the message names"),
    Entry("plan", "tls_floor_shuts_out", "warning",
          "By the log, the floor for TLS versions (starttls_min_tls) would shut out clients or servers.",
          "ask those that the message names to update; until they have, their mail goes in plaintext (Postfix keeps it back for some "
          "minutes first), or waits where TLS is required"),
    Entry("plan", "tls_floor_not_told", "warning",
          "The log does not tell whom the floor for TLS versions (starttls_min_tls) would shut out.",
          "run enable_tls without the floor, which has Postfix log its TLS versions, and set the floor some days later"),
    Entry("plan", "tls_floor_nobody", "notice",
          "By the log, the floor for TLS versions (starttls_min_tls) shuts out nobody.",
          "nothing: see that the log covers the days on which your partners send"),
    Entry("plan", "tls_floor_not_reached", "warning",
          "A listener, a transport or a table goes on to permit older TLS versions than starttls_min_tls.",
          "change the line that the message names, or see that it has to stay"),
    Entry("plan", "tls_floor_by_hand", "warning",
          "The collection cannot set starttls_min_tls on a host of this kind.",
          "set the oldest TLS version by hand at the place that the message names, and empty starttls_min_tls for this host"),
    Entry("plan", "other_writer", "warning",
          "Another tool writes the configuration of the mail server, and may take out what this run sets.",
          "put the settings into that tool's template and set starttls_settings_only: true, or have it leave the file alone"),
    Entry("plan", "edited_since", "notice", "A file changed after the collection has changed it last.",
          "see who changed it; the plan shows which settings differ from what is wanted"),
    Entry("plan", "settings_only", "error", "The host is not to be changed (starttls_settings_only), and lacks wanted settings.",
          "put them into the template of the tool that writes the file, let it run, then run again"),
    Entry("plan", "clients_unknown", "warning",
          "The inventory has no IP address of a gateway that hands mail to Exchange, so all receive connectors at the port are meant.",
          "set starttls_address of the gateway to an address, or starttls_exchange_clients"),
    # listener
    Entry("listener", "certificates_fewer", "warning",
          "A port has certificates of several algorithms, and has fewer after the change.",
          "install a certificate whose algorithm all senders know, such as RSA, or see in the log that nobody needs the other one"),
    Entry("listener", "listener_without_tls", "error",
          "A port of a mail server does not do what its configuration says of TLS.",
          "correct what the message names, then reload the mail server; starttls_verify_ports leaves a port out"),
    Entry("listener", "socket_not_configured", "warning",
          "A mail daemon listens on a port that its configuration lacks.",
          "find out which process it is; a daemon that was not reloaded is the usual reason"),
    Entry("listener", "listener_not_listening", "warning", "A configured listener does not listen.",
          "read the log of the daemon for the reason"),
    Entry("listener", "stranger_on_mail_port", "warning", "A program that is no mail server listens on a mail port.",
          "find out what it is, and whether mail should go there"),
    Entry("listener", "listeners_not_read", "warning", "The listeners and transports of a mail server could not be read.",
          "repair what the message says; they are unknown, neither good nor bad"),
    # alert
    Entry("alert", "enforced_inbound_remote", "error",
          "Mail from an enforced domain is held back because the other side does not use TLS.",
          "ask the administrator of the domain to switch on TLS", "Enforced domain blocked, inbound"),
    Entry("alert", "enforced_inbound_local", "error",
          "Mail from an enforced domain is held back because one of your own servers does not use TLS.",
          "switch STARTTLS on at the mail servers of the recipient domain", "Enforced domain blocked, inbound"),
    Entry("alert", "enforced_outbound_remote", "error",
          "Mail to an enforced domain is held back because the other side does not fulfil the required TLS level.",
          "ask the administrator of the domain to offer STARTTLS with a certificate that passes",
          "Enforced domain blocked, outbound"),
    Entry("alert", "enforced_outbound_local", "error",
          "Mail to an enforced domain is held back because one of your own servers does not use TLS.",
          "repair TLS on the host that the alert names", "Enforced domain blocked, outbound"),
    Entry("alert", "certificate_expired", "error", "A served certificate has expired.",
          "renew it and run enable_tls.yml", "Certificate expired"),
    Entry("alert", "certificate_expiring", "warning",
          "A served certificate has less than a third of its life left, or fewer days than certificate_days; an error in the last tenth, "
          "or with a third of these days.",
          "renew it and run enable_tls.yml", "Certificate about to expire"),
    Entry("alert", "starttls_lost", "warning",
          "A partner no longer uses TLS; for one of your own servers this is an error.",
          "check the recent changes on the server", "TLS was lost"),
    Entry("alert", "tls_deferrals", "warning", "Mail waits because TLS failed.",
          "run the handshake test against the server that the alert names", "Mail waits because TLS failed"),
    Entry("alert", "mail_unproven", "warning",
          "The log of a host does not tell whether more than 1 % of its mail used TLS. This is neither proved nor plaintext.",
          "set what the notes on the log name, for example smtp_tls_loglevel = 1 in Postfix", "TLS of mail is unproven"),
    Entry("alert", "tlsrpt_failures", "warning", "Other organizations report that they could not deliver to you over TLS.",
          "run the handshake test against the MX host", "Others report TLS failures"),
)  # fmt: skip

CATALOGUE: Mapping[str, Entry] = {one.code: one for one in _ENTRIES}
"""Code -> entry, in the order of the documentation."""


def entry_of(code: str) -> Entry:
    """Return the entry of a code. Raises UnknownFindingError."""
    try:
        return CATALOGUE[code]
    except KeyError:
        raise UnknownFindingError(f"the finding {code[:80]!a} is not in the catalogue of findings") from None


def of_group(group: str) -> tuple[Entry, ...]:
    """Return the entries of a group, in order."""
    return tuple(one for one in _ENTRIES if one.group == group)


@dataclass(frozen=True)
class Finding:
    """One fault: a code of the catalogue, and a message with the fault, its place and the advice.

    Raises UnknownFindingError if the code is not in the catalogue.
    """

    code: str
    message: str

    def __post_init__(self) -> None:
        """Check that the code is in the catalogue."""
        entry_of(self.code)

    @classmethod
    def advised(cls, code: str, what: str, advice: str = "") -> Finding:
        """Return a finding whose message is the fault, then the given advice or else the catalogue's."""
        return cls(code, f"{what}; {advice or entry_of(code).advice}")

    @property
    def severity(self) -> str:
        """One of SEVERITIES."""
        return entry_of(self.code).severity

    def as_dict(self) -> dict[str, str]:
        """Return C(code), C(severity) and C(message)."""
        return {"code": self.code, "severity": self.severity, "message": self.message}


def severity_of(finding: Mapping[str, Any]) -> str:
    """Return the severity that a finding has itself, or else the catalogue's. Raises UnknownFindingError."""
    severity = finding.get("severity")
    return str(severity) if severity in SEVERITIES else entry_of(str(finding.get("code") or "")).severity


def of_result(finding: Mapping[str, Any]) -> dict[str, str]:
    """Return a finding of a given result as C(code), C(severity) and C(message). Never raises.

    The result may come from another version or from a host that is not trusted. A code outside the catalogue is kept if
    the finding has a severity, and becomes C(unknown_finding) otherwise.
    """
    code, severity, message = (str(finding.get(key) or "") for key in ("code", "severity", "message"))
    if severity not in SEVERITIES and code not in CATALOGUE:
        message = f"{message} (the code {code[:80]!a} is not in the catalogue of findings)"
        return Finding("unknown_finding", message).as_dict()
    return {
        "code": code or "unknown_finding",
        "severity": severity if severity in SEVERITIES else entry_of(code).severity,
        "message": message,
    }


def failing(findings: Sequence[Mapping[str, Any]], fail_on: str = "error") -> list[Mapping[str, Any]]:
    """Return the findings that are at least as severe as fail_on. Raises EngineError if fail_on is not a severity."""
    if fail_on not in SEVERITIES:
        raise EngineError(f"fail_on {fail_on!r} has to be one of {', '.join(SEVERITIES)}")
    fatal = SEVERITIES[: SEVERITIES.index(fail_on) + 1]
    return [one for one in findings if severity_of(one) in fatal]
