"""What the first bytes of a server tell, whoever's handshake it is."""

import contextlib

from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.hello import HelloError, ServerFlight


def group_of(first_bytes):
    """The key-exchange group; empty if they do not reach that far or cannot be read."""
    flight = ServerFlight()
    with contextlib.suppress(HelloError):
        flight.feed(first_bytes)
    return flight.group
