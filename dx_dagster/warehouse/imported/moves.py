"""Repositories that move between workspaces: a person has one user in each, so what names the old ones is re-keyed."""

from collections.abc import Collection

import polars as pl

from dx_dagster.frames.identifiers import of_user
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import renames, review_times
from dx_dagster.warehouse.schema import bitbucket as tables

_COLUMNS = ("id", "workspace_id", "synced_at")
_MOVED = f"""
    SELECT stored.id::text FROM {merge.recordset(tables.repositories, _COLUMNS)}
    JOIN bitbucket_repositories stored USING (id)
    WHERE stored.workspace_id <> incoming.workspace_id
      AND {merge.is_not_older(merge.REPOSITORIES, "incoming", "stored")}"""  # noqa: S608

# Which columns name users, and how their rows `t` belong to a repository `r`.
_OF_REPOSITORY = ("bitbucket_repositories r", "t.repository_id = r.id")
_OF_PULL = ("bitbucket_repositories r JOIN bitbucket_pulls p ON p.repository_id = r.id", "t.pull_id = p.id")
_REFERENCES = (
    ("bitbucket_pulls", "user_id", *_OF_REPOSITORY),
    ("bitbucket_pulls", "merged_by_user_id", *_OF_REPOSITORY),
    ("bitbucket_pull_participants", "user_id", *_OF_PULL),
    ("bitbucket_pull_activities", "user_id", *_OF_PULL),
    ("bitbucket_pull_comments", "user_id", *_OF_PULL),
    ("bitbucket_pull_commits", "author_id", *_OF_PULL),
    ("bitbucket_repository_default_branch_commits", "author_id", *_OF_REPOSITORY),
    ("bitbucket_pipelines", "user_id", *_OF_REPOSITORY),
)
_THESE = "r.id = ANY(%(repositories)s::uuid[])"
_OTHERS_EXIST = f"""
    SELECT EXISTS (SELECT FROM bitbucket_users WHERE workspace_id NOT IN
                   (SELECT workspace_id FROM bitbucket_repositories r WHERE {_THESE}))
        OR (SELECT count(DISTINCT workspace_id) > 1 FROM bitbucket_repositories r WHERE {_THESE}) AS found"""  # noqa: S608
_NAMED = " UNION ".join(
    f"SELECT t.{column} AS id, r.workspace_id FROM {owners} JOIN {table} t ON {belongs} WHERE {_THESE}"  # noqa: S608
    for table, column, owners, belongs in _REFERENCES
)
_STRANGERS = f"""
    SELECT u.id::text, u.source_id, named.workspace_id::text
    FROM ({_NAMED}) named JOIN bitbucket_users u USING (id) WHERE u.workspace_id <> named.workspace_id"""  # noqa: S608

_ROWS = "unnest(%(old)s::uuid[], %(new)s::uuid[], %(workspace)s::uuid[])"
_PAIRS = f"{_ROWS} AS pair (old, new, workspace_id)"
_COPIED = "name, nickname, account_id, email, bot, type, counted_as, synced_at"
_COPY_USERS = f"""
    INSERT INTO bitbucket_users (id, source_id, workspace_id, active, {_COPIED})
    SELECT pair.new, u.source_id, pair.workspace_id, false, {_COPIED}
    FROM {_PAIRS} JOIN bitbucket_users u ON u.id = pair.old
    ORDER BY pair.new
    ON CONFLICT (id) DO NOTHING"""  # noqa: S608
# A list that came after the move may have stored the same person as the new user beside the old one; and after two
# moves there may be two old ones.
_DROP_TWINS = f"""
    DELETE FROM bitbucket_pull_participants t USING {_OF_PULL[0]}, {_PAIRS}
    WHERE {_THESE} AND {_OF_PULL[1]} AND pair.workspace_id = r.workspace_id AND t.user_id = pair.old
      AND EXISTS (SELECT FROM bitbucket_pull_participants k
                  LEFT JOIN {_ROWS} AS twin (old, new, workspace_id)
                  ON twin.old = k.user_id AND twin.workspace_id = r.workspace_id
                  WHERE k.pull_id = t.pull_id
                    AND (k.user_id = pair.new OR (twin.new = pair.new AND k.user_id > t.user_id)))"""  # noqa: S608
_REKEY = """
    UPDATE {table} t SET {column} = pair.new
    FROM {owners}, {pairs}
    WHERE {these} AND {belongs} AND pair.workspace_id = r.workspace_id AND t.{column} = pair.old"""
# What a user counts as may differ from workspace to workspace, and durations with it.
_COUNTED_OTHERWISE = f"""
    SELECT DISTINCT p.id::text FROM bitbucket_pulls p JOIN bitbucket_repositories r ON r.id = p.repository_id
    WHERE {_THESE} AND EXISTS (
        SELECT FROM {_PAIRS} JOIN bitbucket_users old ON old.id = pair.old JOIN bitbucket_users new ON new.id = pair.new
        WHERE pair.workspace_id = r.workspace_id
          AND (old.counted_as, old.account_id) IS DISTINCT FROM (new.counted_as, new.account_id))"""  # noqa: S608


async def store_repositories(transaction: Transaction, frame: pl.DataFrame) -> None:
    """Merges repositories; what belongs to one that was renamed or has moved follows it."""
    await renames.follow_renames(transaction, frame)
    moved = await transaction.rows(_MOVED, {"rows": merge.as_json(frame.select(_COLUMNS))})
    await transaction.merge(merge.REPOSITORIES, frame)
    await rekey(transaction, [row.id for row in moved])


async def rekey(transaction: Transaction, repository_ids: Collection[str]) -> None:
    """Lets all rows below these repositories name users of the workspace that the repository is in now.

    Users whom that workspace lacks are copied there, inactive: its list of members says who is active.
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
    for table, column, owners, belongs in _REFERENCES:
        statement = _REKEY.format(
            table=table, column=column, owners=owners, belongs=belongs, pairs=_PAIRS, these=_THESE
        )
        await transaction.execute(statement, bound)
    await review_times.derive(transaction, [row.id for row in counted_otherwise])
