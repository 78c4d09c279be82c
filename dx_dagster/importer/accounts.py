"""Accounts that pages mention: authors, reviewers, commenters and who started a pipeline."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from dx_dagster.frames import users
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction


async def store_accounts(
    transaction: Transaction, workspace: Workspace, accounts: Iterable[Any], asked_at: datetime
) -> int:
    """Merges accounts; returns how many are new, and adds them to `workspace.new_accounts`.

    The same few accounts come with nearly every page, so a process merges an unchanged one only once.
    """
    changed = transaction.not_merged_before(users.rows(workspace.id, accounts))
    if not changed:
        return 0
    counts = await transaction.merge(merge.USERS, users.framed(changed, asked_at))
    workspace.new_accounts.count += counts.inserted
    return counts.inserted
