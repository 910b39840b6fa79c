# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The common options of the gateway modules."""

from __future__ import annotations


class ModuleDocFragment:
    """The fragments C(mailfleet.starttls.gateway), C(mailfleet.starttls.gateway.change), C(.queue) and C(.wanted)."""

    DOCUMENTATION = r"""
options:
  gateway:
    description:
      - The kind of gateway. C(docs/kinds.md) of the collection lists the kinds and the access to each. An unknown kind is
        refused, and the message lists the kinds.
      - Run the module on the gateway itself, so that the handshakes are made from there. For a kind with an API, the module may
        run on another host. The handshakes are then made from that host.
    type: str
    default: postfix
  address:
    description:
      - The gateway's own address. The gateway has to answer there after the change.
    type: str
    default: 127.0.0.1
  port:
    description:
      - The gateway's own port, on which it receives mail.
    type: int
    default: 25
  reinjection_port:
    description:
      - On a Postfix gateway, the first of three free ports on 127.0.0.1, for the instances that handle mail that arrived over TLS.
        With a C(content_filter) it is the first of seven. Do not change this option later, because queued mail still uses the port.
    type: int
    default: 10125
  tls_filter:
    description:
      - On a Postfix gateway with an after-queue C(content_filter), another port of that filter for mail that arrived over TLS, like
        V(scan:[127.0.0.1]:10026). The transport is one of C(master.cf). The filter has to hand back what comes in there to the
        port O(reinjection_port) + 3, V(127.0.0.1:10128) by default.
      - For amavis as Debian installs it this option is not needed. The collection gives it the ports and policy banks itself.
    type: str
  config_dir:
    description:
      - On a Haraka gateway, the directory that holds Haraka's C(config) directory.
      - Both may belong to the user whom Haraka runs as. The directories above may not, and no symbolic link in them is followed.
    type: path
    default: /etc/haraka
  exim_split:
    description:
      - On an Exim gateway, whether Debian's unsplit configuration may be moved to the split one. Only there is a place for routers that
        is no conffile of dpkg, so without it a host with an unsplit configuration is refused.
      - The move carries over what the administrator has changed in the template, and is refused if Exim would not read the same.
        O(mailfleet.starttls.gateway_tls#module:state=absent) moves back.
    type: bool
    default: false
  api_url:
    description:
      - For a gateway with an API, the address of the API, like V(https://gateway.example.com:8006).
      - By default, an environment variable of the controller, where Ansible runs. The one of this gateway is
        E(MAILFLEET_API_URL_NAME), where C(NAME) is its inventory name in upper case, with an underscore for each character that is not a
        letter or digit. Without it, E(MAILFLEET_API_URL), for all gateways.
      - The environment of the managed host is not read.
    type: str
  api_user:
    description:
      - For Proxmox Mail Gateway, the user with its realm, like V(root@pam).
      - By default from the environment of the controller, E(MAILFLEET_API_USER_NAME) or E(MAILFLEET_API_USER), see O(api_url).
    type: str
  api_password:
    description:
      - For Proxmox Mail Gateway, the password of the user.
      - By default from the environment of the controller, E(MAILFLEET_API_PASSWORD_NAME) or E(MAILFLEET_API_PASSWORD), see O(api_url).
    type: str
  api_key:
    description:
      - For mailcow, an API key with write permission.
      - By default from the environment of the controller, E(MAILFLEET_API_KEY_NAME) or E(MAILFLEET_API_KEY), see O(api_url).
    type: str
  validate_certs:
    description:
      - Whether the certificate of the API has to be valid.
    type: bool
    default: true
  ca_path:
    description:
      - PEM file of the authorities that may have issued the certificate of the API.
    type: path
  timeout:
    description:
      - Seconds for each stage of a handshake, for each request to an API, and to wait for the reloaded gateway.
    type: int
    default: 20
"""

    CHANGE = r"""
options:
  require_without_evidence:
    description:
      - Make the change even if the handshakes do not prove that the other side accepts TLS. Mail that cannot be delivered then
        stays in the queue. A change that would bounce mail is still refused.
    type: bool
    default: false
"""

    QUEUE = r"""
options:
  queue_timeout:
    description:
      - Seconds to wait until no mail waits in the queues for what is removed, such as an email config or a peer. V(0) looks once.
      - Check mode does not wait; it warns of the mail that waits now.
    type: int
    default: 300
"""

    WANTED = r"""
options:
  email_configs:
    description:
      - The email configs to set, see M(mailfleet.starttls.inbound_tls_mode). Email configs that are not listed stay as they are.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the email config.
        type: str
        required: true
      domains:
        description: Its recipient domains. Optional if the gateway knows the email config.
        type: list
        elements: str
      servers:
        description: Its mail servers, each as C(host), C(host:port) or C([address]:port). Optional if the gateway knows the email config.
        type: list
        elements: str
      delivery_mode:
        description: Its delivery mode.
        type: str
        choices: [plaintext, match_sender, match_sender_strict, opportunistic, required]
      state:
        description:
          - V(absent) removes the email config with its route, once no mail waits for its domains, see
            O(mailfleet.starttls.inbound_tls_mode#module:state). Nothing else removes one.
        type: str
        choices: [present, absent]
        default: present
  state:
    description:
      - V(plaintext) sets the delivery mode of the O(email_configs) to V(plaintext) and keeps their routes, and removes every inbound
        enforced domain and the given O(enforced_domains). O(accept) and O(send) are set as they are given.
      - V(absent) removes everything that the collection has put on the gateway, certificate included, and puts the files back as they
        were before its first change. What was edited by hand since is kept, or named and refused. No other option that changes
        something counts. It waits first until no mail is in the queues of the other instances, nor in the gateway's own queue for domains
        whose mail insists on TLS.
      - V(absent) on a gateway with an API removes the TLS policies of the given O(email_configs), see
        M(mailfleet.starttls.inbound_tls_mode).
    type: str
    choices: [present, plaintext, absent]
    default: present
  accept:
    description:
      - The connections that the gateway accepts from the mail servers, see M(mailfleet.starttls.outbound_tls_mode).
    type: str
    choices: [plaintext, both, tls_only]
  send:
    description:
      - The TLS mode for mail to the internet, see M(mailfleet.starttls.outbound_tls_mode).
    type: str
    choices: [plaintext, match_sender, match_sender_strict, opportunistic, required]
  mail_servers:
    description:
      - The addresses and networks that the mail servers connect from, for O(accept).
    type: list
    elements: str
  enforced_domains:
    description:
      - Domains for which the gateway requires TLS, see M(mailfleet.starttls.enforced_tls_domain). Domains that are not listed stay as
        they are.
    type: list
    elements: dict
    suboptions:
      domain:
        description: The domain. Subdomains do not match.
        type: str
        required: true
      direction:
        description: V(inbound) by sender domain, V(outbound) by recipient domain.
        type: str
        choices: [inbound, outbound]
        required: true
      certificate_check:
        description: The check of the certificate, outbound only.
        type: str
        choices: [encryption_only, trusted_chain, hostname]
      servers:
        description: The next hops for mail to an outbound domain. By default those of the gateway's own routes.
        type: list
        elements: str
      state:
        description: V(absent) stops to require TLS for the domain.
        type: str
        choices: [present, absent]
        default: present
  keep:
    description:
      - With O(state=absent), files that stay as they are.
    type: list
    elements: path
  enforced_ca_file:
    description:
      - Path on the gateway of the PEM file with the authorities for the certificate checks, see
        O(mailfleet.starttls.enforced_tls_domain#module:ca_file).
    type: path
"""
