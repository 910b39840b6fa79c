"""Why an Exim gateway does not do what was set there, after other hands have been at its files, tables and scheme."""

import os
import re
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim import gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.engine import describe
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import MODES, OutboundTls

from tests.support.exim_host import EximHost, config, inbound, outbound, with_includes

ENFORCED = [*inbound("partner.example"), outbound("bank.example", "hostname", "mx.bank.example")]
NETWORKS = ("192.0.2.0/24",)
SECTION = re.compile(r"(?m)^(\w+):\n((?:[ \t.#].*\n|\w+ ?=.*\n)*)")


class Host(EximHost):
    """A gateway whose Exim routes, and prints its configuration, as the generated file says."""

    def run(self, arguments):
        words = list(arguments)
        if words[:2] == ["exim4", "-be"]:
            return 0, "".join(f"{self.expanded(one)}\n" for one in words[2:]), ""
        if words[:2] == ["exim4", "-bt"]:
            return 0, "".join(map(self.way, words[2:])), ""
        if words[:2] == ["exim4", "-bP"]:
            return 0, self.printed(words[2:]), ""
        return super().run(arguments)

    def stanzas(self):
        text = self.generated.read_text()
        for name in re.findall(rf"(?m)^\.include {self.directory}/(\w+)$", text):
            text = text.replace(f".include {self.directory}/{name}\n", (self.directory / name).read_text())
        macros = dict(re.findall(r"(?m)^([A-Z]\w+) = ?(.*)$", text))
        text = re.sub(
            r"(?m)^\.ifdef (\w+)\n((?:.*\n)*?)\.endif\n",
            lambda match: match[2].replace(match[1], macros[match[1]]) if match[1] in macros else "",
            text,
        )
        found = {}
        for name, lines in SECTION.findall(text):
            pairs = (line.strip().partition("=") for line in lines.splitlines() if "=" in line and line[0] != ".")
            found[name] = {option.strip(): value.strip() for option, _, value in pairs}
        return found

    def printed(self, words):
        macros = dict(re.findall(r"(?m)^([A-Z]\w+) = ?(.*)$", self.generated.read_text()))
        acl = macros.get("MAIN_ACL_CHECK_MAIL", "acl_check_mail")
        text = f"{self.generated}\nacl_smtp_mail = {acl.replace('MAILFLEET_NEXT_MAIL_ACL', 'acl_check_mail')}\n"
        text += f"tls_advertise_hosts = {macros.get('MAIN_TLS_ADVERTISE_HOSTS', '*')}\n"
        for name, options in self.stanzas().items():
            kind = "transport" if options.get("driver") == "smtp" else "router"
            if f"{kind}s" in words:
                text += f"\n{name} {kind}:\n" + "".join(f"{one} = {value}\n" for one, value in options.items())
        return text

    def expanded(self, text):
        domain, path = re.search(r"\{([^{}]+)\}(?:lsearch)?\{([^{}]+)\}", text).groups()
        if "match_domain" in text:
            return "yes" if domain in path else "no"
        try:
            table = dict(line.partition(": ")[::2] for line in Path(path).read_text().splitlines())
        except OSError as error:
            return f"Failed: {error.strerror}"
        entry = table.get(domain, "")
        return re.search(r"over_tls=(\w+)|\Z", entry)[1] or "" if "extract" in text else entry

    def way(self, address):
        domain = address.partition("@")[2]
        for name, options in self.stanzas().items():
            taken = options.get("domains", "").replace("/etc/exim4", str(self.etc))
            if name.startswith("mailfleet_over_tls") or (
                name.startswith("mailfleet_enforced") and domain not in self.table("enforced_recipients")
            ):
                continue  # a condition of theirs: how the mail arrived, and that table
            tables = [Path(path).read_text() for path in re.findall(r"lsearch;(\S+)", taken) if Path(path).exists()]
            there = any(f"\n{domain}:" in table for table in tables) or domain in taken or "exists" in taken
            if options.get("driver") == "manualroute" and there:
                word = options["transport"]
                if name == "mailfleet_inbound":
                    word = f"mailfleet_{self.table('routes')[domain]['in_plaintext']}"
                elif name == "mailfleet_enforced":
                    word = f"mailfleet_{self.table('enforced_recipients')[domain]['check']}"
                return f"{address}\n  router = {name}, transport = {word}\n"
        return f"{address} is undeliverable: Unrouteable address\n"

    def set_up(self, *modes, **more):
        self.write(*(config(mode, mode, f"{mode.replace('_', '-')}.example") for mode in modes or MODES), **more)
        self.generate()

    def generate(self):
        self.generated.write_text(self.compose())
        self.renew()

    def differences(self):
        self.renew()
        listed = describe(self.adapter, store=str(self.etc / "store"))["differences"]
        return {(one["what"], one["code"]): one["message"].replace(str(self.etc), "/etc/exim4") for one in listed}


@pytest.fixture
def host(monkeypatch, tmp_path):
    return Host(monkeypatch, tmp_path, split=True)


STRICT, WHERE = "email config match_sender_strict", "/etc/exim4/conf.d/router/050_mailfleet-starttls"
AWAY = "the router hubbed_hosts leads mail for match-sender-strict.example to the transport remote_smtp"
EVERY = {f"email config {mode}" for mode in MODES}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"enforced": ENFORCED},
        {"outbound": OutboundTls("tls_only", "match_sender_strict", NETWORKS)},
        {"outbound": OutboundTls("plaintext", "opportunistic", NETWORKS)},
    ],
)
def test_as_it_was_set(host, more):
    host.set_up(**more)
    assert host.differences() == {}


@pytest.mark.parametrize(
    ("content", "why"), [("", f"{WHERE} has no router mailfleet_inbound"), (None, f"{WHERE} is missing")]
)
def test_the_file_of_the_router(host, content, why):
    host.set_up()
    path = Path(host.split_files["routers"])
    path.unlink() if content is None else path.write_text(content)
    host.generate()
    found = host.differences()
    assert {what for what, code in found if code == "gateway_differs"} == EVERY
    assert found[STRICT, "gateway_differs"] == f"{why}; {AWAY}"


def test_the_other_scheme(host):
    host.make_template()
    host.set_up()
    host.settings.write_text("dc_use_split_config='false'\n")
    host.generate()
    assert host.differences()[STRICT, "gateway_differs"] == (
        "/etc/exim4/update-exim4.conf.conf has Exim read the unsplit configuration now (dc_use_split_config), and the collection's routers "
        f"are in {WHERE}; {AWAY}"
    )


@pytest.fixture
def unsplit(monkeypatch, tmp_path):
    """A gateway that an older version has set up in the template."""
    made = Host(monkeypatch, tmp_path, split=False)
    for section in ("router", "transport", "retry"):
        (made.etc / f"conf.d/{section}/00_exim4-config_header").write_text(
            f"begin {section}s\n".replace("retrys", "retry")
        )
    made.make_template()
    made.template.write_text(with_includes(made.template.read_text(), made.directory))
    made.renew = lambda: setattr(
        made, "adapter", gateway.EximGateway(made.run, made.adapter._settings, made.adapter.own_port)
    )
    made.renew()
    made.set_up()
    return made


def test_a_template_with_lines_of_an_older_version(unsplit):
    """Nothing is wrong yet, but the next upgrade of the package would ask about it."""
    said = "/etc/exim4/exim4.conf.template has lines of an older version of the collection, and is a conffile of exim4-config"
    assert unsplit.differences() == {("gateway", "conffile_edited"): said}


def test_a_template_that_was_replaced(unsplit):
    unsplit.make_template()
    unsplit.generate()
    assert unsplit.differences()[STRICT, "gateway_differs"] == (
        "/etc/exim4/exim4.conf.template does not include /etc/exim4/mailfleet-starttls/routers: it was replaced or edited; "
        + AWAY
    )


def test_a_router_in_front(host):
    host.set_up("required")
    text = "site:\n  driver = manualroute\n  domains = required.example\n  transport = remote_smtp\n"
    (host.etc / "conf.d/router/010_site").write_text(text)
    host.generate()
    assert host.differences() == {
        (
            "email config required",
            "gateway_differs",
        ): "the router site, which comes before the collection's, leads mail for required.example to "
        "the transport remote_smtp"
    }


def test_a_router_in_front_of_which_nobody_knows_what_it_takes(host):
    host.set_up("required", "opportunistic")
    (host.etc / "conf.d/router/010_site").write_text("site:\n  driver = accept\n  senders = me@example.com\n")
    host.generate()
    said = "a router before the collection's may lead some mail for {}.example elsewhere"
    assert host.differences() == {
        ("email config required", "gateway_unproved"): said.format("required"),
        ("email config opportunistic", "gateway_not_told"): said.format("opportunistic"),
    }


def test_an_emptied_table(host):
    host.set_up()
    (host.directory / "routes").write_text("")
    said = f"/etc/exim4/mailfleet-starttls/routes has no entry for match-sender-strict.example; {AWAY}"
    assert host.differences()[STRICT, "gateway_differs"] == said


@pytest.mark.parametrize(("old", "new"), [("over_tls=encrypt", "over_tls=may"), ("mx.example", "mx.evil.example")])
def test_another_entry(host, old, new):
    """What mail over TLS gets, or where it goes, shows in the table alone."""
    host.set_up("match_sender_strict")
    table = host.directory / "routes"
    table.write_text(table.read_text().replace(old, new))
    said = "/etc/exim4/mailfleet-starttls/routes has another entry for match-sender-strict.example"
    assert host.differences()[STRICT, "gateway_differs"] == said


def test_a_table_that_is_gone(host):
    host.set_up("required")
    (host.directory / "routes").unlink()
    assert (
        "routes cannot be looked up: Failed: No such file or directory; "
        in host.differences()["email config required", "gateway_differs"]
    )


def test_a_transport_without_its_level(host):
    host.set_up("required")
    path = Path(host.split_files["transports"])
    path.write_text(path.read_text().replace("hosts_require_tls = *", "hosts_require_tls ="))
    host.generate()
    said = "the transport mailfleet_encrypt has the TLS level 'opportunistic'"
    assert host.differences()["email config required", "gateway_differs"] == said


def test_an_option_of_our_router(host):
    host.set_up("required")
    path = Path(host.split_files["routers"])
    path.write_text(path.read_text().replace("mailfleet_inbound:\n", "mailfleet_inbound:\n  senders = !a@b.example\n"))
    host.generate()
    said = "the router mailfleet_inbound has another option senders"
    assert host.differences()["email config required", "gateway_differs"] == said


def test_enforced_domains(host):
    host.set_up("plaintext", enforced=ENFORCED, outbound=OutboundTls("tls_only", None, NETWORKS))
    (host.directory / "enforced_recipients").write_text("")
    (host.directory / "enforced_senders").write_text("")
    host.macros.write_text("")
    host.generate()
    found = host.differences()
    assert found["outbound bank.example", "gateway_differs"].startswith(
        "/etc/exim4/mailfleet-starttls/enforced_recipients has no entry for bank.example; the router hubbed_hosts leads mail"
    )
    missing = (
        "Exim's access control list for MAIL is another one: acl_smtp_mail does not name /etc/exim4/mailfleet-starttls/"
    )
    assert found["inbound partner.example", "gateway_differs"] == (
        f"{missing}enforced_sender.acl; /etc/exim4/mailfleet-starttls/enforced_senders is not as it was written: look for partner.example "
        "there"
    )
    assert found["accept", "gateway_differs"] == f"{missing}tls_only.acl"


def test_a_daemon_that_has_not_read_its_configuration(host):
    """The files are right, and the running daemon takes such mail: it is asked."""
    host.set_up("plaintext", enforced=ENFORCED)
    host.refusal = (250, "OK")
    assert host.differences() == {
        (
            "inbound partner.example",
            "gateway_differs",
        ): "Exim does not refuse such mail, so it may not have read its configuration: 250 OK"
    }


def test_what_its_next_start_would_take_away(host):
    host.set_up("required")
    Path(host.split_files["routers"]).write_text("")
    assert host.differences()["gateway", "gateway_differs"] == (
        f"at its next start Exim does not do what was set any more: {WHERE} has no router mailfleet_inbound"
    )


def test_edits_that_nothing_was_generated_from(host):
    host.set_up("required")
    site = host.etc / "conf.d/main/01_site"
    site.write_text("SITE = 1\n")
    later = host.generated.stat().st_mtime + 10
    os.utime(site, (later, later))
    assert host.differences() == {
        (
            "gateway",
            "edits_not_read",
        ): "/etc/exim4/conf.d/main/01_site changed after Exim's configuration was generated last"
    }


def test_another_level_towards_the_internet(host):
    host.set_up("plaintext", outbound=OutboundTls(None, "match_sender_strict", ()))
    path = Path(host.split_files["transports"])
    path.write_text(path.read_text().replace("hosts_require_tls = *", "hosts_require_tls ="))
    Path(host.split_files["outbound"]).write_text("")
    host.generate()
    assert host.differences()["send", "gateway_differs"] == (
        "/etc/exim4/conf.d/router/149_mailfleet-starttls has no router mailfleet_over_tls; the transport "
        "mailfleet_over_tls has the TLS level 'opportunistic'"
    )


def test_a_floor_that_somebody_took_off_a_transport(host):
    host.answers[("exim4", "-bV")] = (0, "Support for: crypteq GnuTLS DKIM\n", "")
    host.set_up("required", enforced=ENFORCED, min_tls="TLSv1.2")
    assert host.differences() == {}
    path = Path(host.split_files["transports"])
    head, mark, rest = path.read_text().partition("mailfleet_encrypt:")
    path.write_text(head + mark + rest.replace(":-VERS-TLS1.1", "", 1))
    host.generate()
    assert host.differences()["gateway", "gateway_differs"] == (
        "the floor TLSv1.2 was set, and mailfleet_encrypt may use older TLS versions"
    )
