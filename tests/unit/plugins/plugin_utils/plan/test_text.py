"""The plan as people read it: one table, each diff once, and nothing that a host says can forge a line."""

import re

from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.text import (
    MOST_LINES,
    MOST_NAMES,
    plan_table,
    plan_text,
)
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.plan.values import Plan

from tests.support.plan_states import DIFF, States, config, gateway, plain, probe, server


def mixed():
    """A fleet with something of everything."""
    view = {
        "after": {"main": "required"},
        "changes": [{"path": "/etc/postfix/transport", "lines": "+main.example x:\n"}],
    }
    return States(
        config("main", "m1", "m2", mode="required"),
        config("far", "m9", mode="required"),
        gw1=gateway(drift=True, probes=[plain("m1.test"), probe("m2.test"), plain("m9.test")], view=view),
        m1=server("m1", drift=True, activity={"sessions_an_hour": 500_000}),
        m2=server("m2", drift=True),
        m3=server("m3", obstacles=[{"code": "no_disk_space", "message": "/etc is full; make room there"}]),
        m4={"unreachable": True, "msg": "no route"},
        m5={"unreachable": True, "msg": "no route"},
        m6=server("m6", journal={"path": "x", "files": []}),
    ).with_outside("m9")


def cells(text):
    return {line.split()[0]: re.split(r"  +", line)[1:] for line in text.splitlines()[2:]}


def test_every_host_has_a_row():
    table = plan_table(mixed().plan(inbound={"m1": "required"}))
    found = cells(table)
    assert re.split(r"  +", table.splitlines()[0]) == ["HOST", "ROLE", "IS", "WILL CHANGE", "IN THE WAY"]
    assert found == {
        "gw1": ["gateway", "Postfix gateway 3.7.11: inbound disabled", "accept, modes (2 files)", "-"],
        "m1": ["mail server", "Postfix 3.7.11: inbound disabled, outbound disabled", "offer, require (1 file)", "-"],
        "m2": ["mail server", "Postfix 3.7.11: inbound disabled, outbound disabled", "offer (1 file)", "-"],
        "m3": ["mail server", "Postfix 3.7.11: inbound offered, outbound opportunistic", "no change", "no_disk_space"],
        "m4": ["mail server", "not read", "unknown", "unreachable"],
        "m5": ["mail server", "not read", "unknown", "unreachable"],
        "m6": ["mail server", "Postfix 3.7.11: inbound offered, outbound opportunistic", "undo the killed run", "-"],
        "m9": ["-", "not in this run", "-", "outside_limit"],
    }


def test_every_obstacle_of_a_host_is_in_its_row():
    codes = ["no_disk_space", "certificate_unfit", "configuration_broken", "change_refused", "port_in_use"]
    found = States(m1=server("m1", obstacles=[{"code": one, "message": one} for one in codes])).plan()
    assert plan_table(found).endswith(f"  {', '.join(codes)}")


def test_the_lines_below_it():
    text = plan_text(mixed().plan(inbound={"m1": "required"}))
    assert "\nIn the way\n  m3: /etc is full; make room there\n  m4, m5: no route; check that" in text
    assert (
        "\n  m9: it is not in this run, and email config far needs STARTTLS on m9.test:25 for 'required': seen from"
        in text
    )
    assert "\nWarnings\n  m6: a run was killed during" in text
    assert "\n  1 accept: the gateways accept TLS, one at a time: gw1\n  2 offer: " in text
    assert text.endswith(
        "Cost\n  sending through a gateway, which has to accept TLS for these only: m1, m2, m3, m6\n"
        "  sessions an hour: m1 500000; not known of 5 others\n"
        "  a TLS handshake: 12 ms in the tests of this run; about 2 ms of CPU on a mail server"
    )


def test_a_clean_fleet_still_has_a_table():
    text = plan_text(States(m1=server("m1", probe=None)).plan())
    assert "no change" in text and "In the way" not in text and "Changes" not in text and "Order" not in text
    assert "sessions an hour: not known\n  a TLS handshake: not tested in this run;" in text


def test_each_diff_is_shown_once():
    text = plan_text(mixed().plan())
    assert text.count("+smtpd_tls_security_level = may") == 1
    assert "\n  /etc/postfix/main.cf on gw1, m1, m2\n    --- /etc/postfix/main.cf\n" in text
    other = States(
        m1=server("m1", drift=True),
        m2=server("m2", changes=[{"path": "/etc/postfix/main.cf", "lines": DIFF + "+x = y\n"}]),
    )
    assert plan_text(other.plan()).count("+smtpd_tls_security_level = may") == 2


def offer_line(batches):
    """The line of the order for forty mail servers that change."""
    states = States(**{f"m{number}": server(f"m{number}", drift=True) for number in range(40)})
    [line] = [line for line in plan_text(states.plan(batches=batches)).splitlines() if line.startswith("  1 offer")]
    return line.partition("offer STARTTLS: ")[2]


def test_batches_in_words():
    assert offer_line([1, "25%", "100%"]) == (
        "first m0; then 10 (m1, m2, m3, m4, m5, m6, m7, m8 and 2 more); then 29 (m11, m12, m13, m14, m15, m16, m17, m18 and 21 more)"
    )
    assert offer_line([1]) == f"m0, m1, m2, m3, m4, m5, m6, m7 and {40 - MOST_NAMES} more"
    assert offer_line([2]).endswith("; then 2 (m14, m15); 12 more batches")


def test_hostile_text_is_printable_and_forges_no_line():
    evil = "x\nm9    mail server  fine\r\x1b[2J\x9b1m\u2028In the way\u202eevil"
    plan = States(
        config(mode="required"),
        gw1=gateway(
            title=evil, probes=[{**plain("m1.test"), "message": evil}],
            view={"title": evil, "email_configs": [{"name": evil, "domains": ["a"], "servers": [evil], "delivery_mode": evil}],
                  "delivery_modes": [evil], "limits": {"required": evil}, "after": {evil: evil}},
        ),
        m1=server("m1", title=evil, version=evil, before={"inbound": evil, "outbound": evil}, after={},
                  changes=[{"path": evil, "lines": f"+a\n{evil}\n"}], reload=False, digests={evil: evil}),
        m2={"failed": True, "msg": evil},
        m3={"unreachable": True, "msg": evil},
        m4=server("m4", obstacles=[{"code": evil, "message": evil}], notes=[{"code": "interrupted_run", "message": evil}]),
    ).plan()  # fmt: skip
    text = plan_text(plan)
    assert all(line.isprintable() for line in text.split("\n"))
    # Only a diff has more than one line, and those are indented further than anything else.
    begun = [line for line in text.split("\n") if line.startswith(("m9", "  m9", "In the way"))]
    assert begun == ["In the way"]
    assert "\n    m9    mail server  fine??[2J?1m?In the way?evil\n" in text


def test_a_long_new_file_is_cut_with_the_place_of_the_rest():
    lines = "--- before: (absent)\n+++ after: /x\n" + "".join(f"+line {number}\n" for number in range(100))
    states = States(config("main", "m1"), gw1=gateway(), m1=server("m1", changes=[{"path": "/x", "lines": lines}]))
    text = plan_text(states.plan())
    assert f"    +line {MOST_LINES - 3}\n    ... {102 - MOST_LINES} more lines; starttls_plan_file has them" in text
    assert f"+line {MOST_LINES - 2}" not in text


def test_hosts_outside_the_run_are_named_as_such_and_are_nothing_else():
    plan = States(gw1=gateway(), m1=server()).with_outside("m2", "gw2").plan()
    assert plan.outside == ("gw2", "m2")
    assert plan.to_json()["not_in_this_run"] == plan.run(True)["not_in_this_run"] == ["gw2", "m2"]
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.result == "clean" and "m2" not in plan_table(plan)
    assert "\nNot in this run, so nothing is said of them: gw2, m2\n" in plan_text(plan)
    assert "Not in this run" not in plan_text(States(gw1=gateway(), m1=server()).plan())
