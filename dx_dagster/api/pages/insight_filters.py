"""The filters of insights: what an address asks for, and what there is to choose from."""

from dataclasses import dataclass, replace
from datetime import date
from urllib.parse import urlencode

from starlette.requests import Request

from dx_dagster.insights import reading
from dx_dagster.insights.reading import Choices, MeasuredScope, UnknownScopeError, Weeks
from dx_dagster.warehouse.database import Transaction

_DEFAULT_WEEKS, _MOST_WEEKS = 26, 520
_LONGEST = 500


class FilterError(ValueError):
    """A filter that cannot be applied; the message is for a person."""


@dataclass(frozen=True)
class Filters:
    """What an address asks for. Weeks are given by any day of theirs; empty is the default."""

    workspace: str = ""
    repository: str = ""
    team: str = ""
    first: str = ""
    last: str = ""
    business_hours: bool = False

    @classmethod
    def of(cls, request: Request) -> "Filters":
        given = {name: value.strip()[:_LONGEST] for name, value in request.query_params.items()}
        names = {"workspace": "workspace", "repository": "repository", "team": "team", "from": "first", "to": "last"}
        return cls(
            **{name: given.get(parameter, "").replace("\0", "") for parameter, name in names.items()},
            business_hours=given.get("hours") == "business",
        )

    def query(self, **more: str) -> str:
        """The query of an address that asks for the same, and more."""
        hours = "business" if self.business_hours else ""
        all_of = {"workspace": self.workspace, "repository": self.repository, "team": self.team}
        all_of |= {"from": self.first, "to": self.last, "hours": hours} | more
        return urlencode({name: value for name, value in all_of.items() if value})

    def check(self) -> None:
        """Checks what figures are asked for.

        Raises:
            FilterError: they are those of a team in a repository, which are not built.
        """
        if self.team and self.repository:
            raise FilterError("Figures are of a repository or of a team, not of a team in a repository. Choose one.")

    def weeks(self, this_week: date) -> Weeks:
        """The weeks, at most up to the current one.

        Raises:
            FilterError: a date is none, or the end is before the beginning.
        """
        last = min(reading.monday(_day(self.last)) if self.last else this_week, this_week)
        if not self.first:
            return Weeks.until(last, _DEFAULT_WEEKS)
        first = reading.monday(_day(self.first))
        if first > last:
            raise FilterError(f"No week lies between {self.first} and {self.last or 'today'}.")
        weeks = Weeks(first, last)
        return weeks if weeks.number <= _MOST_WEEKS else Weeks.until(last, _MOST_WEEKS)


def _day(given: str) -> date:
    try:
        day = date.fromisoformat(given)
    except ValueError:
        raise FilterError(f"{given} is not a valid date: write it as 2026-01-31.") from None
    if not date(1990, 1, 1) <= day <= date(2200, 1, 1):
        raise FilterError(f"{given} is out of range.")
    return day


@dataclass(frozen=True)
class View:
    """What a page shows figures of."""

    filters: Filters
    choices: Choices
    of: MeasuredScope | None
    weeks: Weeks
    wrong: str = ""
    status: int = 200


async def view(transaction: Transaction, filters: Filters, zone: str) -> View:
    choices = await reading.choices(transaction, filters.workspace, zone)
    filters = replace(filters, workspace=filters.workspace or next(iter(choices.workspaces), ""))
    shown = View(filters, choices, None, Weeks.until(choices.this_week, _DEFAULT_WEEKS))
    try:
        shown = replace(shown, weeks=filters.weeks(choices.this_week))
        filters.check()
        if not choices.workspaces and not filters.workspace:
            return shown
        of = await reading.find(
            transaction, workspace=filters.workspace, repository=filters.repository, team=filters.team
        )
    except FilterError as error:
        return replace(shown, wrong=str(error), status=400)
    except UnknownScopeError as error:
        return replace(shown, wrong=str(error), status=404)
    return replace(shown, of=of)
