"""What was counted from a log, in a form that tests can compare."""


def counted(tally, log):
    """The totals by direction, the peers by domain and direction, and the log that was read."""
    result = tally.result()
    return {
        **result["totals"],
        "peers": {(one["domain"], one["direction"]): one for one in result["peers"]},
        "log": log,
    }


def short(counts):
    """The counts that are not zero; of events how many of each reason."""
    found = {}
    for name, value in counts.items():
        if name in ("domain", "direction"):
            continue
        seen = {one["reason"]: one["count"] for one in value} if isinstance(value, list) else value
        if seen:
            found[name] = seen
    return found
