"""Rows of `bitbucket_pull_commits` and `bitbucket_repository_default_branch_commits`."""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from dx_dagster.frames import identifiers
from dx_dagster.frames.building import FLAG, TEXT, TEXTS, TIME, Schema, frame
from dx_dagster.frames.reading import Json, inner, link, records, text, time
from dx_dagster.frames.users import user_id

if TYPE_CHECKING:
    import polars as pl

PULL_SCHEMA: Schema = {
    "id": TEXT,
    "sha": TEXT,
    "author_id": TEXT,
    "pull_id": TEXT,
    "created": TIME,
    "message": TEXT,
    "source_url": TEXT,
    "deleted": FLAG,
    "synced_at": TIME,
}
BRANCH_SCHEMA: Schema = {
    "id": TEXT,
    "sha": TEXT,
    "author_id": TEXT,
    "repository_id": TEXT,
    "created": TIME,
    "message": TEXT,
    "source_url": TEXT,
    "parents": TEXTS,
    "synced_at": TIME,
}


# Git writes an author as `Name <address>`. People put anything between the two.
_ADDRESS = re.compile(r"<\s*([^\s<>@]+@[^\s<>@]+)\s*>\s*$")
_LONGEST_ADDRESS = 254


class CommitRow(NamedTuple):
    """The columns that both tables of commits share."""

    sha: str
    author_id: str | None
    created: datetime | None
    message: str | None
    source_url: str | None


def rows(workspace_id: str, values: Iterable[Json]) -> Iterator[CommitRow]:
    """Yields a row for each commit that has a hash."""
    for value in values:
        if sha := text(value.get("hash")):
            author_id = user_id(workspace_id, inner(value, "author", "user"))
            yield CommitRow(sha, author_id, time(value.get("date")), text(value.get("message")), link(value))


def pull_commits(by_pull: Iterable[tuple[str, CommitRow]], synced_at: datetime) -> "pl.DataFrame":
    """One row for each (id of the pull request, commit)."""
    return frame(
        PULL_SCHEMA,
        [
            (
                identifiers.within(pull_id, "commit", commit.sha),
                commit.sha,
                commit.author_id,
                pull_id,
                commit.created,
                commit.message,
                commit.source_url,
                False,
                synced_at,
            )
            for pull_id, commit in by_pull
        ],
    )


def branch_commits(
    workspace_id: str, repository_id: str, values: Iterable[Json], synced_at: datetime
) -> "pl.DataFrame":
    return frame(
        BRANCH_SCHEMA,
        [
            (
                identifiers.within(repository_id, "commit", commit.sha),
                commit.sha,
                commit.author_id,
                repository_id,
                commit.created,
                commit.message,
                commit.source_url,
                parents(value),
                synced_at,
            )
            for value in values
            for commit in rows(workspace_id, [value])
        ],
    )


def parents(value: Json) -> list[str]:
    """Hashes of a commit's parents; the first one is of the branch merged into."""
    return [sha for parent in records(value, "parents") if (sha := text(parent.get("hash")))]


def accounts(values: Iterable[Json]) -> Iterator[Any]:
    """The authors whose e-mail address Bitbucket matched to an account."""
    return (inner(value, "author", "user") for value in values)


def author_emails(workspace_id: str, values: Iterable[Json]) -> list[tuple[str, str]]:
    """The distinct (id of the user, e-mail address) of authors whose address Bitbucket matched to an account.

    Anybody may write any address into a commit: without the account, it says nothing.
    """
    found: dict[tuple[str, str], None] = {}
    for value in values:
        author_id = user_id(workspace_id, inner(value, "author", "user"))
        address = _ADDRESS.search(text(inner(value, "author", "raw")) or "")
        if author_id and address and len(address[1]) <= _LONGEST_ADDRESS:
            found[author_id, address[1].lower()] = None
    return list(found)
