"""Rows of `bitbucket_workspaces` and `bitbucket_repositories`."""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from dx_dagster.frames import identifiers
from dx_dagster.frames.building import FLAG, TEXT, TIME, Schema, frame
from dx_dagster.frames.reading import Json, flag, inner, link, text, time

if TYPE_CHECKING:
    import polars as pl

WORKSPACE_SCHEMA: Schema = {
    "id": TEXT,
    "source_id": TEXT,
    "slug": TEXT,
    "name": TEXT,
    "synced_at": TIME,
}
SCHEMA: Schema = {
    "id": TEXT,
    "source_id": TEXT,
    "workspace_id": TEXT,
    "name": TEXT,
    "slug": TEXT,
    "description": TEXT,
    "private": FLAG,
    "project_key": TEXT,
    "created_at": TIME,
    "updated_at": TIME,
    "source_url": TEXT,
    "default_branch": TEXT,
    "synced_at": TIME,
}


def workspace(value: Json, synced_at: datetime) -> "pl.DataFrame":
    source = text(value.get("uuid")) or ""
    return frame(
        WORKSPACE_SCHEMA,
        [(identifiers.of_bitbucket(source), source, text(value.get("slug")), text(value.get("name")), synced_at)],
    )


def repositories(workspace_id: str, values: Iterable[Json], synced_at: datetime) -> "pl.DataFrame":
    """One row a repository; `slug`, which the documented schema lacks, falls back to the end of `full_name`."""
    return frame(SCHEMA, [_row(workspace_id, value, synced_at) for value in values if text(value.get("uuid"))])


def _row(workspace_id: str, value: Json, synced_at: datetime) -> tuple[object, ...]:
    source = text(value["uuid"]) or ""
    full_name = text(value.get("full_name")) or ""
    return (
        identifiers.of_bitbucket(source),
        source,
        workspace_id,
        text(value.get("name")),
        text(value.get("slug")) or full_name.rpartition("/")[2] or None,
        text(value.get("description")),
        flag(value.get("is_private")),
        text(inner(value, "project", "key")),
        time(value.get("created_on")),
        time(value.get("updated_on")),
        link(value),
        text(inner(value, "mainbranch", "name")),
        synced_at,
    )
