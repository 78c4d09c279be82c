"""Rows of `bitbucket_pulls` and `bitbucket_pull_participants` from lists, single pull requests and webhooks."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dx_dagster.frames import identifiers
from dx_dagster.frames.building import FLAG, INTEGER, SMALL_INTEGER, TEXT, TIME, Schema, frame
from dx_dagster.frames.reading import Json, flag, inner, link, number, records, text, time
from dx_dagster.frames.users import user_id

if TYPE_CHECKING:
    import polars as pl

SCHEMA: Schema = {
    "id": TEXT,
    "source_id": INTEGER,
    "repository_id": TEXT,
    "user_id": TEXT,
    "merged_by_user_id": TEXT,
    "title": TEXT,
    "state": TEXT,
    "draft": FLAG,
    "source_branch": TEXT,
    "target_branch": TEXT,
    "source_commit_sha": TEXT,
    "merge_commit_sha": TEXT,
    "merge_commit_date": TIME,
    "target_commit_sha": TEXT,
    "from_fork": FLAG,
    "close_source_branch": FLAG,
    "comment_count": SMALL_INTEGER,
    "task_count": SMALL_INTEGER,
    "created_at": TIME,
    "updated_at": TIME,
    "source_url": TEXT,
    "synced_at": TIME,
}
PARTICIPANT_SCHEMA: Schema = {
    "pull_id": TEXT,
    "user_id": TEXT,
    "role": TEXT,
    "approved": FLAG,
    "state": TEXT,
    "participated_on": TIME,
    "synced_at": TIME,
}


def pulls(workspace_id: str, repository_id: str, values: Iterable[Json], synced_at: datetime) -> "pl.DataFrame":
    return frame(
        SCHEMA,
        [
            _row(workspace_id, repository_id, value, synced_at)
            for value in values
            if number(value.get("id")) is not None
        ],
    )


def _row(workspace_id: str, repository_id: str, value: Json, synced_at: datetime) -> tuple[object, ...]:
    state = text(value.get("state")) or "OPEN"
    return (
        identifiers.of_pull(repository_id, value["id"]),
        value["id"],
        repository_id,
        user_id(workspace_id, value.get("author")),
        user_id(workspace_id, value.get("closed_by")) if state == "MERGED" else None,
        text(value.get("title")),
        state,
        flag(value.get("draft")),
        text(inner(value, "source", "branch", "name")),
        text(inner(value, "destination", "branch", "name")),
        text(inner(value, "source", "commit", "hash")),
        text(inner(value, "merge_commit", "hash")),
        time(inner(value, "merge_commit", "date")),
        text(inner(value, "destination", "commit", "hash")),
        _is_from_fork(repository_id, value),
        flag(value.get("close_source_branch")),
        number(value.get("comment_count"), 32),
        number(value.get("task_count"), 32),
        time(value.get("created_on")),
        time(value.get("updated_on")),
        link(value),
        synced_at,
    )


def _is_from_fork(repository_id: str, value: Json) -> bool:
    """Whether the source is in another repository; without one, it was a fork that is deleted."""
    source = text(inner(value, "source", "repository", "uuid"))
    return source is None or identifiers.of_bitbucket(source) != repository_id


def participants(workspace_id: str, repository_id: str, values: Iterable[Json], synced_at: datetime) -> "pl.DataFrame":
    """One row for each participant; a reviewer whom `participants` does not list has not acted yet."""
    rows: dict[tuple[str, str], tuple[object, ...]] = {}
    for value in values:
        if number(value.get("id")) is None:
            continue
        pull_id = identifiers.of_pull(repository_id, value["id"])
        for account, row in _participants(value):
            user = user_id(workspace_id, account)
            if user is not None and (pull_id, user) not in rows:
                rows[pull_id, user] = (pull_id, user, *row, synced_at)
    return frame(PARTICIPANT_SCHEMA, list(rows.values()))


def _participants(value: Json) -> Iterator[tuple[Any, Sequence[object]]]:
    for one in records(value, "participants"):
        yield (
            one.get("user"),
            (
                text(one.get("role")),
                flag(one.get("approved")),
                text(one.get("state")),
                time(one.get("participated_on")),
            ),
        )
    for account in records(value, "reviewers"):
        yield account, ("REVIEWER", False, None, None)


def accounts(values: Iterable[Json]) -> Iterator[Any]:
    """Every account that the pull requests mention."""
    for value in values:
        yield value.get("author")
        yield value.get("closed_by")
        yield from (one.get("user") for one in records(value, "participants"))
        yield from records(value, "reviewers")


def states_participants(value: Json) -> bool:
    """Whether the payload lists its participants: without the list, no participant is known to be absent."""
    return isinstance(value.get("participants"), list)
