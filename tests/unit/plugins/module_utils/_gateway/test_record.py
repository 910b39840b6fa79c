"""The record of what a gateway holds: its text, its format, and when a change writes it."""

import json
from pathlib import Path

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway import record
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    ACCEPTS,
    CERTIFICATE_CHECKS,
    MODES,
    SENDS,
    EmailConfig,
    EnforcedDomain,
    GatewayState,
    OutboundTls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import (
    FORMAT,
    change_with_record,
    dump,
    load,
    load_file,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.postfix_host import OwnFiles

CONFIG = {"name": "main", "domains": ["a.example"], "servers": ["mx.example"], "delivery_mode": "plaintext"}
EMPTY = {"format": FORMAT, "email_configs": [], "enforced_domains": [], "outbound": None, "ca_file": ""}

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
DOMAIN = st.lists(LABEL, min_size=2, max_size=3).map(".".join).filter(lambda name: not name[-1].isdigit())
SERVER = st.builds(Target, DOMAIN | st.ip_addresses().map(str), st.integers(1, 65535))
SERVERS = st.lists(SERVER, max_size=3, unique=True).map(tuple)
CONFIGS = st.lists(
    st.builds(
        EmailConfig,
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 _.@-]{0,20}", fullmatch=True),
        st.lists(DOMAIN, min_size=1, max_size=3, unique=True).map(tuple),
        SERVERS.filter(bool),
        st.sampled_from(MODES),
    ),
    max_size=4,
    unique_by=lambda one: one.name,
)
ENFORCED = st.lists(
    st.builds(EnforcedDomain, DOMAIN, st.just("inbound"))
    | st.builds(EnforcedDomain, DOMAIN, st.just("outbound"), st.sampled_from(CERTIFICATE_CHECKS), SERVERS),
    max_size=4,
    unique_by=lambda one: one.key,
)
NETWORK = st.ip_addresses().map(lambda address: f"{address}/{address.max_prefixlen}")
NETWORKS = st.lists(NETWORK, min_size=1, max_size=3, unique=True).map(tuple)
OUTBOUND = st.none() | st.builds(
    OutboundTls, st.sampled_from((None, *ACCEPTS)), st.sampled_from((None, *SENDS)), NETWORKS
)
PARTS = (CONFIGS, ENFORCED, OUTBOUND, st.text(max_size=20))


def made(configs=(), enforced=(), outbound=None, ca_file=""):
    return GatewayState({one.name: one for one in configs}, tuple(enforced), outbound, ca_file)


def config(mode, name="one", *domains):
    return EmailConfig(name, domains or (f"{name}.example",), (Target("mx.example"),), mode)


class TestText:
    @given(*PARTS)
    def test_load_reads_what_dump_wrote(self, configs, enforced, outbound, ca_file):
        enforced = sorted(enforced, key=lambda one: one.key)
        state = made(configs, enforced, outbound, ca_file)
        assert load(dump(state), "somewhere") == state
        assert dump(load(dump(state), "somewhere")) == dump(state)

    @given(*PARTS)
    def test_the_order_does_not_matter(self, configs, enforced, outbound, ca_file):
        text = dump(made(configs, enforced, outbound, ca_file))
        assert dump(made(reversed(configs), reversed(enforced), outbound, ca_file)) == text
        assert text.isascii()

    def test_its_shape(self):
        state = made(
            [config("required", "b"), config("match_sender", "a")],
            [
                EnforcedDomain("bank.example", "outbound", "hostname", (Target("2001:db8::1", 26),)),
                EnforcedDomain("z.example", "inbound"),
                EnforcedDomain("partner.example", "inbound"),
            ],
            OutboundTls("tls_only", "match_sender", ("192.0.2.0/24",)),
            "/etc/ca.pem",
        )
        text = dump(state)
        assert text.endswith("}\n")
        assert list(json.loads(text).items()) == [
            ("format", FORMAT),
            (
                "email_configs",
                [
                    {
                        "name": "a",
                        "domains": ["a.example"],
                        "servers": ["mx.example:25"],
                        "delivery_mode": "match_sender",
                    },
                    {"name": "b", "domains": ["b.example"], "servers": ["mx.example:25"], "delivery_mode": "required"},
                ],
            ),
            (
                "enforced_domains",
                [
                    {"domain": "partner.example", "direction": "inbound"},
                    {"domain": "z.example", "direction": "inbound"},
                    {
                        "domain": "bank.example",
                        "direction": "outbound",
                        "certificate_check": "hostname",
                        "servers": ["[2001:db8::1]:26"],
                    },
                ],
            ),
            ("outbound", {"accept": "tls_only", "send": "match_sender", "mail_servers": ["192.0.2.0/24"]}),
            ("ca_file", "/etc/ca.pem"),
        ]

    def test_a_gateway_that_holds_nothing(self):
        assert load("", "somewhere") == GatewayState()
        assert json.loads(dump(GatewayState())) == EMPTY
        assert load(dump(GatewayState()), "somewhere") == GatewayState()

    @pytest.mark.parametrize(
        "text",
        [
            "{", "[1]", "1", "null", '["a"]', "{}", " ", '[{"name": "a"}]', json.dumps([CONFIG]),
            *(json.dumps({**EMPTY, key: value}) for key, value in (
                ("email_configs", None), ("email_configs", 1), ("email_configs", [1]), ("email_configs", ["a"]),
                ("email_configs", [{"name": "a"}]), ("email_configs", [{**CONFIG, "domains": 1}]),
                ("enforced_domains", None), ("enforced_domains", ["a"]),
                ("enforced_domains", [{"domain": "a.example"}]),
                ("enforced_domains", [{"domain": "a.example", "direction": "outbound", "servers": 1}]),
                ("outbound", "x"), ("outbound", [1]), ("outbound", {"accept": "on"}), ("outbound", {"mail_servers": ["x"]}),
            )),
            *(json.dumps({key: value for key, value in EMPTY.items() if key != left}) for left in EMPTY if left != "format"),
            *(json.dumps({**EMPTY, "format": found}) for found in (None, "1", -1, True, [])),
        ],
    )  # fmt: skip
    def test_junk_names_the_place(self, text):
        with pytest.raises(
            EngineError,
            match=r"(?s)^/etc/gw/gateway\.json cannot be read \(.+\); it is written by this collection only$",
        ):
            load(text, "/etc/gw/gateway.json")

    @given(st.text(max_size=30) | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*EMPTY, *CONFIG]), inner, max_size=5),
        max_leaves=15,
    ).map(json.dumps))  # fmt: skip
    def test_whatever_it_is_it_is_read_or_refused(self, text):
        try:
            state = load(text, "somewhere")
        except EngineError as error:
            assert str(error).startswith(("somewhere cannot be read (", "somewhere was written by a newer "))
        else:
            assert load(dump(state), "elsewhere") == GatewayState(
                state.email_configs,
                tuple(sorted(state.enforced, key=lambda one: one.key)),
                state.outbound,
                state.ca_file,
            )


class TestFile:
    def test_no_file_is_an_empty_state(self, tmp_path):
        assert load_file(str(tmp_path / "gateway.json")) == GatewayState()

    def test_what_is_in_it(self, tmp_path):
        state = made([config("required")], [EnforcedDomain("p.example", "inbound")], OutboundTls(None, "required"))
        (tmp_path / "gateway.json").write_text(dump(state))
        assert load_file(str(tmp_path / "gateway.json")) == state

    @pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"\x00"])
    def test_bytes_that_are_no_text_name_the_file(self, tmp_path, content):
        path = tmp_path / "gateway.json"
        path.write_bytes(content)
        with pytest.raises(EngineError) as error:
            load_file(str(path))
        assert str(error.value).startswith(f"{path} cannot be read (")


KEPT = Path(__file__).resolve().parents[3] / "formats"
HELD = made(
    [
        EmailConfig(
            "main",
            ("example.com", "example.org"),
            (Target("mail1.example.com"), Target("2001:db8::1", 2525)),
            "match_sender",
        ),
        EmailConfig("archive", ("archive.example.com",), (Target("192.0.2.7"),), "required"),
    ],
    [
        EnforcedDomain("partner.example.net", "inbound"),
        EnforcedDomain("bank.example.net", "outbound", "hostname", (Target("mx.bank.example.net"),)),
    ],
    OutboundTls("tls_only", "opportunistic", ("192.0.2.0/24",)),
    "/etc/ssl/certs/partners.pem",
)


def kept(number):
    return (KEPT / f"gateway_{number}.json").read_text()


class TestFormats:
    @pytest.mark.parametrize("number", range(FORMAT + 1))
    def test_every_former_one_is_read(self, number):
        assert load(kept(number), "somewhere") == HELD

    def test_the_current_one_is_written(self):
        """A change of the text needs a new format and a new file; the former files stay."""
        assert dump(HELD) == kept(FORMAT)

    def test_a_newer_one_is_refused_whatever_else_is_in_it(self):
        for more in (json.loads(kept(FORMAT)), {}, {"email_configs": "something new"}):
            with pytest.raises(EngineError) as caught:
                load(json.dumps({**more, "format": FORMAT + 1}), "/etc/gw/gateway.json")
            assert str(caught.value) == (
                "/etc/gw/gateway.json was written by a newer mailfleet.starttls "
                f"(format {FORMAT + 1}; this one knows up to {FORMAT}). "
                "Update the collection on the controller, then run again; this run changed nothing"
            )


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with a table that is as it shall be, and room for a record."""
    monkeypatch.setattr(record, "FileImage", OwnFiles())
    (tmp_path / "table").write_bytes(b"as it is")
    return tmp_path


class TestChange:
    @staticmethod
    def change(place, state=HELD, table=b"as it is"):
        return change_with_record([OwnFiles()(str(place / "table"), table)], str(place / "gateway.json"), state)

    @staticmethod
    def files(change):
        return {Path(image.path).name: image.content.decode() for image in change.after}

    def test_without_a_record_one_is_written_after_the_other_files(self, place):
        assert list(self.files(self.change(place, table=b"new")).items()) == [
            ("table", "new"),
            ("gateway.json", dump(HELD)),
        ]
        assert self.files(self.change(place)) == {"gateway.json": dump(HELD)}

    @pytest.mark.parametrize("number", range(FORMAT + 1))
    def test_a_record_of_any_format_that_says_the_same_is_no_reason_for_a_change(self, place, number):
        (place / "gateway.json").write_text(kept(number))
        change = self.change(place)
        assert not change
        assert change.diff() == []

    @pytest.mark.parametrize("number", range(FORMAT))
    def test_a_former_one_is_brought_to_the_current_format_by_the_next_change(self, place, number):
        (place / "gateway.json").write_text(kept(number))
        assert self.files(self.change(place, table=b"new")) == {"table": "new", "gateway.json": kept(FORMAT)}
        assert self.files(self.change(place, GatewayState())) == {"gateway.json": dump(GatewayState())}

    @pytest.mark.parametrize("number", range(FORMAT))
    def test_another_mode_of_a_former_one_is_a_change(self, place, number):
        (place / "gateway.json").write_text(kept(number))
        (place / "gateway.json").chmod(0o600)
        assert self.files(self.change(place)) == {"gateway.json": kept(FORMAT)}

    def test_an_edit_of_a_current_one_is_undone_even_if_it_says_the_same(self, place):
        (place / "gateway.json").write_text(kept(FORMAT).replace("\n", "\n "))
        assert self.files(self.change(place)) == {"gateway.json": kept(FORMAT)}

    def test_a_newer_one_is_not_written_over(self, place):
        (place / "gateway.json").write_text(json.dumps({**EMPTY, "format": FORMAT + 1}))
        with pytest.raises(EngineError, match="written by a newer mailfleet"):
            self.change(place)
