"""The verdict of the controller and that of a host on the same certificate: a renewal by the hook is judged as Ansible judges it."""

from __future__ import annotations

from typing import Any

from ansible_collections.mailfleet.starttls.plugins.module_utils._certificate import fitness, pem
from ansible_collections.mailfleet.starttls.plugins.plugin_utils.certificates import assessment

_MANY = 20


def codes(faults: Any) -> list[str]:
    """The codes of findings or faults."""
    return sorted({one.code for one in faults})


def of_host(key: Any, leaf: Any, chain: Any = None, **options: Any) -> fitness.Fitness:
    """The verdict of a host, from the arguments of check_certificate."""
    texts = [one.encode("utf-8", "surrogateescape") if isinstance(one, str) else one for one in (key, leaf, chain)]
    roots = options.get("ca_pem") or ""
    policy = fitness.Policy(options.get("allow_self_signed", False), options.get("min_days_left"))
    found = fitness.HostRoots(roots.decode("utf-8", "replace") if isinstance(roots, bytes) else roots)
    return fitness.assess(
        texts[0], texts[1] or b"", texts[2] or b"", list(options["names"]), found, policy, options.get("now")
    )


def check_certificate(key: Any, leaf: Any, chain: Any = None, **options: Any) -> assessment.Assessment:
    """Ask both, and see that they agree. The answer of the controller is returned.

    alike: whether they have to name the same faults. A host never takes what the controller refuses. slowly: ask the host, too, where
    it has to start openssl very often.
    """
    alike, slowly = options.pop("alike", True), options.pop("slowly", False)
    theirs = assessment.check_certificate(key, leaf, chain, **options)
    if set(options) & {"public_key", "roots"} or (str(chain or leaf).count("BEGIN") > _MANY and not slowly):
        return theirs
    try:
        ours = of_host(key, leaf, chain, **options)
    except pem.PemError:
        return theirs  # the roots are no PEM: a host refuses its configuration
    host, controller = [*codes(ours.faults), *codes(ours.cautions)], [*codes(theirs.findings), *codes(theirs.warnings)]
    assert theirs.ok or ours.faults
    assert host == controller or not alike, (
        f"host: {ours.said}; controller: {'; '.join(one.message for one in theirs.findings)}"
    )
    if theirs.ok:
        assert ours.bundle == theirs.bundle
    return theirs


__all__ = ["check_certificate", "codes", "of_host"]
