"""Rows of `bitbucket_pull_comments` from the comments endpoint, the activity feed and webhooks."""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from dx_dagster.frames import identifiers
from dx_dagster.frames.building import FLAG, INTEGER, SMALL_INTEGER, TEXT, TIME, Schema, frame
from dx_dagster.frames.reading import Json, inner, link, number, text, time
from dx_dagster.frames.users import user_id

if TYPE_CHECKING:
    import polars as pl

SCHEMA: Schema = {
    "id": TEXT,
    "source_id": INTEGER,
    "pull_id": TEXT,
    "user_id": TEXT,
    "parent_source_id": INTEGER,
    "content": TEXT,
    "inline_path": TEXT,
    "inline_from": SMALL_INTEGER,
    "inline_to": SMALL_INTEGER,
    "created_at": TIME,
    "updated_at": TIME,
    "deleted": FLAG,
    "source_url": TEXT,
    "synced_at": TIME,
}


def comments(workspace_id: str, by_pull: Iterable[tuple[str, Json]], synced_at: datetime) -> "pl.DataFrame":
    """One row for each (id of the pull request, comment); unpublished drafts (`pending`) are left out."""
    return frame(
        SCHEMA,
        [
            _row(workspace_id, pull_id, comment, synced_at)
            for pull_id, comment in by_pull
            if number(comment.get("id")) is not None and not comment.get("pending")
        ],
    )


def _row(workspace_id: str, pull_id: str, comment: Json, synced_at: datetime) -> tuple[object, ...]:
    created = time(comment.get("created_on"))
    return (
        identifiers.within(pull_id, "comment", comment["id"]),
        comment["id"],
        pull_id,
        user_id(workspace_id, comment.get("user")),
        number(inner(comment, "parent", "id")),
        text(inner(comment, "content", "raw")),
        text(inner(comment, "inline", "path")),
        number(inner(comment, "inline", "from"), 32),
        number(inner(comment, "inline", "to"), 32),
        created,
        time(comment.get("updated_on")) or created,
        bool(comment.get("deleted")),
        link(comment),
        synced_at,
    )
