"""Everybody met on the way: authors, reviewers, those who comment or start pipelines."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from dx_dagster.frames import users
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction


async def store_accounts(
    transaction: Transaction, workspace: Workspace, accounts: Iterable[Any], asked_at: datetime
) -> None:
    """Merges them. The same few come with nearly every page, and are merged once by each process."""
    if new := transaction.not_merged_before(users.rows(workspace.id, accounts)):
        await transaction.merge(merge.USERS, users.framed(new, asked_at))
