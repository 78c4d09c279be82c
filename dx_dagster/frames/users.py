"""Rows of `bitbucket_users`: members, and every other account that the API mentions."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dx_dagster.frames import identifiers
from dx_dagster.frames.building import FLAG, TEXT, TIME, Schema, frame
from dx_dagster.frames.reading import Json, record, text

if TYPE_CHECKING:
    import polars as pl

SCHEMA: Schema = {
    "id": TEXT,
    "source_id": TEXT,
    "workspace_id": TEXT,
    "name": TEXT,
    "nickname": TEXT,
    "account_id": TEXT,
    "active": FLAG,
    "bot": FLAG,
    "type": TEXT,
    "imported_type": TEXT,
    "counted_as": TEXT,
    "synced_at": TIME,
}

# Accounts of people have the type user; accounts of the types app_user, AppUser and team are not people. Only its
# name shows that a script uses an account of type user, and people are called Bot too.
_PERSON = "user"
_BOT_NAME = re.compile(r"\[bot\]$|^(?:renovate|dependabot|snyk|sonarcloud)(?:[ -]bot)?$", re.IGNORECASE)
_AI_NAME = re.compile(
    r"\b(?:copilot|coderabbit(?:ai)?|devin|rovo(?: dev)?|claude|codex|cursor|qodo|codium(?:ai)?|greptile|sourcery)\b",
    re.IGNORECASE,
)


def source_id(account: Any) -> str | None:
    """Bitbucket's uuid of an account; its account id where the uuid is missing; None where there is no account."""
    return text(record(account).get("uuid")) or text(record(account).get("account_id")) or None


def user_id(workspace_id: str, account: Any) -> str | None:
    source = source_id(account)
    return identifiers.of_user(workspace_id, source) if source else None


def classify(account: Json) -> str:
    """Returns human, bot or ai_bot."""
    name = text(account.get("display_name")) or ""
    machine = (text(account.get("type")) or _PERSON) != _PERSON or bool(_BOT_NAME.search(name))
    if machine and _AI_NAME.search(name):
        return "ai_bot"
    return "bot" if machine else "human"


Row = tuple[object, ...]


def users(workspace_id: str, accounts: Iterable[Any], synced_at: datetime, *, members: bool = False) -> "pl.DataFrame":
    """One row for each distinct account; null accounts are left out."""
    return framed(rows(workspace_id, accounts, members=members), synced_at)


def rows(workspace_id: str, accounts: Iterable[Any], *, members: bool = False) -> list[Row]:
    """The rows without `synced_at`, which can be compared with stored ones."""
    distinct = {source: account for account in accounts if (source := source_id(account))}
    return [_row(workspace_id, source, account, members) for source, account in distinct.items()]


def framed(without_time: Iterable[Row], synced_at: datetime) -> "pl.DataFrame":
    return frame(SCHEMA, [(*row, synced_at) for row in without_time])


def _row(workspace_id: str, source: str, account: Json, member: bool) -> Row:
    kind = classify(account)
    return (
        identifiers.of_user(workspace_id, source),
        source,
        workspace_id,
        text(account.get("display_name")) or text(account.get("username")),
        text(account.get("nickname")),
        text(account.get("account_id")) or None,
        member,
        kind != "human",
        kind,
        kind,
        kind,
    )
