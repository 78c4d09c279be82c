"""Repositories that move between workspaces: an account has one user in each, so their rows name another user."""

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from psycopg.sql import SQL, Identifier

from dx_dagster.frames.identifiers import of_user
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import renames, review_times
from dx_dagster.warehouse.schema import bitbucket as tables

if TYPE_CHECKING:
    import polars as pl

_COLUMNS = ("id", "workspace_id", "synced_at")
_MOVED = SQL("""
    SELECT stored.id::text FROM {rows}
    JOIN bitbucket_repositories stored USING (id)
    WHERE stored.workspace_id <> incoming.workspace_id AND {is_not_older}""").format(
    rows=merge.recordset(tables.repositories, _COLUMNS),
    is_not_older=merge.is_not_older(merge.REPOSITORIES, "incoming", "stored"),
)


class _Reference(NamedTuple):
    """A column that names users, and how its rows `t` belong to a repository `r`."""

    table: Identifier
    column: Identifier
    owners: SQL
    belongs: SQL


_OF_REPOSITORY = (SQL("bitbucket_repositories r"), SQL("t.repository_id = r.id"))
_OF_PULL = (
    SQL("bitbucket_repositories r JOIN bitbucket_pulls p ON p.repository_id = r.id"),
    SQL("t.pull_id = p.id"),
)
_REFERENCES = [
    _Reference(Identifier(table), Identifier(column), *owner)
    for table, column, owner in (
        ("bitbucket_pulls", "user_id", _OF_REPOSITORY),
        ("bitbucket_pulls", "merged_by_user_id", _OF_REPOSITORY),
        ("bitbucket_pull_participants", "user_id", _OF_PULL),
        ("bitbucket_pull_activities", "user_id", _OF_PULL),
        ("bitbucket_pull_comments", "user_id", _OF_PULL),
        ("bitbucket_pull_commits", "author_id", _OF_PULL),
        ("bitbucket_repository_default_branch_commits", "author_id", _OF_REPOSITORY),
        ("bitbucket_pipelines", "user_id", _OF_REPOSITORY),
    )
]
_OTHERS_EXIST = """
    SELECT EXISTS (SELECT FROM bitbucket_users WHERE workspace_id NOT IN
                   (SELECT workspace_id FROM bitbucket_repositories r WHERE r.id = ANY(%(repositories)s::uuid[])))
        OR (SELECT count(DISTINCT workspace_id) > 1 FROM bitbucket_repositories r
            WHERE r.id = ANY(%(repositories)s::uuid[])) AS found"""
_NAMED = SQL(" UNION ").join(
    SQL("""SELECT t.{column} AS id, r.workspace_id FROM {owners} JOIN {table} t ON {belongs}
           WHERE r.id = ANY(%(repositories)s::uuid[])""").format(**reference._asdict())
    for reference in _REFERENCES
)
_STRANGERS = SQL("""
    SELECT u.id::text, u.source_id, named.workspace_id::text
    FROM ({named}) named JOIN bitbucket_users u USING (id) WHERE u.workspace_id <> named.workspace_id""").format(
    named=_NAMED
)

_PAIRS = SQL("unnest(%(old)s::uuid[], %(new)s::uuid[], %(workspace)s::uuid[]) AS pair (old, new, workspace_id)")
_COPY_USERS = SQL("""
    INSERT INTO bitbucket_users (id, source_id, workspace_id, active,
                                 name, nickname, account_id, email, bot, type, imported_type, counted_as, synced_at)
    SELECT pair.new, u.source_id, pair.workspace_id, false,
           name, nickname, account_id, email, bot, type, imported_type, counted_as, synced_at
    FROM {pairs} JOIN bitbucket_users u ON u.id = pair.old
    ORDER BY pair.new
    ON CONFLICT (id) DO NOTHING""").format(pairs=_PAIRS)
# A list that came after the move may have stored the same person as the new user beside the old one; and after two
# moves there may be two old ones.
_DROP_TWINS = SQL("""
    DELETE FROM bitbucket_pull_participants t
    USING bitbucket_repositories r JOIN bitbucket_pulls p ON p.repository_id = r.id, {pairs}
    WHERE r.id = ANY(%(repositories)s::uuid[]) AND t.pull_id = p.id AND pair.workspace_id = r.workspace_id
      AND t.user_id = pair.old
      AND EXISTS (SELECT FROM bitbucket_pull_participants k
                  LEFT JOIN unnest(%(old)s::uuid[], %(new)s::uuid[], %(workspace)s::uuid[])
                       AS twin (old, new, workspace_id)
                  ON twin.old = k.user_id AND twin.workspace_id = r.workspace_id
                  WHERE k.pull_id = t.pull_id
                    AND (k.user_id = pair.new OR (twin.new = pair.new AND k.user_id > t.user_id)))""").format(
    pairs=_PAIRS
)
_REKEY = SQL("""
    UPDATE {table} t SET {column} = pair.new
    FROM {owners}, {pairs}
    WHERE r.id = ANY(%(repositories)s::uuid[]) AND {belongs} AND pair.workspace_id = r.workspace_id
      AND t.{column} = pair.old""")
# A user's type may differ from workspace to workspace, and durations with it.
_COUNTED_OTHERWISE = SQL("""
    SELECT DISTINCT p.id::text FROM bitbucket_pulls p JOIN bitbucket_repositories r ON r.id = p.repository_id
    WHERE r.id = ANY(%(repositories)s::uuid[]) AND EXISTS (
        SELECT FROM {pairs} JOIN bitbucket_users old ON old.id = pair.old JOIN bitbucket_users new ON new.id = pair.new
        WHERE pair.workspace_id = r.workspace_id
          AND (old.counted_as, old.account_id) IS DISTINCT FROM (new.counted_as, new.account_id))""").format(
    pairs=_PAIRS
)
# The weeks of both workspaces changed, and nothing notes those of the old one.
_FORGET_WEEKS = "DELETE FROM build_marks WHERE asset = 'measures/weeks'"


async def store_repositories(transaction: Transaction, frame: "pl.DataFrame") -> None:
    """Merges repositories, and mends the rows below those that were renamed or have moved to another workspace."""
    await renames.follow_renames(transaction, frame)
    moved = await transaction.rows(_MOVED, {"rows": merge.as_json(frame.select(_COLUMNS))})
    await transaction.merge(merge.REPOSITORIES, frame)
    if moved:
        await transaction.execute(_FORGET_WEEKS)
    await rekey(transaction, [row.id for row in moved])


async def rekey(transaction: Transaction, repository_ids: Collection[str]) -> None:
    """Makes all rows below these repositories name users of the workspace that the repository is in now.

    Users missing there are copied, inactive: only the list of members makes a user active.
    """
    bound: dict[str, object] = {"repositories": list(repository_ids)}
    if not repository_ids or not (await transaction.row(_OTHERS_EXIST, bound)).found:
        return
    strangers = await transaction.rows(_STRANGERS, bound)
    if not strangers:
        return
    bound |= {
        "old": [row.id for row in strangers],
        "new": [of_user(row.workspace_id, row.source_id) for row in strangers],
        "workspace": [row.workspace_id for row in strangers],
    }
    await transaction.execute(_COPY_USERS, bound)
    counted_otherwise = await transaction.rows(_COUNTED_OTHERWISE, bound)
    await transaction.execute(_DROP_TWINS, bound)
    for reference in _REFERENCES:
        await transaction.execute(_REKEY.format(pairs=_PAIRS, **reference._asdict()), bound)
    await review_times.derive(transaction, [row.id for row in counted_otherwise])
