"""The Exchange server, and the ways of mail through this fleet."""

from lab_exchange_server import exchange_server, ways

__all__ = ["exchange_server", "ways"]
