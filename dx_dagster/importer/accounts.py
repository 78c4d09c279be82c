"""Accounts that pages mention: authors, reviewers, commenters and who started a pipeline."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from dx_dagster.frames import commits, users
from dx_dagster.frames.reading import Json
from dx_dagster.importer.workspace import Workspace
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import emails


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


async def store_authors(
    transaction: Transaction, workspace: Workspace, values: Sequence[Json], asked_at: datetime
) -> None:
    """Merges the accounts of commits' authors, and the e-mail addresses by which Bitbucket knows them."""
    await store_accounts(transaction, workspace, commits.accounts(values), asked_at)
    new = transaction.not_merged_before(commits.author_emails(workspace.id, values))
    if new:
        await emails.store_of_commits(transaction, new)
