"""Sizes of pull requests: added and removed lines, and changed files."""

from collections.abc import Sequence
from typing import NamedTuple

from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported.pulls import PullToMark


class Size(NamedTuple):
    """The size of one pull request."""

    additions: int
    deletions: int
    changed_files: int


class SettledSize(NamedTuple):
    """What Bitbucket answered about one pull request; `size` is None where it cannot tell.

    `version` names the source and the target that it is about, as in `stale.pulls_without_size`.
    """

    pull: PullToMark
    version: str
    size: Size | None


_STORE = """
    UPDATE bitbucket_pulls p
    SET additions = new.additions, deletions = new.deletions, changed_files = new.changed_files
    FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::int[]) AS new (id, additions, deletions, changed_files)
    WHERE p.id = new.id AND (p.additions, p.deletions, p.changed_files)
                            IS DISTINCT FROM (new.additions, new.deletions, new.changed_files)"""
_MARK = """
    INSERT INTO pull_marks (pull_id, repository_id, number, size_for)
    SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::text[])
    ON CONFLICT (pull_id) DO UPDATE SET size_for = EXCLUDED.size_for, size_refused_since = NULL"""


async def store(transaction: Transaction, settled: Sequence[SettledSize]) -> None:
    """Stores sizes with their marks, which end a pause after a refusal."""
    ids = [one.pull.id for one in settled]
    sizes = [one.size or (None, None, None) for one in settled]
    updated = await transaction.execute(_STORE, [ids, *map(list, zip(*sizes, strict=True))])
    transaction.count("bitbucket_pulls", updated=updated)
    await transaction.execute(
        _MARK,
        [
            ids,
            [one.pull.repository.id for one in settled],
            [one.pull.number for one in settled],
            [one.version for one in settled],
        ],
    )


async def refused(transaction: Transaction, pull: PullToMark, version: str) -> None:
    """Records that Bitbucket refused the size: it is asked again, with pauses that grow while the source stays.

    The marks are not those of `pulls.refused`: a size that is refused must not hold up the rest of the pull request.
    """
    await transaction.execute(
        """INSERT INTO pull_marks AS m (pull_id, repository_id, number,
                                        size_refused_since, size_refused_at, size_refused_for)
           VALUES (%s, %s, %s, now(), now(), %s)
           ON CONFLICT (pull_id) DO UPDATE SET
               size_refused_since = CASE WHEN m.size_refused_for = EXCLUDED.size_refused_for
                                         THEN COALESCE(m.size_refused_since, now()) ELSE now() END,
               size_refused_at = EXCLUDED.size_refused_at, size_refused_for = EXCLUDED.size_refused_for""",
        [pull.id, pull.repository.id, pull.number, version],
    )
