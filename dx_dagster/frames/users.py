"""`bitbucket_users`: members, and every other author met."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import polars as pl

from dx_dagster.frames import identifiers
from dx_dagster.frames.building import TIME, Schema, frame
from dx_dagster.frames.reading import Json, record, text

SCHEMA: Schema = {
    "id": pl.String,
    "source_id": pl.String,
    "workspace_id": pl.String,
    "name": pl.String,
    "nickname": pl.String,
    "account_id": pl.String,
    "active": pl.Boolean,
    "bot": pl.Boolean,
    "type": pl.String,
    "counted_as": pl.String,
    "synced_at": TIME,
}

# Accounts of people are of type user; app_user, AppUser and team were met too, and none of them is a person. A person's
# account that a script uses can only be told by its name, and people are called Bot too.
_PERSON = "user"
_BOT_NAME = re.compile(r"\[bot\]$|^(?:renovate|dependabot|snyk|sonarcloud)(?:[ -]bot)?$", re.IGNORECASE)
_AI_NAME = re.compile(
    r"\b(?:copilot|coderabbit(?:ai)?|devin|rovo(?: dev)?|claude|codex|cursor|qodo|codium(?:ai)?|greptile|sourcery)\b",
    re.IGNORECASE,
)


def source_id(account: Any) -> str | None:
    """Bitbucket's uuid of an account; its account id where the uuid is missing; None for no account at all."""
    return text(record(account).get("uuid")) or text(record(account).get("account_id")) or None


def user_id(workspace_id: str, account: Any) -> str | None:
    source = source_id(account)
    return identifiers.of_user(workspace_id, source) if source else None


def classify(account: Json) -> str:
    """human, bot or ai_bot."""
    name = text(account.get("display_name")) or ""
    machine = (text(account.get("type")) or _PERSON) != _PERSON or bool(_BOT_NAME.search(name))
    if machine and _AI_NAME.search(name):
        return "ai_bot"
    return "bot" if machine else "human"


Row = tuple[object, ...]


def users(workspace_id: str, accounts: Iterable[Any], synced_at: datetime, *, members: bool = False) -> pl.DataFrame:
    """One row for each distinct account, whatever the order and the repetitions; null accounts are left out."""
    return framed(rows(workspace_id, accounts, members=members), synced_at)


def rows(workspace_id: str, accounts: Iterable[Any], *, members: bool = False) -> list[Row]:
    """The same without `synced_at`, to look whether they are known."""
    distinct = {source: account for account in accounts if (source := source_id(account))}
    return [_row(workspace_id, source, account, members) for source, account in distinct.items()]


def framed(found: Iterable[Row], synced_at: datetime) -> pl.DataFrame:
    return frame(SCHEMA, [(*row, synced_at) for row in found])


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
    )
