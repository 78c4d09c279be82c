"""Consoles that print texts as they are: a label, or a reason that Bitbucket gives, may hold brackets and colons."""

from rich.console import Console


def plain(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    return Console(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)
