"""Proves that a believed webhook tells every change: notes what a reconcile finds and no delivery has told.

A change counts where its repository was asked before while the webhook was believed. Whether a delivery tells it after
all, one that is under way or waits, is decided later (`webhooks.belief`).
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from dx_dagster.importer.workspace import Workspace, require_id
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import marks, untold_changes
from dx_dagster.warehouse.imported.marks import Mark


@dataclass(frozen=True)
class Proving:
    """Notes untold changes. `asked_at`: by id, when each repository with a believed webhook was last asked."""

    asked_at: Mapping[str, datetime] = field(default_factory=dict)

    @classmethod
    async def of(cls, workspace: Workspace, kind: type[Mark]) -> Self:
        """For the marks of one kind; call it before a full import forgets them."""
        if workspace.proves_since is None:
            return cls()
        asked = await marks.asked(workspace.warehouse, require_id(workspace), kind, workspace.proves_since)
        return cls(asked)

    @asynccontextmanager
    async def pull_requests(
        self, transaction: Transaction, repository_id: str, numbers: Collection[int]
    ) -> AsyncIterator[None]:
        """Wraps the storing of pull requests."""
        if repository_id not in self.asked_at:
            yield
            return
        before = await untold_changes.pulls_before(transaction, repository_id, numbers)
        yield
        await untold_changes.note_pulls(transaction, repository_id, numbers, before, self.asked_at[repository_id])

    @asynccontextmanager
    async def pipelines(
        self, transaction: Transaction, repository_id: str, numbers: Collection[int]
    ) -> AsyncIterator[None]:
        """Wraps the storing of pipelines."""
        if repository_id not in self.asked_at:
            yield
            return
        before = await untold_changes.pipelines_before(transaction, repository_id, numbers)
        yield
        await untold_changes.note_pipelines(transaction, repository_id, numbers, before, self.asked_at[repository_id])


PROVES_NOTHING = Proving()
