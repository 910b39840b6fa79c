"""A floor for TLS versions on Exim: what a priority string permits, and where the setting goes."""

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.atomic import FileImage
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.before import Record, texts
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.floor import Library
from ansible_collections.mailfleet.starttls.plugins.module_utils._exim.plain import PlainExim
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.model import Desired
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.permits import below
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError

from tests.unit.plugins.module_utils._exim.test_plain import Host as PlainHost
from tests.unit.plugins.module_utils._exim.test_plain import host as plain_host  # noqa: F401  (a fixture)
from tests.unit.plugins.module_utils._exim.test_server import PRINTED, SETTINGS, Host

GNUTLS, OPENSSL = Library("tls_require_ciphers"), Library("openssl_options")
BUILT = "Exim version 4.96 #2\nSupport for: crypteq iconv() IPv6 {} TLS_resume DANE\n"
OFF = ":-VERS-TLS1.0:-VERS-TLS1.1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "TLSv1"), ("NORMAL", "TLSv1"), ("SECURE256:%SERVER_PRECEDENCE", "TLSv1"), ("SUITEB128", "TLSv1.2"),
        ("NORMAL:-VERS-TLS1.0", "TLSv1.1"), ("NORMAL:-VERS-ALL:+VERS-TLS1.2:+VERS-TLS1.3", "TLSv1.2"),
        ("normal:!vers-tls1.0:-VERS-TLS1.1", "TLSv1.2"),
        ("NORMAL:-VERS-TLS-ALL:+VERS-TLS1.3", "TLSv1.3"), ("NONE:+VERS-TLS1.3:+AEAD", "TLSv1.3"), ("NORMAL:+VERS-SSL3.0", "SSLv3"),
        ("NORMAL:-VERS-ALL", ""), ("@SYSTEM", None), ("+VERS-TLS1.2", None), ("NORMAL:VERS-TLS1.2", None),
        ("${if eq{$received_port}{25}{NORMAL}{SECURE128}}", None), ("NORMAL:@OTHER", None), ("NORMAL:-VERS-DTLS1.0", "TLSv1"),
    ],
)  # fmt: skip
def test_the_oldest_version_of_a_priority_string(value, expected):
    assert GNUTLS.oldest(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "TLSv1"), ("+no_sslv2 +no_sslv3", "TLSv1"), ("+no_tlsv1 +no_tlsv1_1", "TLSv1.2"), ("+no_tlsv1_1 +no_tlsv1 -no_tlsv1", "TLSv1"),
        ("-no_sslv3", "SSLv3"), ("+all", None), ("no_tlsv1", None), ("${lookup}", None),
    ],
)  # fmt: skip
def test_the_oldest_version_of_options(value, expected):
    assert OPENSSL.oldest(value) == expected


@pytest.mark.parametrize(
    ("library", "value", "floor", "expected"),
    [
        (GNUTLS, "", "TLSv1.2", "NORMAL" + OFF),
        (GNUTLS, "SECURE128:%SERVER_PRECEDENCE", "TLSv1.2", "SECURE128:%SERVER_PRECEDENCE" + OFF),
        (GNUTLS, "NORMAL:-VERS-TLS1.0", "TLSv1.3", "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1:-VERS-TLS1.2"),
        (GNUTLS, "NORMAL:-VERS-ALL:+VERS-TLS1.3", "TLSv1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.3"),
        (OPENSSL, "", "TLSv1.2", "+no_tlsv1 +no_tlsv1_1"),
        (OPENSSL, "+no_sslv3 -no_tlsv1", "TLSv1.2", "+no_sslv3 -no_tlsv1 +no_tlsv1 +no_tlsv1_1"),
    ],
)
def test_the_administrators_own_value_stays_and_gets_the_floor(library, value, floor, expected):
    found = library.with_floor(value, floor, "the main part")
    assert found == expected
    assert library.with_floor(found, floor, "the main part") == found


def test_what_cannot_be_told_is_refused():
    with pytest.raises(EngineError, match=r"tls_require_ciphers of the main part is '@SYSTEM', and it cannot be told"):
        GNUTLS.with_floor("@SYSTEM", "TLSv1.2", "the main part")
    with pytest.raises(EngineError, match=r"which permits no TLS version from TLSv1.3 on"):
        GNUTLS.with_floor("SUITEB128", "TLSv1.3", "the main part")
    with pytest.raises(EngineError, match="GnuTLS or OpenSSL"):
        Library.of("").with_floor("", "TLSv1.2", "the main part")


def test_the_library_is_what_exim_says():
    assert Library.of(BUILT.format("GnuTLS")) == GNUTLS
    assert Library.of(BUILT.format("OpenSSL")) == OPENSSL


class Recorded(Host):
    """Debian's Exim, with what the record knows of its files."""

    def __init__(self, monkeypatch, directory, macros="", split=False, built="GnuTLS", printed=PRINTED):
        super().__init__(monkeypatch, directory, SETTINGS.replace("config='false'", f"config='{str(split).lower()}'"))
        self.transports = directory / "conf.d/transport"
        self.transports.mkdir()
        for name in ("remote_smtp", "remote_smtp_smarthost"):
            (self.transports / f"30_exim4-config_{name}").write_text(f"{name}:\n  driver = smtp\n")
        if split:
            self.macros = directory / "conf.d/main/000_localmacros"
        self.macros.write_text(macros)
        self.record = Record()
        self.answers = {
            ("exim4", "-bV"): (0, BUILT.format(built), ""),
            ("exim4", "-bP", "macros"): (0, "", ""),
            ("exim4", "-bP"): (0, f"{self.generated}\n{printed}", ""),
        }

    def plan(self, min_tls="", inbound="offered", outbound="opportunistic"):
        known, _edited = texts(self.record, self.adapter.files())
        return self.adapter.plan(Desired(inbound, outbound, str(self.certificate), was=known, min_tls=min_tls))

    def apply(self, *args):
        change = self.plan(*args)
        self.record = self.record.noted([(FileImage.read(image.path), image) for image in change.after])
        for image in change.after:
            image.write()
        assert not self.plan(*args)
        return change

    def own(self):
        return sorted(path.name for path in self.transports.glob("*mailfleet*"))


@pytest.fixture
def make(monkeypatch, tmp_path):
    return lambda *args, **more: Recorded(monkeypatch, tmp_path / "exim4", *args, **more)


def test_an_unsplit_configuration_gets_the_main_option_and_the_transports_are_named(make):
    host = make("# mine\n")
    host.apply("TLSv1.2")
    assert f"tls_require_ciphers = NORMAL{OFF}\n" in host.macros.read_text()
    assert host.own() == []
    [said] = below(host.adapter.permits("TLSv1.3").outbound, "TLSv1.3")
    assert said.startswith(
        "the transport remote_smtp goes on to permit TLSv1, which is older than TLSv1.3; write 'tls_require_ciphers = "
    )
    assert f"NORMAL{OFF}:-VERS-TLS1.2' into the transport in {host.directory}/exim4.conf.template" in said


def test_a_split_configuration_has_it_for_each_transport_too(make):
    host = make(split=True)
    change = host.apply("TLSv1.2")
    assert host.own() == [
        f"30_exim4-config_{name}_mailfleet-starttls" for name in ("remote_smtp", "remote_smtp_smarthost")
    ]
    assert (host.transports / host.own()[0]).read_text().endswith(f"\n  tls_require_ciphers = NORMAL{OFF}\n")
    permits = host.adapter.permits("TLSv1.2", change)
    assert below([*permits.inbound, *permits.outbound], "TLSv1.2") == []
    host.apply("TLSv1.3")
    host.apply("")
    assert len(host.own()) == 2
    host.apply("none")
    assert host.own() == [] and "tls_require_ciphers" not in host.macros.read_text()


def test_switched_off_everything_is_as_it_was(make):
    before = "MAIN_TLS_ENABLE = yes\nMAIN_TLS_ADVERTISE_HOSTS =\ntls_require_ciphers = SECURE128\nREMOTE_SMTP_HOSTS_AVOID_TLS = *\n"
    host = make(before, split=True)
    host.apply("TLSv1.2")
    assert f"tls_require_ciphers = SECURE128{OFF}\n" in host.macros.read_text()
    host.apply("TLSv1.2", "disabled", "disabled")
    assert host.macros.read_text() == before
    assert host.own() == []


def test_a_file_of_the_site_between_takes_the_setting_elsewhere(make):
    """What is appended would belong to the transport of that file."""
    host = make(split=True)
    (host.transports / "30_exim4-config_remote_smtp_a").write_text("mine:\n  driver = smtp\n")
    host.apply("TLSv1.2")
    assert host.own() == ["30_exim4-config_remote_smtp_smarthost_mailfleet-starttls"]
    [said] = below(host.adapter.permits("TLSv1.2").outbound, "TLSv1.2")
    assert f"into the transport in {host.directory}/conf.d/transport" in said


def test_a_transport_with_a_setting_of_its_own_gets_no_second_one(make):
    """Exim refuses an option that is set twice."""
    mine = PRINTED.replace("hosts_avoid_tls =\n", "hosts_avoid_tls =\ntls_require_ciphers = SECURE128\n")
    host = make(split=True, printed=mine)
    change = host.apply("TLSv1.2")
    assert host.own() == ["30_exim4-config_remote_smtp_smarthost_mailfleet-starttls"]
    [said] = below(host.adapter.permits("TLSv1.2", change).outbound, "TLSv1.2")
    assert said.endswith(f"let the transport say 'tls_require_ciphers = SECURE128{OFF}'")


def test_the_option_in_another_file_is_refused_with_the_line_to_change(make):
    host = make(split=True, printed=f"tls_require_ciphers = NORMAL\n{PRINTED}")
    (host.directory / "conf.d/main/90_mine").write_text("# mine\ntls_require_ciphers = NORMAL\n")
    with pytest.raises(
        EngineError,
        match=r"conf.d/main/90_mine, line 2, sets tls_require_ciphers to 'NORMAL', .* let it say 'NORMAL:-VERS",
    ):
        host.plan("TLSv1.2")


def test_the_option_in_another_file_may_be_as_strict(make):
    host = make(printed=f"tls_require_ciphers = NORMAL{OFF}\n{PRINTED}")
    host.apply("TLSv1.2")
    assert "tls_require_ciphers" not in host.macros.read_text()


def test_openssl_has_one_option_for_both_directions(make):
    host = make(split=True, built="OpenSSL")
    change = host.apply("TLSv1.2")
    assert "openssl_options = +no_tlsv1 +no_tlsv1_1\n" in host.macros.read_text()
    assert host.own() == []
    permits = host.adapter.permits("TLSv1.2", change)
    assert below([*permits.inbound, *permits.outbound], "TLSv1.2") == []


# One plain file


class Plain:
    """An Exim with one plain file, built with a library."""

    def __init__(self, host, monkeypatch, built="GnuTLS"):
        self.host = host
        monkeypatch.setattr(PlainExim, "_library", lambda _self: Library.of(BUILT.format(built)))

    def apply(self, min_tls, inbound="offered", outbound="opportunistic"):
        change = self.host.exim.plan(Desired(inbound, outbound, min_tls=min_tls, certificate="/etc/mail/pem"))
        for image in change.after:
            self.host.file.write_bytes(image.content)
        self.host.exim._printed.forget()
        return self.host.file.read_text()


@pytest.fixture
def plain(plain_host, monkeypatch):  # noqa: F811
    assert isinstance(plain_host, PlainHost)
    return Plain(plain_host, monkeypatch)


def test_the_plain_file_gets_it_within_marks_for_the_main_part_and_each_transport(plain):
    before = plain.host.file.read_text()
    text = plain.apply("TLSv1.2")
    assert text.count(f"tls_require_ciphers = NORMAL{OFF}\n") == 2  # that of the filter on this host stays as it is
    assert plain.apply("").count("tls_require_ciphers") == 2
    assert "tls_require_ciphers" not in plain.apply("none")
    plain.apply("TLSv1.3")
    assert plain.apply("TLSv1.3", "disabled", "disabled") == before


def test_the_plain_file_of_an_exim_with_openssl_gets_one_line(plain, monkeypatch):
    plain = Plain(plain.host, monkeypatch, "OpenSSL")
    text = plain.apply("TLSv1.2")
    assert text.count("openssl_options = +no_tlsv1 +no_tlsv1_1\n") == 1 and "tls_require_ciphers" not in text


def test_the_present_value_of_the_plain_file_is_kept_and_goes_on(plain):
    plain.host.main["tls_require_ciphers"] = "SECURE128"
    plain.host.file.write_text("tls_require_ciphers = SECURE128\n" + plain.host.file.read_text())
    assert f"tls_require_ciphers = SECURE128{OFF}\n" in plain.apply("TLSv1.2")


def test_of_the_collections_own_transports_those_without_a_floor_are_named(make):
    """A gateway's own part of a change gives one to those of modes and enforced domains."""
    own = ("encrypt", "hostname_smarthost", "over_tls", "peer_ex")
    heads = "".join(f"\nmailfleet_{name} transport:\ndriver = smtp\nhosts_avoid_tls =\n" for name in own)
    found = make(printed=PRINTED + heads).adapter.permits("TLSv1.2").outbound
    assert [one.name for one in found if "mailfleet" in one.name] == [
        "the transport mailfleet_over_tls",
        "the transport mailfleet_peer_ex",
    ]
