"""Rows of `bitbucket_environments` and `bitbucket_deployments`.

The description of the API and recorded answers differ (docs/bitbucket-api.md, "Deployments"): both spellings are read.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dx_dagster.frames import identifiers
from dx_dagster.frames.building import FLAG, SMALL_INTEGER, TEXT, TIME, Schema, frame
from dx_dagster.frames.reading import Json, flag, inner, link, number, record, text, time

if TYPE_CHECKING:
    import polars as pl

ENVIRONMENT_SCHEMA: Schema = {
    "id": TEXT,
    "source_id": TEXT,
    "repository_id": TEXT,
    "name": TEXT,
    "slug": TEXT,
    "type": TEXT,
    "rank": SMALL_INTEGER,
    "hidden": FLAG,
    "synced_at": TIME,
}
SCHEMA: Schema = {
    "id": TEXT,
    "source_id": TEXT,
    "repository_id": TEXT,
    "environment_id": TEXT,
    "pipeline_id": TEXT,
    "release_name": TEXT,
    "commit_sha": TEXT,
    "state": TEXT,
    "status": TEXT,
    "created_at": TIME,
    "started_at": TIME,
    "completed_at": TIME,
    "updated_at": TIME,
    "source_url": TEXT,
    "synced_at": TIME,
}


def environments(repository_id: str, values: Iterable[Json], synced_at: datetime) -> "pl.DataFrame":
    return frame(
        ENVIRONMENT_SCHEMA,
        [_environment(repository_id, value, synced_at) for value in values if text(value.get("uuid"))],
    )


def _environment(repository_id: str, value: Json, synced_at: datetime) -> tuple[object, ...]:
    source = text(value["uuid"]) or ""
    return (
        identifiers.of_bitbucket(source),
        source,
        repository_id,
        text(value.get("name")),
        text(value.get("slug")),
        text(inner(value, "environment_type", "name")) or text(inner(value, "category", "name")),
        number(value.get("rank"), 32),
        flag(value.get("hidden")),
        synced_at,
    )


def deployments(repository_id: str, values: Iterable[Json], synced_at: datetime) -> "pl.DataFrame":
    return frame(SCHEMA, [_deployment(repository_id, value, synced_at) for value in values if text(value.get("uuid"))])


def _deployment(repository_id: str, value: Json, synced_at: datetime) -> tuple[object, ...]:
    source, state = text(value["uuid"]) or "", record(value, "state")
    return (
        identifiers.of_bitbucket(source),
        source,
        repository_id,
        _id_of(inner(value, "environment", "uuid")),
        _id_of(_of_release(value, "pipeline", "uuid")),
        text(_of_release(value, "name")),
        text(_of_release(value, "commit", "hash")) or text(inner(value, "commit", "hash")),
        text(state.get("name")),
        text(inner(state, "status", "name")),
        created_at(value),
        started_at(value),
        time(state.get("completed_on")) or time(state.get("completion_date")),
        updated_at(value),
        text(state.get("url")) or text(_of_release(value, "url")) or link(value),
        synced_at,
    )


def created_at(value: Json) -> datetime | None:
    """The date of the release that is deployed: a deployment itself has none before it begins."""
    return time(_of_release(value, "created_on")) or started_at(value)


def started_at(value: Json) -> datetime | None:
    state = record(value, "state")
    return time(state.get("started_on")) or time(state.get("start_date"))


def updated_at(value: Json) -> datetime | None:
    """The date of the last change; absent until the deployment begins."""
    return time(value.get("last_update_time"))


def _of_release(value: Json, *path: str) -> Any:
    """A part of the release, which stands under two names, and not whole under each."""
    part = inner(value, "release", *path)
    return inner(value, "deployable", *path) if part is None else part


def _id_of(source_id: Any) -> str | None:
    source = text(source_id)
    return identifiers.of_bitbucket(source) if source else None
