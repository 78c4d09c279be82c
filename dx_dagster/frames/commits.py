"""`bitbucket_pull_commits` and `bitbucket_repository_default_branch_commits`."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import polars as pl

from dx_dagster.frames import identifiers
from dx_dagster.frames.reading import TIME, Json, Schema, frame, inner, link, records, text, time
from dx_dagster.frames.users import user_id

PULL_SCHEMA: Schema = {
    "id": pl.String,
    "sha": pl.String,
    "author_id": pl.String,
    "pull_id": pl.String,
    "created": TIME,
    "message": pl.String,
    "source_url": pl.String,
    "deleted": pl.Boolean,
    "synced_at": TIME,
}
BRANCH_SCHEMA: Schema = {
    "id": pl.String,
    "sha": pl.String,
    "author_id": pl.String,
    "repository_id": pl.String,
    "created": TIME,
    "message": pl.String,
    "source_url": pl.String,
    "parents": pl.List(pl.String),
    "synced_at": TIME,
}


def pull_commits(workspace_id: str, found: Iterable[tuple[str, Json]], synced_at: datetime) -> pl.DataFrame:
    """One row for each (id of the pull request, commit)."""
    return frame(
        PULL_SCHEMA,
        [
            (
                identifiers.within(pull_id, "commit", value["hash"]),
                value["hash"],
                user_id(workspace_id, inner(value, "author", "user")),
                pull_id,
                time(value.get("date")),
                text(value.get("message")),
                link(value),
                False,
                synced_at,
            )
            for pull_id, value in found
            if text(value.get("hash"))
        ],
    )


def branch_commits(workspace_id: str, repository_id: str, values: Iterable[Json], synced_at: datetime) -> pl.DataFrame:
    return frame(
        BRANCH_SCHEMA,
        [
            (
                identifiers.within(repository_id, "commit", value["hash"]),
                value["hash"],
                user_id(workspace_id, inner(value, "author", "user")),
                repository_id,
                time(value.get("date")),
                text(value.get("message")),
                link(value),
                parents(value),
                synced_at,
            )
            for value in values
            if text(value.get("hash"))
        ],
    )


def parents(value: Json) -> list[str]:
    """Hashes of a commit's parents, the branch merged into first."""
    return [sha for parent in records(value, "parents") if (sha := text(parent.get("hash")))]


def accounts(values: Iterable[Json]) -> Iterator[Any]:
    """The authors that Bitbucket could tell from their e-mail address."""
    return (inner(value, "author", "user") for value in values)
