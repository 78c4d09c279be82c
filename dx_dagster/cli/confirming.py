"""Confirmation of commands that destroy something."""

import sys
from typing import Annotated

import typer

from dx_dagster.cli.errors import CommandError

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def confirm(consequence: str, question: str, *, yes: bool) -> None:
    """Shows what the command destroys, and asks unless it is confirmed.

    Raises:
        CommandError: the answer is no, or there is no terminal to ask at.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(
            f"{consequence} Nothing was changed: there is no terminal to confirm it at. To confirm it, add --yes."
        )
    print(consequence)
    if not typer.confirm(question):
        raise CommandError("Nothing was changed.")


def counted(number: int, noun: str) -> str:
    """The number with the noun, in the plural unless it is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
