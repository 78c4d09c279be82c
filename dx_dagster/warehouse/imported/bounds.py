"""How far back a workspace is imported (`--since`): a bound of the workspace, kept by every sync.

Rows are never dropped, so the bound moves back only. Each mark says down to which bound its listing was walked
(`sync_marks.bound`); where that is later than the workspace's, what lies between is still to be fetched.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from psycopg.sql import SQL

from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.imported.review_times import RULES
from dx_dagster.warehouse.merge import lies_in_the_future

ALL = "all"
"""How a lifted bound is written."""


@dataclass(frozen=True)
class Wanted:
    """The bound that a sync asks for; None lifts it."""

    since: datetime | None

    @classmethod
    def read(cls, text: str) -> Self:
        """The bound that the text names: a date or time in ISO 8601, in UTC without an offset, or "all".

        Raises:
            BoundRefusedError: it is none, or with its offset a time beyond the calendar.
        """
        if text.strip().lower() == ALL:
            return cls(None)
        try:
            moment = datetime.fromisoformat(text.strip())
            return cls(moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC))
        except (ValueError, OverflowError):
            raise BoundRefusedError(f"{text!r} is not a date. Use the form 2026-01-31, or all.") from None


class BoundRefusedError(Exception):
    """The bound cannot be set to the wanted day; the message says why."""


def reaches_back_to(bound: datetime | None, since: datetime | None) -> bool:
    """Whether a walk down to `bound` covers everything since `since`; None stands for no bound."""
    return bound is None or (since is not None and bound <= since)


_STORED = SQL("""
    SELECT CASE WHEN NOT {is_wrong} THEN since END AS since,
           EXISTS (SELECT FROM sync_marks m JOIN bitbucket_repositories r ON r.id = m.repository_id
                   WHERE r.workspace_id = w.id) AS begun
    FROM bitbucket_workspaces w WHERE id = %s""").format(is_wrong=lies_in_the_future("since"))


async def settle(transaction: Transaction, workspace_id: str | None, wanted: Wanted | None) -> datetime | None:
    """Sets and returns the workspace's bound; without `wanted`, the stored one. A new workspace has no row yet.

    A stored bound that lies in the future is ignored.

    Raises:
        BoundRefusedError: the bound would leave out imported rows, or lies in the future.
    """
    if wanted is not None and wanted.since is not None:
        row = await transaction.row("SELECT %s > now() AS future", [wanted.since])
        if row.future:
            raise BoundRefusedError(f"--since {_day(wanted.since)} lies in the future; give a day that has begun.")
    row = await transaction.row(
        _STORED,
        [workspace_id],
    )
    if row is None:
        return wanted.since if wanted else None
    since: datetime | None = row.since
    if wanted is not None:
        if row.begun and not reaches_back_to(wanted.since, since):
            imported = f"the workspace is imported since {_day(since)}" if since else "all of the workspace is imported"
            raise BoundRefusedError(
                f"--since {_day(wanted.since)} is refused: {imported}. Rows are never dropped, so the bound can only "
                "move back."
            )
        since = wanted.since
    if not row.begun or wanted is not None:
        await transaction.execute(
            "UPDATE bitbucket_workspaces SET since = %s, rules = CASE WHEN %s THEN rules ELSE %s END WHERE id = %s",
            [since, row.begun, RULES, workspace_id],
        )
    return since


async def of_workspace(warehouse: Warehouse, slug: str) -> datetime | None:
    """The bound of a workspace's syncs; None where it has none, or nothing is imported yet."""
    row = await warehouse.row("SELECT since FROM bitbucket_workspaces WHERE slug = %s", [slug])
    return row.since if row else None


def _day(moment: datetime | None) -> str:
    return ALL if moment is None else moment.isoformat().removesuffix("T00:00:00+00:00")
