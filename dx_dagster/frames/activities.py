"""Rows of `bitbucket_pull_activities` from the entries of an activity feed, which have neither an id nor a date."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from dx_dagster.frames import identifiers
from dx_dagster.frames.building import FLAG, INTEGER, TEXT, TIME, Schema, frame
from dx_dagster.frames.reading import Json, flag, inner, number, record, text, time
from dx_dagster.frames.users import user_id

if TYPE_CHECKING:
    import polars as pl

SCHEMA: Schema = {
    "id": TEXT,
    "pull_id": TEXT,
    "user_id": TEXT,
    "kind": TEXT,
    "created_at": TIME,
    "state": TEXT,
    "draft": FLAG,
    "comment_source_id": INTEGER,
    "synced_at": TIME,
}
# kind: (field of the date, field of the actor)
_PARTS = {
    "comment": ("created_on", "user"),
    "update": ("date", "author"),
    "approval": ("date", "user"),
    "changes_requested": ("date", "user"),
}


_KEPT = {
    "comment": ("id", "parent", "content", "inline", "created_on", "updated_on", "deleted", "pending", "links"),
    "update": ("date", "state", "draft"),
    "approval": ("date",),
    "changes_requested": ("date",),
}


class Entry(NamedTuple):
    """The parts of an entry of the feed."""

    number: int
    kind: str
    date: datetime
    actor: Any
    body: Json


def shortened(value: Json) -> dict[str, Any]:
    """An entry of the feed without what is not stored: whole pull requests, rendered text, pictures of people."""
    short: dict[str, Any] = {"pull_request": {"id": inner(value, "pull_request", "id")}}
    for kind, (_, actor) in _PARTS.items():
        if isinstance(body := value.get(kind), dict):
            short[kind] = {name: body[name] for name in _KEPT[kind] if name in body}
            short[kind][actor] = _without_links(body.get(actor))
            if kind == "comment" and isinstance(content := body.get("content"), dict):
                short[kind]["content"] = {"raw": content.get("raw")}
    return short


def _without_links(account: Any) -> Any:
    return {name: part for name, part in account.items() if name != "links"} if isinstance(account, dict) else account


def entries(values: Iterable[Json]) -> Iterator[Entry]:
    """Yields the entries that have a kind, a date and a pull request; others hold nothing to store.

    Unpublished draft comments of the credential's own account (`pending`) are left out.
    """
    for value in values:
        pull = number(inner(value, "pull_request", "id"))
        kind = next((kind for kind in _PARTS if isinstance(value.get(kind), dict)), None)
        if pull is None or kind is None:
            continue
        body = record(value, kind)
        date = time(body.get(_PARTS[kind][0]))
        if date is not None and not (kind == "comment" and body.get("pending")):
            yield Entry(pull, kind, date, body.get(_PARTS[kind][1]), body)


def activities(workspace_id: str, repository_id: str, entries: Iterable[Entry], synced_at: datetime) -> "pl.DataFrame":
    return frame(SCHEMA, [_row(workspace_id, repository_id, entry, synced_at) for entry in entries])


def _row(workspace_id: str, repository_id: str, entry: Entry, synced_at: datetime) -> tuple[object, ...]:
    pull_id = identifiers.of_pull(repository_id, entry.number)
    comment = number(entry.body.get("id")) if entry.kind == "comment" else None
    state = text(entry.body.get("state")) if entry.kind == "update" else None
    # A deleted account keeps its account id, and its uuid changes.
    actor = record(entry.actor)
    who = text(actor.get("account_id")) or text(actor.get("uuid")) or ""
    key = comment if comment is not None else f"{entry.date.isoformat()}/{who}/{state or ''}"
    return (
        identifiers.within(pull_id, "activity", entry.kind, key),
        pull_id,
        user_id(workspace_id, entry.actor),
        entry.kind,
        entry.date,
        state,
        flag(entry.body.get("draft")) if entry.kind == "update" else None,
        comment,
        synced_at,
    )
