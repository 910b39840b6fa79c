"""What a gateway holds, as a value and as the text that is kept on it."""

import json

import pytest
from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.model import (
    ACCEPTS,
    CERTIFICATE_CHECKS,
    LEVELS,
    MODES,
    SENDS,
    EmailConfig,
    EnforcedDomain,
    GatewayState,
    OutboundTls,
    dump,
    load,
    load_file,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from hypothesis import given
from hypothesis import strategies as st

CONFIG = {"name": "main", "domains": ["a.example"], "servers": ["mx.example"], "delivery_mode": "plaintext"}
EMPTY = {"email_configs": [], "enforced_domains": [], "outbound": None, "ca_file": ""}

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
            *(json.dumps({key: value for key, value in EMPTY.items() if key != left}) for left in EMPTY),
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
            assert str(error).startswith("somewhere cannot be read (")
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


class TestProperties:
    def test_an_empty_one_says_nothing(self):
        state = GatewayState()
        assert (state.levels, state.senders_enforced, state.recipients_enforced) == (("", ""), False, {})
        assert state.depends_on_arrival is False
        assert state.owner_of("a.example") is None

    @pytest.mark.parametrize("send", SENDS)
    def test_the_levels_towards_the_internet_are_those_of_the_word(self, send):
        assert made(outbound=OutboundTls(None, send)).levels == LEVELS[send]

    @pytest.mark.parametrize("accept", ACCEPTS)
    def test_nothing_is_done_about_them_while_only_the_other_side_is_set(self, accept):
        state = made(outbound=OutboundTls(accept, None, ("192.0.2.1/32",)))
        assert state.levels == ("", "")
        assert state.depends_on_arrival is False

    def test_the_directions_are_apart(self):
        inbound, outbound = EnforcedDomain("a.example", "inbound"), EnforcedDomain("b.example", "outbound", "hostname")
        assert made(enforced=[inbound]).senders_enforced is True
        assert made(enforced=[inbound]).recipients_enforced == {}
        assert made(enforced=[outbound]).senders_enforced is False
        assert made(enforced=[inbound, outbound]).recipients_enforced == {"b.example": outbound}

    @pytest.mark.parametrize("mode", MODES)
    def test_arrival_matters_for_the_modes_that_match_the_sender_on_either_side(self, mode):
        matters = mode in ("match_sender", "match_sender_strict")
        assert made([config(mode)]).depends_on_arrival is matters
        assert made([config("required", "two"), config(mode)]).depends_on_arrival is matters
        assert made(outbound=OutboundTls(None, mode)).depends_on_arrival is matters
        assert made([config("required")], outbound=OutboundTls(None, mode)).depends_on_arrival is matters

    def test_enforced_senders_alone_do_not_make_arrival_matter(self):
        assert made(enforced=[EnforcedDomain("a.example", "inbound")]).depends_on_arrival is False

    def test_the_owner_of_a_domain_is_exact(self):
        one, two = config("required", "one", "a.example", "b.example"), config("required", "two", "c.example")
        state = made([one, two])
        assert (state.owner_of("b.example"), state.owner_of("c.example")) == (one, two)
        assert state.owner_of("x.b.example") is state.owner_of("example") is None
