"""One look at the webhook of a workspace, for the connections page: its state at Bitbucket, at this moment."""

from dataclasses import dataclass

from dx_dagster.bitbucket import BitbucketError, sentence
from dx_dagster.connections import advice
from dx_dagster.connections.actions import target_of
from dx_dagster.connections.input import usable
from dx_dagster.connections.verification import asking
from dx_dagster.settings import Settings
from dx_dagster.warehouse.budgets import book
from dx_dagster.warehouse.connections import credentials
from dx_dagster.warehouse.connections.connections import StoredConnection
from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.webhooks import secrets
from dx_dagster.webhooks.address import known_receiver
from dx_dagster.webhooks.hooks import Hook, HooksRefusedError, HookSubject, find


@dataclass(frozen=True)
class Look:
    """What was seen: the hooks of this installation, or why they could not be read."""

    hooks: tuple[Hook, ...] = ()
    refused: str | None = None

    @property
    def is_correct(self) -> bool:
        return any(not hook.wrong for hook in self.hooks)

    @property
    def sentence(self) -> str:
        if self.refused is not None:
            return self.refused
        if not self.hooks:
            return "There is no webhook of dx-dagster on this workspace. One entered by hand is known by DX_PUBLIC_URL."
        if self.is_correct:
            return "The webhook is in place: active, with its secret, and it sends every event that is understood."
        return f"The webhook needs repair: {'; '.join(self.hooks[0].wrong)}."


async def look(settings: Settings, warehouse: Warehouse, connection: StoredConnection) -> Look:
    """Asks Bitbucket for the hooks, with each credential in turn until one may read them."""
    made = await secrets.hooks(warehouse, connection.id)
    seen = Look(refused="No credential of this connection can be used.")
    for stored in await credentials.all_of(warehouse, Vault.of(settings), connection.id):
        credential = usable(stored)
        async with asking(target_of(settings, connection), credential) as client:
            try:
                found = await find(client.client, HookSubject(connection.workspace), known_receiver(settings), made)
                seen = Look(tuple(found))
            except HooksRefusedError as error:
                seen = Look(refused=str(error))
            except BitbucketError as error:
                told = advice.of_error(settings.bitbucket_api_url, error)
                seen = Look(refused=f"Bitbucket does not show its webhooks: {sentence(told)}")
            requests = client.client.requests
        await book(warehouse, settings.budget_window, credential.budget, requests)
        if seen.refused is None:
            break
    return seen
