"""Each module with arguments that it accepts, and what becomes of a value: refused, or written where it can be seen.

A module of hosts runs as Ansible runs it (hostile_hosts). The others are functions of the engine, called as their module or
action plugin calls them.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.mailfleet.starttls.plugins.module_utils import ansible_gateway
from ansible_collections.mailfleet.starttls.plugins.module_utils._activity.engine import read_activity
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.due import issue_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.install import BundleFile, install
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.issuing import certbot_words, check_names
from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate.options import HOST_ISSUE_SPEC
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.api import Response
from ansible_collections.mailfleet.starttls.plugins.module_utils._change.fleet_lock import read_lock, take_lock
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook import telling
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.installing import check, textfile_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.options import configuration_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._hook.renewal import Renewed
from ansible_collections.mailfleet.starttls.plugins.module_utils._probe.engine import Request
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.peer import peers_of
from ansible_collections.mailfleet.starttls.plugins.module_utils._server.waiting_mail import read_waiting, try_again
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.dialogue import Dialogue
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import Target
from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.engine import Trace, places_of, run_trace
from ansible_collections.mailfleet.starttls.plugins.module_utils.ansible_server import desired_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.log import LOGS
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.product import layout_of, permissions, resolve
from ansible_collections.mailfleet.starttls.plugins.module_utils.kinds.queue import queue_of
from ansible_collections.mailfleet.starttls.plugins.module_utils.option_values import (
    refuse_control_characters,
    refuse_null_characters,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.client import judge_client_certificate
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.inputs import check_inputs, check_install
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates.issued import planned
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.options import completed
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.exchange.task import ExchangeTask
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.fleet_lock import hours_of, refusal
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.observed_results import complete_observed
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.outcome import check_step
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.task import plan_of_run, write_plan
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.probe_results import Inquiry
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.recovery.table import recovery_result, write_json
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.outputs import write_report
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.report.table import fleet_verdict
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support import fake_mailcow, fake_proxmox, hostile_hosts
from tests.support.ansible_module import run_module
from tests.support.exchange_host import ExchangeHost
from tests.support.hostile import PLUGINS, TOKEN, module_specs
from tests.support.pki import self_signed
from tests.support.report_rows import WINDOW, demo_rows

SPECS = module_specs()
ISSUED = self_signed(["mx.example"])
PEM = {"private_key_content": ISSUED.key_pem.decode(), "certificate_content": ISSUED.fullchain_pem.decode()}
SECOND = self_signed(["mx.example"], key="rsa")
MORE = {
    "more": [
        {
            "private_key_content": SECOND.key_pem.decode(),
            "certificate_content": SECOND.fullchain_pem.decode(),
            "ports": [465],
            "names": ["mx.example"],
        }
    ]
}
CERTIFICATE = "/etc/mailfleet/starttls.pem"
CONFIG = {"name": "main", "domains": ["good.example"], "servers": ["mx.example"], "delivery_mode": "match_sender"}
PARTNER = {"domain": "partner.example", "direction": "outbound", "servers": ["mx.partner.example"]}
WHOLE = {
    "email_configs": [CONFIG], "mail_servers": ["192.0.2.1"], "accept": "tls_only", "send": "required",
    "enforced_domains": [PARTNER, {"domain": "bank.example", "direction": "inbound"}], "enforced_ca_file": "/etc/hosts",
}  # fmt: skip
INSIST = {"require_without_evidence": True}


class Answer(NamedTuple):
    """What became of a value. said: the refusal, empty if there is none. sinks: where the value went, each with its format."""

    said: str
    sinks: tuple[tuple[str, str], ...] = ()


Judge = Callable[[Mapping[str, Any]], Answer]


class Case(NamedTuple):
    """A module, the kind of host, and good arguments. open: a context that yields the judge of arguments."""

    module: str
    kind: str
    arguments: Mapping[str, Any]
    open: Callable[[Path], contextlib.AbstractContextManager[Judge]]


def _on_host(module: str, kind: str, arguments: Mapping[str, Any]) -> Case:
    """A module that changes files of Postfix or Exim, run to the point where it would write them."""
    program = importlib.import_module(f"{PLUGINS}.modules.{module}")
    main = program.main
    word = "kind" if module.startswith("mail_server") else "gateway"
    given = {**arguments, word: kind}

    @contextlib.contextmanager
    def opened(root: Path) -> Iterator[Judge]:
        with hostile_hosts.host(kind, root, program) as written:
            usual = _obstacles(run_module(main, check_mode=True, **given))

            def judge(options: Mapping[str, Any]) -> Answer:
                written.clear()
                if refused := _refused_before(options):
                    return Answer(refused)
                result = run_module(main, check_mode=True, **options)
                said = result.get("msg", "") if result.get("failed") else _obstacles(result)
                return Answer("" if said == usual else said, tuple(("file", line) for line in written.holds(TOKEN)))

            yield judge

    return Case(module, kind, given, opened)


def _obstacles(result: Mapping[str, Any]) -> str:
    return " | ".join(one["message"] for one in result.get("obstacles", ()))


def _refused_before(options: Mapping[str, Any]) -> str:
    """What the controller says, before the host gets the options; empty if it lets them pass."""
    try:
        refuse_null_characters(options)
    except EngineError as error:
        return str(error)
    return ""


def _with_api(kind: str, arguments: Mapping[str, Any], fake: Callable[[], Any]) -> Case:
    """A gateway with an API: the sinks are the requests."""
    module = "inbound_tls_mode"
    main = importlib.import_module(f"{PLUGINS}.modules.{module}").main

    @contextlib.contextmanager
    def opened(_root: Path) -> Iterator[Judge]:
        with pytest.MonkeyPatch.context() as patch:
            sinks: list[tuple[str, str]] = []
            patch.setattr(hostile_hosts.evidence, "handshake_all", hostile_hosts.handshakes)

            def client(_module: Any) -> Any:
                answer = fake()

                def http(method: str, url: str, headers: Mapping[str, str], body: Any) -> Any:
                    sinks.extend(("header", one) for one in headers.values())
                    sinks.append(("url", url))
                    sinks.append(("body", (body or b"").decode()))
                    said = answer.handle(method, urlsplit(url).path, dict(headers), body or b"")
                    return Response(said.status, said.data)

                return http

            patch.setattr(ansible_gateway, "http_client", client)

            def judge(options: Mapping[str, Any]) -> Answer:
                sinks.clear()
                if refused := _refused_before(options):
                    return Answer(refused)
                result = run_module(main, check_mode=True, **options)
                held = tuple((kind, text) for kind, text in sinks if TOKEN in text)
                return Answer(result.get("msg", "") if result.get("failed") else "", held)

            yield judge

    return Case(module, kind, {**arguments, "gateway": kind}, opened)


def _of_engine(
    module: str,
    arguments: Mapping[str, Any],
    work: Callable[[dict[str, Any], Path], list[tuple[str, str]]],
    kind: str = "",
) -> Case:
    """A function of the engine, behind the checks that come before it."""

    @contextlib.contextmanager
    def opened(root: Path) -> Iterator[Judge]:
        root.mkdir()

        def judge(options: Mapping[str, Any]) -> Answer:
            checked = ArgumentSpecValidator(SPECS[module]).validate(options)
            if checked.error_messages:
                return Answer("; ".join(checked.error_messages))
            try:
                refuse_control_characters(SPECS[module], checked.validated_parameters)
                sinks = work(checked.validated_parameters, root)
            except (EngineError, ValueError, OSError) as error:
                if type(error) is ValueError and module != "starttls_probe":
                    raise  # a traceback; starttls_probe alone reports it
                return Answer(str(error))
            return Answer("", tuple((form, text) for form, text in sinks if TOKEN in text))

        yield judge

    return Case(module, kind, arguments, opened)


def _findings(findings: Any) -> None:
    if findings:
        raise EngineError("; ".join(one.message for one in findings))


def _more_on_host(options: dict[str, Any], _root: Path) -> list[tuple[str, str]]:
    given = {"outbound": None, "relax": True, "only_relax": False, "require_without_evidence": False, **options}
    wanted = desired_of({**given, "inbound": "offered", "certificate_source": "host", "bundle": None}, "postfix")
    wanted.check()
    return [("file", f"smtpd_tls_chain_files = {path}") for pair in wanted.pairs for path in pair if path]


def _install(options: dict[str, Any], _root: Path) -> list[tuple[str, str]]:
    read: list[tuple[str, str]] = []
    checked = check_install(options["install"], options["certificate"], lambda path, _size: _read(read, path))
    if checked:
        _findings(checked.findings)
        bundle = {"group": None, "mode": None, **checked.bundle(), "content": checked.served}
        group, mode = permissions({**bundle, "state": "present", "kind": ""})
        file = BundleFile(
            options["certificate"], content=bundle["content"], owner=bundle["owner"], group=group, mode=mode
        )
        install(file, check_mode=True)
    handshake = options.get("handshake") or {}
    if handshake:
        result: dict[str, Any] = {"certificates": [], "changes": [], "obstacles": [], "notes": []}
        complete_observed(result, handshake, None, "")
    return read


def _read(read: list[tuple[str, str]], path: str) -> bytes:
    read.append(("path", path))
    raise EngineError("there is no such file")


def _certificate(options: dict[str, Any], _root: Path) -> list[tuple[str, str]]:
    read: list[tuple[str, str]] = []
    checked = check_inputs(options, lambda path, _size: _read(read, path))
    _findings(checked.findings)
    given = {"group": None, "mode": None, **checked.arguments}
    file = BundleFile.of_options(given, *permissions({**given, "kind": given["kind"] or ""}))
    return [*read, ("path", install(file, check_mode=True)["path"])]


def _issued(options: dict[str, Any], _root: Path) -> list[tuple[str, str]]:
    """What the host is asked and certbot is told; where a request is written."""
    read: list[tuple[str, str]] = []
    checked = planned(options, options["path"], options["source"], lambda path, _size: _read(read, path))
    _findings(checked.findings)
    given = {name: option.get("default") for name, option in HOST_ISSUE_SPEC.items()}
    issue = issue_of({**given, **(checked.issue or {})}, options["path"])
    check_names(issue.names)
    words = certbot_words(issue, 0, True) if options["source"] == "acme" else []
    sinks = [("path", options["csr_file"] or "")] if options["source"] == "csr" else []
    return [*read, *sinks, *(("argument", word) for word in words)]


def _hook(options: dict[str, Any], _root: Path) -> list[tuple[str, str]]:
    kind = resolve(options["kind"], "server", "kind")
    plan = configuration_of(options, kind, layout_of("postfix"), textfile_of(options["textfile"]))
    check(plan)
    line = telling.line_of(Renewed(plan.certificates[0].name, "refused", plan.certificates[0].names[0]))
    return [("json", plan.text()), ("terminal", line), ("path", plan.textfile)]


def _trace(options: dict[str, Any], _root: Path) -> list[tuple[str, str]]:
    sent: list[tuple[str, str]] = []

    def submit(command: Any, message: bytes) -> tuple[int, str, str]:
        sent.extend(("argument", one) for one in command)
        sent.extend(("header", one) for one in message.decode().splitlines())
        return 0, "", ""

    options = {name: value for name, value in options.items() if name != "imap_passwords"}
    trace = Trace(**options)
    trace.check()
    places_of(trace.receive, trace.look_timeout, trace.timeout)
    run_trace(Trace(**{**options, "receive": []}), submit)
    for one in trace.receive:
        sent.extend(("argument", word) for word in one["command"] or ())
        sent.append(("path", one["mailbox"] or ""))
    return sent


def _probe(options: dict[str, Any], _root: Path) -> list[tuple[str, str]]:
    Inquiry.of_options(options)
    request = Request.of_options(options)
    dialogue = Dialogue(request.probe.settings.helo_name)
    dialogue.receive(b"220 mx.example ESMTP\r\n")
    sinks = [("header", dialogue.take_output().decode().rstrip("\r\n")), ("path", options["ca_file"] or "")]
    return [*sinks, *(("name", one.server_name) for one in request.targets)]


def _exchange(options: dict[str, Any], root: Path) -> list[tuple[str, str]]:
    """Check mode reads the server and plans. What would go to cmdlets is in the diff."""
    read: list[tuple[str, str]] = []
    sinks: list[tuple[str, str]] = []
    host = ExchangeHost()

    def execute(module: str, given: Mapping[str, Any]) -> dict[str, Any]:
        sinks.extend(("argument", value) for value in given.values() if isinstance(value, str))
        return host.execute(module, given)

    source = {"certificate_source": "files", "certificate": CERTIFICATE}
    checked = check_install(options["install"], source["certificate"], lambda path, _size: _read(read, path))
    if checked:
        _findings(checked.findings)
    given = completed({"journal": str(root), **options}, {}, lambda value: value)
    task = ExchangeTask(execute, "ex1", given, {"inventory_hostname": "ex1"})
    result = task.change(checked, check_mode=True)
    if result.get("failed"):
        raise EngineError(result["msg"])
    shown = [line for one in result["diff"] for line in f"{one['before']}{one['after']}".splitlines()]
    return [*read, *sinks, *(("terminal", line) for line in shown)]


def _peers(options: dict[str, Any], _root: Path) -> list[tuple[str, str]]:
    peers = peers_of(options["peers"])
    own = Target(options["address"], options["port"])
    own.check()
    dialogue = Dialogue(options.get("helo_name") or "")
    dialogue.receive(b"220 mx.example ESMTP\r\n")
    sinks = [("header", dialogue.take_output().decode().rstrip("\r\n"))]
    for one in peers:
        sinks += [("header", address) for address in (one.proof_sender, one.proof_recipient)]
        sinks += [("path", path) for path in (one.client_certificate, one.client_key, one.pin_issuer_file)]
        sinks += [("name", name) for name in (*map(str, one.hosts), *one.names, one.servername, one.tls_domain)]
    judged = judge_client_certificate("exchange_online", {**SEEN, "message": ""}, options.get("accepted_domains") or ())
    return [*sinks, *(("terminal", finding.message) for finding in judged)]


def _activity(options: dict[str, Any], _root: Path) -> list[tuple[str, str]]:
    counted = read_activity(
        options,
        lambda tally, since, until: LOGS[resolve(options["daemon"], "log", "daemon")](
            tally, since, until, lambda _words: (1, "", "")
        ),
    )
    return [("path", one) for one in counted["sources"]]


def _queues(options: dict[str, Any], _root: Path) -> list[tuple[str, str]]:
    started: list[str] = []

    def run(words: Sequence[str]) -> tuple[int, str, str]:
        started.extend(words)
        return 0, "", ""

    queue = queue_of(options["kind"], run)
    if "recipients" in options:
        read_waiting(queue, options["recipients"], options["message_ids"])
    else:
        try_again(queue, options["next_hops"], options["timeout"])
    return [("argument", one) for one in started]


def _recovery(options: dict[str, Any], root: Path) -> list[tuple[str, str]]:
    hostvars = {one: {} for one in (*options["hosts"], "localhost")}
    result, text = recovery_result(options["stage"], options["hosts"], hostvars, {})
    sinks = [("terminal", line) for line in text.splitlines()]
    if options["json_file"]:
        path = options["json_file"] if options["json_file"].startswith("/") else str(root / options["json_file"])
        write_json(path, result)
        sinks.append(("path", path))
    return sinks


def _plan(options: dict[str, Any], root: Path) -> list[tuple[str, str]]:
    plan = plan_of_run(options, {"m1": {}}, {"mail_servers": ["m1"]})
    if options["json_file"]:
        path = options["json_file"] if options["json_file"].startswith("/") else str(root / options["json_file"])
        write_plan(path, plan)
        return [("path", path)]
    return [("json", json.dumps(plan.to_json()))]


def _report(options: dict[str, Any], root: Path) -> list[tuple[str, str]]:
    sinks = []
    for form in ("html", "json", "csv", "junit", "prometheus"):
        given = [{**one, "format": form, "path": str(root / one["path"])} for one in options["outputs"]]
        for made in write_report({**options, "outputs": given}, check_mode=False)["paths"]:
            sinks.append((form, Path(made).read_text()))
            sinks.append(("path", made))
    return sinks


def _verdict(options: dict[str, Any], _root: Path) -> list[tuple[str, str]]:
    return [("terminal", line) for line in fleet_verdict(**options)[1].splitlines()]


def _outcome(options: dict[str, Any], _root: Path) -> list[tuple[str, str]]:
    result, text = check_step(options["plan"], options["step"], {}, ())
    return [("terminal", text), ("json", json.dumps(result))]


def _lock(options: dict[str, Any], root: Path) -> list[tuple[str, str]]:
    """Another run is refused, and shows what the first one said of itself."""
    hours, store = hours_of(options["hours"]), str(root / "lock")
    holder = {"user": "alice", "controller": "control.example.com", "run": "a1", "process": ""}
    take_lock({**holder, "playbook": options["playbook"]}, 1_800_000_000.0, hours, store=store)
    seen = read_lock(1_800_000_060.0, store)
    return [("terminal", refusal("gw1", seen, hours)), ("json", json.dumps(seen))]


PLAN = {"hosts": {}, "steps": {"offer": {"hosts": []}}}
LANDINGS = [
    {"marker": "m1", "mailbox": "/var/mail/trace"},
    {"marker": "m2", "imap": {"host": "imap.example", "user": "u", "password": "p", "ca_content": "x", "ca_file": "/x"}},
    {"marker": "m3", "command": ["doveadm"]},
]  # fmt: skip
TARGETS = [{"host": "mx.example", "name": "mx.example", "domain": "good.example", "fingerprint_sha256": "a" * 64}]
SEEN = {
    "certificate": "/c.pem", "private_key": "/c.pem", "pem": ISSUED.fullchain_pem.decode(),
    "public_key": base64.b64encode(ISSUED.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode(),
}  # fmt: skip
RENEWED = {
    "name": "mx.example", "names": ["mx.example"], "listeners": [{"host": "127.0.0.1", "name": "mx.example"}],
    "pairs": [{"private_key": "/k.pem", "certificate": "/c.pem", "chain": "/ch.pem", "path": "/etc/mailfleet/starttls.pem"}],
    "ca_content": ISSUED.certificate_pem.decode(), "policy": {"min_days_left": "7", "warn_days_left": "14"},
    "tlsa": [{"name": "_25._tcp.mx.example", "usage": 3, "selector": 1, "matching_type": 1, "data": "00ff"}],
}  # fmt: skip
PEER = {
    "name": "one", "kind": "exchange_online", "hosts": ["mx.example"], "domains": ["good.example"], "direction": "both",
    "check": "hostname", "names": ["mx.example"], "servername": "mx.example", "client_certificate": "/etc/c.pem",
    "client_key": "/etc/c.key", "proof_sender": "a@good.example", "proof_recipient": "b@good.example", "tls_domain": "mx.example",
}  # fmt: skip
EXCHANGE_PEER = {
    "name": "one", "hosts": ["mx.example"], "domains": ["good.example"], "direction": "both", "check": "hostname",
    "tls_domain": "mx.example",
}  # fmt: skip
EXCHANGE = {
    "inbound": "offered", "outbound": "required", "clients": ["192.0.2.1"], "next_hops": ["gw1.example.com"], "server": "EX1",
    "session_uri": "http://ex1.example.com/PowerShell/", "check": "hostname", "tls_domain": "gw1.example.com", "ecc": True,
    "address": "192.0.2.2", "require_without_evidence": True,
    "install": {**PEM, **MORE, "names": ["mx.example"], "allow_self_signed": True},
}  # fmt: skip
PINNED = {"name": "two", "hosts": ["mx.example"], "domains": ["other.example"], "check": "pin"}
API = {"email_configs": [{**CONFIG, "domains": ["example.com"], "delivery_mode": "required"}], **INSIST}
INSTALL = {"install": {**PEM, **MORE, "names": ["mx.example"], "allow_self_signed": True}, "certificate": CERTIFICATE}
FURTHER = {
    "certificate_path": "/live/rsa.pem",
    "private_key_path": "/live/rsa.key",
    "ports": [465],
    "names": ["mx.example"],
}
HANDSHAKE = {"handshake": {"name": "mx.example"}}

CASES: list[Case] = [
    *(
        _on_host(module, kind, arguments)
        for kind in ("postfix", "exim")
        for module, arguments in (
            ("gateway_tls", {**WHOLE, **INSIST}),
            ("gateway_tls", {"inbound": "offered", "certificate": CERTIFICATE}),
            ("gateway_info", {**WHOLE, "inbound": "offered", "domains": ["good.example"], "targets": [{"host": "a.example"}]}),
            ("inbound_tls_mode", {**CONFIG, **INSIST}),
            ("inbound_tls_mode", {"email_configs": [CONFIG], **INSIST}),
            ("inbound_tls_mode_info", {}),
            ("outbound_tls_mode", {"accept": "tls_only", "send": "required", "mail_servers": ["192.0.2.1"], **INSIST}),
            ("enforced_tls_domain", {**PARTNER, "ca_file": "/etc/hosts", **INSIST}),
            ("enforced_tls_domain", {"enforced_domains": [PARTNER], "ca_file": "/etc/hosts", **INSIST}),
            ("mail_server_tls", {"inbound": "offered", "certificate": CERTIFICATE}),
            ("mail_server_info", {"inbound": "offered", "certificate": CERTIFICATE}),
        )
    ),
    _with_api(
        "proxmox",
        {**API, "api_url": "https://gw.example:8006", "api_user": "root@pam", "api_password": fake_proxmox.PASSWORD},
        lambda: fake_proxmox.FakeProxmox(transports=[{"domain": "example.com", "host": "mx.example", "port": 25, "use_mx": 0}]),
    ),
    _with_api(
        "mailcow",
        {**API, "api_url": "https://gw.example", "api_key": fake_mailcow.KEY},
        lambda: fake_mailcow.FakeMailcow(transports=[("example.com", "[mx.example]:25")]),
    ),
    *(_of_engine(module, INSTALL, _install, "install") for module in ("gateway_tls", "mail_server_tls")),
    *(
        _of_engine(module, {**INSTALL, **HANDSHAKE}, _install, "install")
        for module in ("gateway_info", "mail_server_info")
    ),
    _of_engine("mail_server_tls", HANDSHAKE, _install, "handshake"),
    *(
        _of_engine(module, {"more_on_host": [FURTHER]}, _more_on_host, "more on the host")
        for module in ("gateway_tls", "gateway_info", "mail_server_tls", "mail_server_info")
    ),
    _of_engine("tls_certificate", {**PEM, **MORE, "names": ["mx.example"], "allow_self_signed": True}, _certificate),
    *(
        _of_engine("tls_certificate", {"source": source, "names": ["mx.example"], **more}, _issued, source)
        for source, more in (
            ("csr", {"csr_file": "mx.csr"}),
            ("command", {"command": ["/bin/true"]}),
            ("acme", {"acme_challenge": "webroot", "acme_webroot": "/var/www"}),
            ("acme", {
                "acme_challenge": "rfc2136", "acme_dns_credentials": "/etc/key.ini", "acme_email": "a@b.example",
                "acme_server": "https://ca.example/directory", "acme_ca_file": "/etc/ca.pem",
            }),
        )
    ),
    _of_engine("renewal_hook", {"kind": "postfix", "certificates": [RENEWED]}, _hook),
    _of_engine("message_trace", {"send": [{"marker": "m1", "sender": "a@b.example", "recipient": "c@d.example"}]}, _trace),
    *(_of_engine("message_trace", {"receive": [one]}, _trace, f"landing {place}") for place, one in enumerate(LANDINGS)),
    _of_engine("starttls_probe", {"targets": TARGETS, "resolver": ["192.0.2.53"], "checks": ["mta_sts"]}, _probe),
    *(
        _of_engine(module, {"peers": [PEER, {**PINNED, **pin}], **more}, _peers, f"peers {place}")
        for module, more in (
            ("peer_tls_info", {"accepted_domains": ["good.example"], "helo_name": "mx.example"}),
            ("peer_tls", {}),
            ("mail_server_info", {}),
        )
        for place, pin in enumerate(({"pin_fingerprints": ["a" * 64]}, {"pin_issuer_file": "/etc/roots.pem"}))
    ),
    _of_engine("exchange_tls", EXCHANGE, _exchange),
    _of_engine("exchange_tls", {"peers": [EXCHANGE_PEER]}, _exchange, "peers"),
    _of_engine("tls_activity_info", {"daemon": "postfix", "logs": ["/var/log/none"], "journal": "false"}, _activity),
    _of_engine("deferred_mail_info", {"kind": "postfix", "recipients": ["a@b.example"], "message_ids": ["x@b.example"]}, _queues),
    _of_engine("deferred_mail", {"kind": "postfix", "next_hops": ["gw1.example"], "timeout": 0}, _queues),
    _of_engine("tls_recovery", {"hosts": ["m1"]}, _recovery),
    _of_engine("tls_plan", {"estate": {"hosts": ["m1"], "deliveries": []}, "batches": ["1"]}, _plan),
    _of_engine("fleet_lock", {"playbook": "my change", "hours": "6"}, _lock),
    _of_engine("tls_outcome", {"step": "offer", "plan": PLAN}, _outcome),
    _of_engine(
        "tls_report",
        {"rows": demo_rows()[:1], "title": "TLS", "window": WINDOW, "outputs": [{"format": "html", "path": "x"}]},
        _report,
    ),
    _of_engine("tls_verdict", {"rows": demo_rows()[:1], "title": "TLS"}, _verdict),
]  # fmt: skip
"""Every module, with arguments that are accepted."""
