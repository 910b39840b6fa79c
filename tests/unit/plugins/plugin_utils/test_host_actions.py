"""What the actions have in common that read or change a host: what goes to the host, and what does not."""

import base64
import datetime as dt
import hashlib
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase
from ansible_collections.mailfleet.starttls.plugins.action import (
    gateway_info,
    gateway_tls,
    mail_server_info,
    mail_server_tls,
)
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.newer import end_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Stage
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.handshake import (
    Handshake,
    Target,
    plain_results,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import issued as issuing
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.dns_server import serve
from tests.support.pki import now

NAME = "mx1.example.com"
READS = [mail_server_info, gateway_info]
CHANGES = [mail_server_tls, gateway_tls]
BOTH = [*READS, *CHANGES]
DONE = {"changed": False, "obstacles": [], "notes": []}


@pytest.fixture
def act(monkeypatch, tmp_path):
    """Runs an action plugin with options. act.ran: the module and its arguments. act.answer: what the module returns."""
    monkeypatch.setattr(ActionBase, "run", lambda *_args, **_kwargs: {})
    monkeypatch.setattr(ActionBase, "_find_needle", lambda _self, _where, name: str(tmp_path / name))

    def run(plugin, check_mode=False, async_val=0, **options):
        action = object.__new__(plugin.ActionModule)
        action._task = SimpleNamespace(args=dict(options), check_mode=check_mode, async_val=async_val, delegate_to=None)
        action._load_name = "fake"  # newer cores name it in errors
        action._connection = SimpleNamespace(transport="ssh")
        action._loader = DataLoader()
        action._execute_module = lambda module, module_args, task_vars: (
            run.ran.append((module, module_args)) or dict(run.answer)
        )
        return action.run(task_vars={})

    run.ran, run.answer, run.directory = [], DONE, tmp_path
    return run


@pytest.fixture
def issued(authority):
    return authority.issue([NAME])


def install(authority, issued, **changes):
    return {
        "private_key_content": issued.key_pem.decode(), "certificate_content": issued.fullchain_pem.decode(),
        "ca_content": authority.root_pem.decode(), "names": [NAME], **changes,
    }  # fmt: skip


def key_lines(issued):
    return [line for line in issued.key_pem.decode().splitlines() if "-----" not in line]


def whole(issued):
    return (issued.key_pem + issued.fullchain_pem).decode()


@pytest.mark.parametrize("plugin", BOTH)
def test_the_module_of_the_same_name_runs_with_the_options_of_the_task(act, plugin):
    act(plugin, inbound="offered", port=2525)
    [(module, arguments)] = act.ran
    assert module == f"mailfleet.starttls.{plugin.__name__.rpartition('.')[2]}"
    assert {name: arguments[name] for name in ("inbound", "port")} == {"inbound": "offered", "port": 2525}
    # The module has its own defaults, and may have others for what the environment of the host says.
    assert set(arguments) <= {"inbound", "port", "kind"}


@pytest.mark.parametrize("plugin", BOTH)
def test_an_option_that_is_none_is_refused(act, plugin):
    with pytest.raises(AnsibleError, match="inbuond"):
        act(plugin, inbuond="offered")
    with pytest.raises(AnsibleError, match="value of inbound must be one of: disabled, offered, required"):
        act(plugin, inbound="on")
    assert act.ran == []


@pytest.mark.parametrize("plugin", BOTH)
@pytest.mark.parametrize("nothing", [None, {}, {"names": [NAME]}, {"private_key_file": "", "certificate_content": ""}])
def test_without_a_key_and_a_certificate_none_is_installed(act, plugin, nothing):
    act(plugin, inbound="offered", **({} if nothing is None else {"install": nothing}))
    [(_module, arguments)] = act.ran
    assert not {"install", "bundle", "bundle_content"} & set(arguments)


# The certificate


@pytest.mark.parametrize("plugin", READS)
def test_a_read_sends_no_key(act, plugin, authority, issued):
    result = act(plugin, inbound="offered", install=install(authority, issued))
    [(_module, arguments)] = act.ran
    assert arguments["bundle"] == {
        "owner": "root",
        "sha256": hashlib.sha256(whole(issued).encode()).hexdigest(),
        "fingerprints": [hashlib.sha256(one).hexdigest() for one in ders(issued)],
        "ends": end_of(ders(issued)[0]),
    }
    assert "install" not in arguments
    assert not [line for line in key_lines(issued) if line in str(act.ran) + str(result)]
    assert "CERTIFICATE" not in str(arguments["bundle"]) and "bundle_content" not in arguments
    assert result["fingerprint_sha256"] == arguments["bundle"]["fingerprints"][0]


def ders(issued):
    return [one.public_bytes(Encoding.DER) for one in (issued.certificate, *issued.chain)]


@pytest.mark.parametrize("plugin", CHANGES)
def test_a_change_sends_the_whole_file_and_shows_no_key(act, plugin, authority, issued):
    result = act(plugin, inbound="offered", install=install(authority, issued, group="mail", mode="0640"))
    [(_module, arguments)] = act.ran
    assert arguments["bundle"] == {
        "owner": "root", "group": "mail", "mode": "0640",
        "sha256": hashlib.sha256(whole(issued).encode()).hexdigest(),
        "fingerprints": [hashlib.sha256(one).hexdigest() for one in ders(issued)],
        "ends": end_of(ders(issued)[0]),
    }  # fmt: skip
    assert arguments["bundle_content"] == whole(issued)
    assert "install" not in arguments
    assert not [line for line in key_lines(issued) if line in str(result)]
    assert result["certificate"]["subject"] == f"CN={NAME}"


@pytest.mark.parametrize("plugin", BOTH)
def test_files_are_read_on_the_controller(act, plugin, authority, issued):
    (act.directory / "mx.key").write_bytes(issued.key_pem)
    (act.directory / "mx.pem").write_bytes(issued.fullchain_pem)
    files = {
        "private_key_file": "mx.key",
        "certificate_file": "mx.pem",
        "private_key_content": "",
        "certificate_content": "",
    }
    act(plugin, inbound="offered", install=install(authority, issued, **files))
    [(_module, arguments)] = act.ran
    assert arguments["bundle"]["sha256"] == hashlib.sha256(whole(issued).encode()).hexdigest()


@pytest.mark.parametrize("plugin", CHANGES)
def test_a_certificate_with_a_fault_does_not_reach_the_host(act, plugin, authority):
    result = act(plugin, inbound="offered", install=install(authority, authority.issue(["other.example.com"])))
    assert (result["failed"], result["changed"], act.ran) == (True, False, [])
    assert result["msg"].startswith("The certificate was not installed and the host was not touched: [")
    assert NAME in result["msg"]


@pytest.mark.parametrize("plugin", READS)
def test_a_read_finds_the_fault_and_reads_all_the_same(act, plugin, authority):
    """The plan names it with everything else that stands in the way."""
    result = act(plugin, inbound="offered", install=install(authority, authority.issue(["other.example.com"])))
    [(_module, arguments)] = act.ran
    assert not {"install", "bundle", "bundle_content"} & set(arguments)
    assert [one["code"] for one in result["obstacles"]] == ["certificate_unfit"]
    assert "failed" not in result


@pytest.mark.parametrize("plugin", READS)
def test_a_key_that_cannot_be_read_is_a_fault_as_well(act, plugin):
    result = act(
        plugin,
        inbound="required",
        install={"private_key_file": "none.key", "certificate_content": "x", "names": [NAME]},
    )
    [finding] = result["obstacles"]
    assert finding["code"] == "certificate_unfit"
    assert "private_key_file 'none.key' cannot be read on the controller" in finding["message"]


@pytest.mark.parametrize("plugin", BOTH)
@pytest.mark.parametrize("wanted", [{}, {"inbound": "disabled"}])
def test_a_state_that_installs_no_certificate_asks_for_none(act, plugin, authority, wanted):
    """Otherwise a certificate that has expired would stand in the way of switching TLS off."""
    for issued in (authority.expired([NAME]), authority.issue([NAME])):
        result = act(plugin, **wanted, install=install(authority, issued))
        _module, arguments = act.ran.pop()
        assert not {"install", "bundle", "bundle_content"} & set(arguments)
        assert "failed" not in result and not result["obstacles"] and "fingerprint_sha256" not in result


# Reads


@pytest.mark.parametrize("plugin", READS)
def test_what_the_handshake_has_to_show_stays_on_the_controller(act, plugin):
    act(plugin, inbound="offered", handshake={"name": NAME, "min_days_left": 7})
    [(_module, arguments)] = act.ran
    assert "handshake" not in arguments and "ca_content" not in arguments


@pytest.mark.parametrize("plugin", READS)
def test_the_trust_store_goes_to_the_host(act, plugin):
    (act.directory / "roots.pem").write_text("roots")
    act(plugin, handshake={"ca_file": "roots.pem"})
    assert act.ran[0][1]["ca_content"] == "roots"
    with pytest.raises(AnsibleActionFail, match=r"ca_file 'none\.pem' cannot be read on the controller"):
        act(plugin, handshake={"ca_file": "none.pem"})
    act(plugin, handshake={"ca_content": "roots as text"})
    assert act.ran[-1][1]["ca_content"] == "roots as text"


@pytest.mark.parametrize("plugin", READS)
@pytest.mark.parametrize("answer", [{"failed": True, "msg": "no"}, {"unreachable": True, "msg": "no route"}])
def test_a_read_that_failed_says_why(act, plugin, authority, issued, answer):
    act.answer = answer
    assert act(plugin, inbound="offered", install=install(authority, issued)) == answer


# Changes


@pytest.mark.parametrize("plugin", CHANGES)
@pytest.mark.parametrize("check_mode", [False, True])
def test_a_change_that_nobody_waits_for_is_refused(act, plugin, check_mode, authority, issued):
    with pytest.raises(AnsibleActionFail) as caught:
        act(plugin, check_mode, async_val=60, inbound="offered", install=install(authority, issued))
    assert str(caught.value).startswith("async is refused for a change: nobody would undo it if the job were lost.")
    assert act.ran == []


@pytest.mark.parametrize("plugin", CHANGES)
def test_the_names_of_the_certificates_are_in_the_diff(act, plugin, authority, issued):
    former = authority.issue(["old.example.com"])
    diff = {"before": "mode: 0600\n", "after": "mode: 0640\n", "before_header": "/x", "after_header": "/x"}
    act.answer = {
        "changed": True, "diff": [diff, {"prepared": "+a\n"}], "previous_certificate": former.certificate_pem.decode(),
    }  # fmt: skip
    result = act(plugin, inbound="offered", install=install(authority, issued))
    certificate, settings = result["diff"]
    assert certificate["before"].startswith("subject: CN=old.example.com\n")
    assert certificate["after"].startswith(f"subject: CN={NAME}\n")
    assert settings == {"prepared": "+a\n"}
    assert "previous_certificate" not in result


@pytest.mark.parametrize("plugin", CHANGES)
@pytest.mark.parametrize(
    "answer", [{"failed": True, "msg": "no", "restored": True}, {"unreachable": True, "msg": "no route"}]
)
def test_a_change_that_failed_says_how(act, plugin, authority, issued, answer):
    act.answer = answer
    for given in ({}, {"install": install(authority, issued)}):
        result = act(plugin, inbound="offered", **given)
        assert {name: result[name] for name in answer} == answer


def test_the_proof_of_a_change_is_judged_on_the_controller(act, authority, issued):
    chain = tuple(one.public_bytes(Encoding.DER) for one in [issued.certificate, *issued.chain])
    seen = Handshake(Target("127.0.0.1"), Stage.EHLO_TLS, tls_version="TLSv1.3", trusted=True, chain=chain)
    act.answer = {"changed": True, "probe": plain_results([seen])}
    handshake = {"name": "other.example.com"}
    result = act(mail_server_tls, kind="postfix", inbound="offered", handshake=handshake)
    [test] = result["probe"]["results"]
    assert (test["name"], test["own"]) == ("other.example.com", True)
    assert "name_mismatch" in [one["code"] for one in test["findings"]]
    assert "handshake" not in act.ran[0][1]
    act.answer = {"changed": True, "probe": plain_results([seen])}
    assert "probe" not in act(mail_server_tls, kind="postfix", inbound="offered")  # nobody said what to expect


# The host has a certificate that ends later


def newer_on_host(authority, names=(NAME,), message=""):
    there = authority.issue(list(names), not_after=now() + dt.timedelta(days=799))
    return there, {"path": "/etc/mailfleet/starttls.pem", "pem": there.fullchain_pem.decode(), "message": message}


@pytest.mark.parametrize("plugin", READS)
def test_a_read_says_that_the_newer_one_stays_and_expects_it(act, plugin, authority, issued):
    there, told = newer_on_host(authority)
    act.answer = {**DONE, "newer": [told]}
    result = act(plugin, inbound="offered", install=install(authority, issued))
    assert (result["obstacles"], "newer" in result, len(act.ran)) == ([], False, 1)
    assert [one["code"] for one in result["notes"]] == ["certificate_newer_kept"]
    assert result["fingerprint_sha256"] == hashlib.sha256(ders(there)[0]).hexdigest()


@pytest.mark.parametrize("plugin", READS)
def test_a_read_says_that_an_unfit_newer_one_stands_in_the_way(act, plugin, authority, issued):
    _there, told = newer_on_host(authority, ["other.example.com"])
    act.answer = {**DONE, "newer": [told]}
    result = act(plugin, inbound="offered", install=install(authority, issued))
    assert [one["code"] for one in result["obstacles"]] == ["certificate_newer_unfit"]
    assert "name_not_covered" in result["obstacles"][0]["message"] and "fingerprint_sha256" not in result


@pytest.mark.parametrize("plugin", CHANGES)
def test_a_change_asks_once_and_then_names_the_one_that_stays(act, plugin, authority, issued, monkeypatch):
    there, told = newer_on_host(authority)
    answers = [{"changed": False, "newer": [told]}, {"changed": True, "diff": [], "warnings": ["of the host"]}]
    monkeypatch.setattr(
        plugin.ActionModule,
        "execute",
        lambda _self, arguments, _vars: act.ran.append(dict(arguments)) or answers.pop(0),
    )
    result = act(plugin, inbound="offered", install=install(authority, issued))
    fingerprint = hashlib.sha256(ders(there)[0]).hexdigest()
    first, second = act.ran
    assert "bundle_content" in first and "bundle_content" not in second and "keep" not in first["bundle"]
    assert second["bundle"]["keep"] == result["fingerprint_sha256"] == fingerprint
    assert "starttls_certificate_replace: true" in result["warnings"][0] and result["changed"]


@pytest.mark.parametrize("plugin", CHANGES)
def test_where_the_host_cannot_tell_the_end_the_controller_does(act, plugin, authority, issued, monkeypatch):
    there = authority.issue([NAME], not_after=now() + dt.timedelta(days=2))
    told = {"path": "/etc/mailfleet/starttls.pem", "pem": there.fullchain_pem.decode(), "message": ""}
    answers = [{"changed": False, "newer": [told]}, {"changed": True, "diff": []}]
    monkeypatch.setattr(
        plugin.ActionModule,
        "execute",
        lambda _self, arguments, _vars: act.ran.append(dict(arguments)) or answers.pop(0),
    )
    result = act(plugin, inbound="offered", install=install(authority, issued))
    second = act.ran[1]
    assert second["bundle"]["replaces"] == hashlib.sha256(ders(there)[0]).hexdigest()
    assert second["bundle_content"] and result["fingerprint_sha256"] == hashlib.sha256(ders(issued)[0]).hexdigest()
    assert result["changed"] and "replaces" not in result


@pytest.mark.parametrize("plugin", CHANGES)
def test_a_change_with_an_unfit_newer_one_fails_before_it_changes_anything(act, plugin, authority, issued):
    _there, told = newer_on_host(authority, message="its private key belongs to another certificate")
    act.answer = {"changed": False, "newer": [told]}
    result = act(plugin, inbound="offered", install=install(authority, issued))
    assert (result["failed"], result["changed"], len(act.ran)) == (True, False, 1)
    assert "its private key belongs to another certificate" in result["msg"]


@pytest.mark.parametrize("plugin", CHANGES)
def test_a_file_that_changes_again_in_between_is_not_guessed_at(act, plugin, authority, issued):
    _there, told = newer_on_host(authority)
    act.answer = {"changed": False, "newer": [told]}
    with pytest.raises(AnsibleActionFail, match="changed while this task looked at it"):
        act(plugin, inbound="offered", install=install(authority, issued))


@pytest.mark.parametrize("plugin", BOTH)
def test_with_replace_the_host_is_told(act, plugin, authority, issued):
    act(plugin, inbound="offered", install=install(authority, issued, replace=True))
    assert act.ran[0][1]["bundle"]["replace"] is True


# A certificate that is issued for a key of the host


def part(**changes):
    return {
        "path": "/etc/mailfleet/starttls.pem", "pem": "", "public_key": "", "pending": "", "due": "there is none yet", "anew": False,
        "message": "", **changes,
    }  # fmt: skip


def by_command(authority, **more):
    return {"names": [NAME], "ca_content": authority.root_pem.decode(), "command": ["/bin/true"], **more}


@pytest.mark.parametrize("plugin", READS)
def test_a_read_asks_nothing_to_be_made_and_says_who_will_issue(act, plugin, authority):
    act.answer = {**DONE, "issued": [part()]}
    result = act(plugin, inbound="offered", certificate_source="command", install=by_command(authority))
    [(_module, arguments)] = act.ran
    assert arguments["bundle"]["issue"]["source"] == "command" and "bundle_content" not in arguments
    assert [one["code"] for one in result["notes"]] == ["certificate_issue"]
    assert result["obstacles"] == [] and "issued" not in result


@pytest.mark.parametrize("plugin", READS)
def test_a_read_asks_again_if_what_is_there_does_not_pass(act, plugin, authority):
    other = authority.issue(["other.example.com"])
    seen = part(due="", pem=other.fullchain_pem.decode(), public_key=spki(other))
    act.answer = {**DONE, "issued": [seen]}
    act(plugin, inbound="offered", certificate_source="command", install=by_command(authority))
    assert [arguments["bundle"]["issue"].get("force", False) for _module, arguments in act.ran] == [False, True]


def spki(issued):
    key = issued.certificate.public_key()
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


@pytest.mark.parametrize("plugin", READS)
def test_a_certificate_that_is_fine_is_expected_and_not_issued(act, plugin, authority, issued):
    act.answer = {**DONE, "issued": [part(due="", pem=issued.fullchain_pem.decode(), public_key=spki(issued))]}
    with serve() as dns:
        result = act(plugin, inbound="offered", certificate_source="acme", install={
            "names": [NAME], "ca_content": authority.root_pem.decode(), "acme_challenge": "standalone", "resolver": [dns.address],
        })  # fmt: skip
    assert (result["obstacles"], result["notes"], len(act.ran)) == ([], [], 1)
    assert result["fingerprint_sha256"] == hashlib.sha256(ders(issued)[0]).hexdigest()


@pytest.mark.parametrize("plugin", CHANGES)
def test_a_change_has_it_issued_first_and_sends_no_key(act, plugin, authority, issued, monkeypatch):
    made = part(csr="CSR", key="/var/lib/mailfleet-starttls/pending+x.key", pending=spki(issued))
    given = [{"changed": True, "issued": [made]}, {"changed": True, "diff": []}]
    monkeypatch.setattr(issuing, "_checked_request", lambda text, _key, _names: text)
    monkeypatch.setattr(
        issuing, "sign", lambda _words, text, _names: issued.fullchain_pem.decode() if text == "CSR" else ""
    )
    action = plugin.ActionModule
    monkeypatch.setattr(
        action, "execute", lambda _self, arguments, _vars: act.ran.append(("change", arguments)) or given[1]
    )
    act.answer = given[0]
    result = act(plugin, inbound="offered", certificate_source="command", install=by_command(authority))
    (asked, options), (_change, arguments) = act.ran
    assert asked == "mailfleet.starttls.tls_certificate" and options["issue"]["names"] == [NAME]
    assert arguments["bundle"]["private_key"] == made["key"] and arguments["bundle"]["replace"]
    assert arguments["bundle_content"] == issued.fullchain_pem.decode()
    assert result["fingerprint_sha256"] == hashlib.sha256(ders(issued)[0]).hexdigest()


@pytest.mark.parametrize("plugin", CHANGES)
def test_a_change_stops_if_the_host_cannot_make_a_key(act, plugin, authority):
    act.answer = {"failed": True, "msg": "the program openssl is not on the host"}
    result = act(plugin, inbound="offered", certificate_source="command", install=by_command(authority))
    assert (result["failed"], len(act.ran)) == (True, 1)


@pytest.mark.parametrize("plugin", READS)
def test_a_host_without_tls_is_not_renewed(act, plugin, authority, issued):
    act.answer = {**DONE, "before": {"inbound": "disabled", "outbound": "disabled"}}
    bad = install(authority, issued, names=["other.example.com"])
    result = act(plugin, inbound="renewed", install=bad)
    assert result["obstacles"] == [] and "fingerprint_sha256" not in result


@pytest.mark.parametrize("plugin", READS)
def test_a_read_has_the_records_for_the_renewal_hook_although_it_does_not_check_them(act, plugin, authority, issued):
    where, other = f"_25._tcp.{NAME}", "3 1 1 " + "ab" * 32
    on_host = {
        "certificate": "/live/fullchain.pem", "private_key": "/live/privkey.pem", "message": "", "pem": issued.fullchain_pem.decode(),
        "public_key": base64.b64encode(
            issued.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ).decode(),
    }  # fmt: skip
    with serve(secure=True) as dns:
        given = {"names": [NAME], "ca_content": authority.root_pem.decode(), "resolver": [dns.address]}
        dns.add(where, "TLSA", other)

        def read(inbound="offered", before="offered", **install):
            act.answer = {**DONE, "before": {"inbound": before}, "on_host": on_host}
            return act(plugin, inbound=inbound, certificate_source="host", install={**given, **install})

        seen = read()
        assert [one["name"] for one in seen["published_tlsa"]] == [where]
        assert (seen["obstacles"], [one["code"] for one in seen["notes"]]) == ([], ["tlsa_not_published"])
        assert [one["code"] for one in read(check_tlsa=True)["obstacles"]] == ["tlsa_not_published"]
        dns.questions.clear()
        assert "published_tlsa" not in read("renewed", before="disabled") and "published_tlsa" not in read("disabled")
        assert dns.questions == [], "a host that offers no TLS is not looked up"
