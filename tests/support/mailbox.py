"""One look into a mailbox."""

from ansible_collections.mailfleet.starttls.plugins.module_utils._trace.mailbox import LocalMailbox


def find_marked(mailbox, markers):
    """Marker -> Received headers of the messages in an mbox or Maildir that carry it."""
    return LocalMailbox(mailbox).look(markers)
