"""The error of a command."""


class CommandError(Exception):
    """The command failed. The message is one paragraph: what failed, why, and what to do."""
