"""Rotation: every stored secret under the first key."""

from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.database import Warehouse

# Table, and what its rows are called in their ciphertexts.
_HOLDERS = {"credentials": "credential", "webhook_secrets": "webhook secret"}


async def rekey(warehouse: Warehouse, vault: Vault) -> int:
    """Encrypts every secret anew, all or none; how many there were.

    Raises:
        VaultError: a secret does not open, and nothing was changed.
    """
    done = 0
    async with warehouse.transaction() as transaction:
        for table, what in _HOLDERS.items():
            for row in await transaction.rows(
                f"SELECT id, secret FROM {table} WHERE secret <> '' ORDER BY id FOR UPDATE"  # noqa: S608
            ):
                name = f"{what} {row.id}"
                locked = vault.lock(vault.unlock(row.secret, name), name)
                # updated_at stays: nothing that people see has changed.
                await transaction.execute(
                    f"UPDATE {table} SET secret = %s WHERE id = %s",  # noqa: S608
                    [locked, row.id],
                )
                done += 1
    return done
