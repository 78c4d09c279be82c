"""Consoles that print texts as they are: a label, or a reason that Bitbucket gives, may hold brackets and colons."""

import sys

from rich.console import Console


def plain(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    # Bound to the stream of this moment: `Installation.dagster` puts another in its place for a while.
    file = sys.stderr if stderr else sys.stdout
    return Console(file=file, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)
