"""Compares the clocks of the host, the database and Bitbucket.

An import is correct whatever they show, but the stored times are compared with others.
"""

from datetime import timedelta

from dx_dagster.clock import HOST
from dx_dagster.importer.workspace import Workspace

_WORTH_A_WARNING = timedelta(minutes=2)
_UNITS = (("days", 86_400), ("hours", 3_600), ("minutes", 60))


def warn_of_differences(workspace: Workspace) -> None:
    """Warns in one sentence of clocks that differ from the database's by two minutes or more."""
    off = {"this machine's": HOST.now() - workspace.now(), "Bitbucket's": workspace.client.ahead()}
    differences = [
        _difference(whose, by) for whose, by in off.items() if by is not None and abs(by) >= _WORTH_A_WARNING
    ]
    if differences:
        together = " and ".join(differences)
        workspace.listener.warning(
            f"clocks differ: {together} the database's, by which this import goes on; have all of them set by NTP"
        )


def _difference(whose: str, by: timedelta) -> str:
    seconds = abs(by).total_seconds()
    name, unit = next(one for one in _UNITS if seconds >= 2 * one[1])
    return f"{whose} is {seconds / unit:.0f} {name} {'ahead of' if by > timedelta() else 'behind'}"
