"""Changes that a reconcile finds although deliveries should have told them.

Of some changes Bitbucket sends no event: they do not count. These are tasks, a draft that is made ready, and a pull
request that another one supersedes.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from dx_dagster.warehouse.database import Transaction


class PullBefore(NamedTuple):
    """A pull request before a page was stored."""

    number: int
    updated_at: datetime | None
    draft: bool | None


async def pulls_before(transaction: Transaction, repository_id: str, numbers: Collection[int]) -> dict[int, PullBefore]:
    """The stored pull requests with these numbers."""
    rows = await transaction.fetch(
        PullBefore,
        "SELECT source_id AS number, updated_at, draft FROM bitbucket_pulls "
        "WHERE repository_id = %s AND source_id = ANY(%s)",
        [repository_id, list(numbers)],
    )
    return {row.number: row for row in rows}


# A row of a participant that this transaction wrote: an opinion, which need not move `updated_at`.
_PULLS_AFTER = """
    SELECT p.source_id AS number, p.updated_at, p.draft, p.state = 'SUPERSEDED' AS is_superseded, EXISTS (
        SELECT FROM bitbucket_pull_participants t
        WHERE t.pull_id = p.id AND t.xmin = pg_current_xact_id()::xid) AS is_judged
    FROM bitbucket_pulls p WHERE p.repository_id = %s AND p.source_id = ANY(%s)"""


async def note_pulls(
    transaction: Transaction,
    repository_id: str,
    numbers: Collection[int],
    before: Mapping[int, PullBefore],
    since: datetime,
) -> None:
    """Notes which of the pull requests this transaction has changed."""
    changes: dict[int, datetime | None] = {}
    for row in await transaction.rows(_PULLS_AFTER, [repository_id, list(numbers)]):
        old = before.get(row.number)
        if row.is_superseded or (old is not None and old.draft != row.draft):
            continue
        if old is None or old.updated_at != row.updated_at:
            changes[row.number] = row.updated_at
        elif row.is_judged:
            changes[row.number] = None
    await _note(transaction, repository_id, "pullrequest", changes, since)


async def pipelines_before(transaction: Transaction, repository_id: str, numbers: Collection[int]) -> dict[int, bool]:
    """The stored pipelines with these numbers, and whether each has ended."""
    rows = await transaction.rows(_ENDED, [repository_id, list(numbers)])
    return {row.build_number: row.has_ended for row in rows}


_ENDED = """
    SELECT build_number, COALESCE(state = 'COMPLETED', false) AS has_ended, created_at
    FROM bitbucket_pipelines WHERE repository_id = %s AND build_number = ANY(%s)"""


async def note_pipelines(
    transaction: Transaction,
    repository_id: str,
    numbers: Collection[int],
    before: Mapping[int, bool],
    since: datetime,
) -> None:
    """Notes which of the pipelines are new, or have ended, since `before`."""
    changes = {
        row.build_number: row.created_at
        for row in await transaction.rows(_ENDED, [repository_id, list(numbers)])
        if before.get(row.build_number) is None or (row.has_ended and not before[row.build_number])
    }
    await _note(transaction, repository_id, "pipeline", changes, since)


_NOTE = """
    INSERT INTO untold_changes (workspace_id, repository_id, kind, number, changed_at, since)
    SELECT r.workspace_id, r.id, %(kind)s, c.number, c.changed_at, %(since)s
    FROM unnest(%(numbers)s::bigint[], %(changed_at)s::timestamptz[]) AS c (number, changed_at)
    JOIN bitbucket_repositories r ON r.id = %(repository)s"""


async def _note(
    transaction: Transaction, repository_id: str, kind: str, changes: Mapping[int, datetime | None], since: datetime
) -> None:
    if changes:
        bound = {"repository": repository_id, "kind": kind, "since": since}
        lists = {"numbers": list(changes), "changed_at": list(changes.values())}
        await transaction.execute(_NOTE, bound | lists)
