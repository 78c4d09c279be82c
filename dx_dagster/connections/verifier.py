"""Verifying on behalf of an installation: what it takes counts in the budgets that imports draw on."""

from dataclasses import dataclass

from dx_dagster.connections.input import usable
from dx_dagster.connections.verification import Subject, Verdict, VerificationFailed, verify
from dx_dagster.settings import Settings
from dx_dagster.warehouse.budgets import book
from dx_dagster.warehouse.connections.credentials import NewCredential, StoredCredential
from dx_dagster.warehouse.database import Warehouse


@dataclass(frozen=True)
class Verifier:
    settings: Settings
    warehouse: Warehouse
    subject: Subject

    async def require_good(self, new: NewCredential, credential_id: int | None = None) -> Verdict:
        """How it went with a credential that is good.

        Raises:
            VerificationFailed: it is not.
        """
        verdict = await self.verify(new, credential_id)
        if verdict.failure is not None:
            raise VerificationFailed(verdict.failure)
        return verdict

    async def verify(self, one: StoredCredential | NewCredential, credential_id: int | None) -> Verdict:
        """Books the requests too, but those of an access token that has no number yet, and so no budget."""
        verdict = await verify(self.subject, one)
        if credential_id is not None or one.type == "api_token":
            await self._book(one, credential_id or 0, verdict)
        return verdict

    async def book_first(self, new: NewCredential, added: int, verdict: Verdict) -> None:
        """Books what verifying an access token took, once it has its number."""
        if new.type == "access_token":
            await self._book(new, added, verdict)

    async def _book(self, one: StoredCredential | NewCredential, credential_id: int, verdict: Verdict) -> None:
        # Jira's budgets are others, far above what is asked of it.
        if self.subject.kind != "jira_cloud" and verdict.requests:
            budget = usable(one, credential_id).budget
            await book(self.warehouse, self.settings.budget_window, budget, verdict.requests)
