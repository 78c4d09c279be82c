"""Rows of `bitbucket_workspaces` and `bitbucket_repositories`."""

from collections.abc import Iterable
from datetime import datetime

import polars as pl

from dx_dagster.frames import identifiers
from dx_dagster.frames.building import TIME, Schema, frame
from dx_dagster.frames.reading import Json, flag, inner, link, text, time

WORKSPACE_SCHEMA: Schema = {
    "id": pl.String,
    "source_id": pl.String,
    "slug": pl.String,
    "name": pl.String,
    "synced_at": TIME,
}
SCHEMA: Schema = {
    "id": pl.String,
    "source_id": pl.String,
    "workspace_id": pl.String,
    "name": pl.String,
    "slug": pl.String,
    "description": pl.String,
    "private": pl.Boolean,
    "project_key": pl.String,
    "created_at": TIME,
    "updated_at": TIME,
    "source_url": pl.String,
    "default_branch": pl.String,
    "synced_at": TIME,
}


def workspace(value: Json, synced_at: datetime) -> pl.DataFrame:
    source = text(value.get("uuid")) or ""
    return frame(
        WORKSPACE_SCHEMA,
        [(identifiers.of_bitbucket(source), source, text(value.get("slug")), text(value.get("name")), synced_at)],
    )


def repositories(workspace_id: str, values: Iterable[Json], synced_at: datetime) -> pl.DataFrame:
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
