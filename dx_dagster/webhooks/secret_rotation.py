"""Which secret signs a connection's deliveries: when one is reused, added and retired."""

from pydantic import SecretStr

from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.webhooks import secrets

NumberedSecret = tuple[int, SecretStr]


async def current_or_new(settings: Settings, warehouse: Warehouse, connection_id: int) -> NumberedSecret:
    """The connection's current secret; the first call makes one."""
    vault = Vault.of(settings)
    current = await secrets.current(warehouse, vault, connection_id)
    return current or await secrets.add(warehouse, vault, connection_id)


async def add(settings: Settings, warehouse: Warehouse, connection_id: int) -> NumberedSecret:
    """A new secret. The older ones stay valid until `retire`."""
    return await secrets.add(warehouse, Vault.of(settings), connection_id)


async def rotate(settings: Settings, warehouse: Warehouse, connection_id: int) -> NumberedSecret:
    """A new secret; the older ones expire after the grace period."""
    number, secret = await add(settings, warehouse, connection_id)
    await secrets.retire(warehouse, connection_id, but=number)
    return number, secret
