"""Consoles that print texts as they are: a label, or a reason that Bitbucket gives, may hold brackets and colons."""

import os
import sys

from rich.console import Console

_UNLIMITED = 10_000


def plain(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    # Bound to the stream of this moment: `Installation.dagster` puts another in its place for a while.
    file = sys.stderr if stderr else sys.stdout
    # What is piped is neither wrapped nor cut: a line of a table stays one line.
    width = None if file.isatty() or os.environ.get("COLUMNS") else _UNLIMITED
    return Console(file=file, width=width, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)
