"""One look into a mailbox."""

from ansible_collections.mailfleet.starttls.plugins.module_utils.mailbox_search import LocalMailbox


def find_marked(mailbox, markers):
    """Marker -> Received headers of the messages in an mbox or Maildir that carry it."""
    return LocalMailbox(mailbox).look(markers)
