"""Rows of `bitbucket_pipelines`."""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from dx_dagster.frames import identifiers
from dx_dagster.frames.building import INTEGER, SMALL_INTEGER, TEXT, TIME, Schema, frame
from dx_dagster.frames.reading import Json, inner, link, number, record, text, time
from dx_dagster.frames.users import user_id

if TYPE_CHECKING:
    import polars as pl

SCHEMA: Schema = {
    "id": TEXT,
    "source_id": TEXT,
    "repository_id": TEXT,
    "build_number": INTEGER,
    "run_number": SMALL_INTEGER,
    "state": TEXT,
    "stage": TEXT,
    "result": TEXT,
    "trigger": TEXT,
    "ref_name": TEXT,
    "commit_sha": TEXT,
    "pull_id": TEXT,
    "user_id": TEXT,
    "created_at": TIME,
    "completed_at": TIME,
    "duration": INTEGER,
    "source_url": TEXT,
    "synced_at": TIME,
}


def pipelines(workspace_id: str, repository_id: str, values: Iterable[Json], synced_at: datetime) -> "pl.DataFrame":
    return frame(
        SCHEMA,
        [_row(workspace_id, repository_id, value, synced_at) for value in values if text(value.get("uuid"))],
    )


def _row(workspace_id: str, repository_id: str, value: Json, synced_at: datetime) -> tuple[object, ...]:
    source = text(value["uuid"]) or ""
    target = record(value, "target")
    pull = number(inner(target, "pullrequest", "id"))
    return (
        identifiers.of_bitbucket(source),
        source,
        repository_id,
        number(value.get("build_number")),
        number(value.get("run_number"), 32),
        text(inner(value, "state", "name")),
        text(inner(value, "state", "stage", "name")),
        text(inner(value, "state", "result", "name")),
        text(inner(value, "trigger", "name")),
        # The target of a pull request names its branches, that of a ref the branch or tag, that of a commit neither.
        text(target.get("ref_name")) or text(target.get("source")),
        text(inner(target, "commit", "hash")),
        identifiers.of_pull(repository_id, pull) if pull is not None else None,
        user_id(workspace_id, value.get("creator")),
        time(value.get("created_on")),
        time(value.get("completed_on")),
        _seconds(value.get("duration_in_seconds")),
        _page(value),
        synced_at,
    )


def _page(value: Json) -> str | None:
    """The URL of the pipeline's page: the API returns only that of its repository."""
    repository, build = link(record(value, "repository")), number(value.get("build_number"))
    return link(value) or (f"{repository}/pipelines/results/{build}" if repository and build is not None else None)


def _seconds(value: object) -> int | None:
    """A duration; a negative one, from clocks that differ, becomes None."""
    seconds = number(value)
    return seconds if seconds is None or seconds >= 0 else None
