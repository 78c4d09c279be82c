"""What a command says when it cannot do its work."""


class CommandError(Exception):
    """The work failed; the message is one paragraph for the person: what, why, and what to do."""
