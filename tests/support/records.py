"""The record of a gateway as another version of the collection leaves it."""

import json

from ansible_collections.mailfleet.starttls.plugins.module_utils._gateway.record import FORMAT


def make_former(path):
    """Turn a record into one of format 0, which has no number."""
    data = json.loads(path.read_text())
    del data["format"]
    path.write_text(json.dumps(data, indent=2) + "\n")


def make_newer(path):
    """Turn a record into one of the format after the current one."""
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": FORMAT + 1}))


def format_in(path):
    """The number in a record, None if it has none."""
    return json.loads(path.read_text()).get("format")
