"""A stand-in for Exchange: an SMTP server that behaves on the wire as Exchange on premises or Exchange Online does.

It was written from documentation and from what others captured; no real Exchange was asked. What it does is in one file, state.json,
which it reads anew for each connection. Whoever drives it replaces that file in one step. Beside it the stand-in writes, and nobody
else: received.jsonl (mail that reached a mailbox), sent.jsonl (mail that another host took), queue.json (what waits, what failed).
"""
