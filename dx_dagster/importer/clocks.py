"""Three clocks: the host's, the database's and Bitbucket's. An import is right whatever they show, but people look at
the times that it stores and compare them.
"""

from datetime import timedelta

from dx_dagster.clock import HOST
from dx_dagster.importer.workspace import Workspace

_WORTH_A_WORD = timedelta(minutes=2)
_UNITS = (("days", 86_400), ("hours", 3_600), ("minutes", 60))


def warn_of_differences(workspace: Workspace) -> None:
    """Says in one sentence how far the others are off the database's clock, where that is two minutes or more."""
    off = {"this machine's": HOST.now() - workspace.now(), "Bitbucket's": workspace.client.ahead()}
    told = [_told(whose, by) for whose, by in off.items() if by is not None and abs(by) >= _WORTH_A_WORD]
    if told:
        workspace.listener.warning(
            f"clocks differ: {' and '.join(told)} the database's, by which this import goes on; have all of them set "
            "by NTP"
        )


def _told(whose: str, by: timedelta) -> str:
    seconds = abs(by).total_seconds()
    name, unit = next(one for one in _UNITS if seconds >= 2 * one[1])
    return f"{whose} is {seconds / unit:.0f} {name} {'ahead of' if by > timedelta() else 'behind'}"
