"""An enforced domain is enforced in every spelling that a mail server takes for it, by the real daemons."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from lab_partner import GATEWAYS, NAME, Partner, flush, port_of, queue
from lab_testinfra import DOMAINS, Fleet, came_over_tls, of_kind, on_each, wait_for

gateways = on_each(GATEWAYS)
IDN, IDN_UNICODE = "xn--bcher-kva.test", "bücher.test"
# A session for each envelope, because errors in one add up. What is said is what a client says, so smtplib does not tidy it.
CLIENT = """
import json, smtplib, ssl, sys
host, tls, envelopes = json.load(sys.stdin)
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
answers = []
for sender, recipient, text in envelopes:
    session = smtplib.SMTP(host, 25, "mx.partner.test", timeout=60)
    session.ehlo()
    if tls:
        session.starttls(context=context)
        session.ehlo()
    session.command_encoding = "utf-8"
    code, said = session.docmd("MAIL FROM:" + sender)
    if code < 400:
        code, said = session.docmd("RCPT TO:" + recipient)
    if code < 400:
        code, said = session.data(text.encode())
    answers.append((code, said.decode("utf-8", "replace")))
    session.close()
print(json.dumps(answers))
"""


def spellings(domain: str, gateway: str, idn: bool = False) -> list[str]:
    """A path for each way to write an address of a domain. At the gateway's own name, only Postfix takes the rest for an address."""
    host = f"{gateway}.fleet.test"
    own = [
        f"<trace%{domain}@{host}>",
        f"<{domain}!trace@{host}>",
        f'<"trace@{domain}"@{host}>',
        f"<trace@{domain}@{host}>",
    ]
    return [
        f"<trace@{domain}>", f"trace@{domain}", f"< trace@{domain} >", f"<TRACE@{domain.upper()}>", f'<"trace"@{domain}>',
        f"<\\trace@{domain}>",
        f"<trace@{domain}.>", f"<trace@{domain}..>", f"<trace+extension@{domain}>", f"<trace-extension@{domain}>",
        f"<@relay.example:trace@{domain}>", f"<@relay.example,@{host}:trace@{domain}>", f"<trace(comment)@{domain}>",
        f"<trace%{domain}>", f"<trace%{domain.upper()}>", f"<{domain}!trace>", f'<"trace@{domain}">', f'<"trace%{domain}">',
        *(own if GATEWAYS[gateway] == "postfix" else []),
        *([] if idn else [f'<trace@"{domain}">', f"<trace@{domain.replace('.', chr(92) + '.')}>", f"<@{domain}>"]),
    ]  # fmt: skip


FULLWIDTH = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F) if chr(code).isalnum()})


@pytest.fixture
def unicode_addresses(fleet: Fleet, gateway: str) -> Iterator[None]:
    """The gateway takes addresses that are not ASCII, as the Postfix of Debian does; the lab's does not."""
    if GATEWAYS[gateway] == "postfix":
        fleet.run(gateway, "postconf -e smtputf8_enable=yes; postfix reload 2>&1")
    yield
    if GATEWAYS[gateway] == "postfix":
        fleet.run(gateway, "postconf -e smtputf8_enable=no; postfix reload 2>&1")


def talk(fleet: Fleet, host: str, gateway: str, tls: bool, envelopes: list[tuple[str, str, str]]) -> list[list[Any]]:
    """The last answer to each envelope: code and words."""
    said = fleet.run(host, f"python3 -c '{CLIENT}'", json.dumps([fleet.address(gateway), tls, envelopes]))
    return list(json.loads(said))


def change(fleet: Fleet, gateway: str, name: str, **options: Any) -> None:
    result = fleet.result(gateway, name, {**of_kind(GATEWAYS[gateway]), "require_without_evidence": True, **options})
    assert not result["failed"], result


def message(mark: str) -> str:
    return f"From: trace@partner.test\nTo: you@example.test\nSubject: {mark}\n\nx\n"


@gateways
def test_every_spelling_of_an_enforced_sender(
    fleet: Fleet, partner: Partner, gateway: str, unicode_addresses: None
) -> None:
    configs = [
        {"name": "a", "domains": [DOMAINS["pf12"]], "servers": ["pf12.fleet.test"], "delivery_mode": "plaintext"}
    ]
    change(fleet, gateway, "inbound_tls_mode", email_configs=configs)
    domains = [{"domain": one, "direction": "inbound"} for one in ("bank.test", IDN)]
    change(fleet, gateway, "enforced_tls_domain", enforced_domains=domains)
    enforced = [
        *spellings("bank.test", gateway), *spellings(IDN, gateway), *spellings(IDN_UNICODE, gateway, idn=True),
        "<trace@bu\u0308cher.test>", f"<trace@{'bank.test'.translate(FULLWIDTH)}>", "<trace@bank\u3002test>", "<tr\u00e4ce@bank.test>",
    ]  # fmt: skip
    others = [
        "<>",
        "<trace@other.test>",
        "<trace@sub.bank.test>",
        "<trace@notbank.test>",
        "<trace%bank.test@other.test>",
    ]
    try:
        marks = {(path, tls): uuid.uuid4().hex for tls in (False, True) for path in [*enforced, *others]}
        answers = {}
        for tls in (False, True):
            paths = [*enforced, *others]
            envelopes = [(path, "<trace@alpha.test>", message(marks[path, tls])) for path in paths]
            answers.update(
                zip([(path, tls) for path in paths], talk(fleet, "outside", gateway, tls, envelopes), strict=True)
            )
        # In plaintext, no spelling comes in: it is put off with our words, or the daemon knows no such address.
        taken = {path: answers[path, False] for path in enforced if answers[path, False][0] < 400}
        assert not taken
        wrong = {
            path: (code, said)
            for path in enforced
            for code, said in [answers[path, False]]
            if code < 500 and "STARTTLS is required for this sender" not in said
        }
        assert not wrong
        put_off = [path for path in enforced if answers[path, False][0] < 500]
        assert len(put_off) > 20, answers
        # Over TLS, what is taken goes to the mail server over TLS as well; the mode alone is plaintext.
        accepted = {(path, tls): path in enforced for path, tls in marks if answers[path, tls][0] < 400}
        assert {path for path, tls in accepted if tls} >= set(put_off)
        assert {path for path, tls in accepted if not tls} == set(others)

        def arrived() -> dict[str, bool]:
            copies = fleet.copies("pf12", "")
            return {str(one["Subject"]): came_over_tls(one) for one in copies}

        assert wait_for(lambda: {marks[one] for one in accepted} <= set(arrived())), queue(fleet, gateway)
        seen = arrived()
        assert {one: seen[marks[one]] for one in accepted} == accepted
    finally:
        change(fleet, gateway, "enforced_tls_domain", enforced_domains=domains, state="absent")


@gateways
def test_every_spelling_of_an_enforced_recipient(
    fleet: Fleet, partner: Partner, gateway: str, unicode_addresses: None
) -> None:
    """The domain's server offers no STARTTLS: whatever is taken waits, and none of it goes out in plaintext."""
    bank = partner.domain("encryption_only", "notls")
    idn = {"domain": IDN, "direction": "outbound", "servers": [f"{NAME}:{port_of('encryption_only', 'notls')}"]}
    domains: list[dict[str, Any]] = [{"domain": bank, "direction": "outbound"}, idn]
    change(fleet, gateway, "enforced_tls_domain", enforced_domains=domains)
    sender = f"{uuid.uuid4().hex}@alpha.test"
    paths = [*spellings(bank, gateway), *spellings(IDN, gateway), *spellings(IDN_UNICODE, gateway, idn=True)]
    marks = {(path, tls): uuid.uuid4().hex for tls in (False, True) for path in paths}
    try:
        taken: dict[bool, list[str]] = {}
        for tls in (False, True):
            envelopes = [(f"<{sender}>", path, message(marks[path, tls])) for path in paths]
            answers = talk(fleet, "pf12", gateway, tls, envelopes)
            taken[tls] = [path for path, (code, _said) in zip(paths, answers, strict=True) if code < 400]
        assert taken[False] == taken[True]
        assert len(taken[True]) > 10

        def waiting() -> int:
            return queue(fleet, gateway).count(sender)

        number = 2 * len(taken[True])
        for _attempt in range(2):
            assert wait_for(lambda: waiting() == number), (number, waiting(), taken, queue(fleet, gateway))
            flush(fleet, gateway)
        assert not {str(one["Subject"]) for one in fleet.copies("outside", "")} & set(marks.values())
        # They wait for TLS, and not because a spelling had another route, to a host that cannot be found.
        if GATEWAYS[gateway] == "postfix":

            def reasons() -> list[str]:
                """While a message is tried it has none."""
                both = fleet.queue(gateway) + fleet.queue(gateway, "/etc/postfix-mailfleet")
                return [one["recipients"][0].get("delay_reason", "") for one in both if one["sender"] == sender]

            assert wait_for(lambda: all("TLS is required" in one for one in reasons())), reasons()
    finally:
        empty = (
            "exim4 -bpr | awk '/</ { print $3 }' | xargs -r exim4 -Mrm"
            if GATEWAYS[gateway] == "exim"
            else "postsuper -d ALL"
        )
        fleet.run(gateway, f"{empty} 2>&1", check=False)
        change(fleet, gateway, "enforced_tls_domain", enforced_domains=domains, state="absent")
