"""Key rotation: encrypts every stored secret with the first key."""

from psycopg.sql import SQL, Identifier

from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.database import Warehouse

# The tables with secrets, and the name that binds a ciphertext to its row.
_HOLDERS = {"credentials": "credential", "webhook_secrets": "webhook secret"}
_SELECT = SQL("SELECT id, secret FROM {table} WHERE secret <> '' ORDER BY id FOR UPDATE")
_UPDATE = SQL("UPDATE {table} SET secret = %s WHERE id = %s")


async def rekey(warehouse: Warehouse, vault: Vault) -> int:
    """Encrypts all secrets again in one transaction; returns how many there are.

    Raises:
        VaultError: a secret does not open, and nothing was changed.
    """
    done = 0
    async with warehouse.transaction() as transaction:
        for name_of_table, what in _HOLDERS.items():
            table = Identifier(name_of_table)
            for row in await transaction.rows(_SELECT.format(table=table)):
                name = f"{what} {row.id}"
                locked = vault.lock(vault.unlock(row.secret, name), name)
                # updated_at stays: nothing that is shown has changed.
                await transaction.execute(_UPDATE.format(table=table), [locked, row.id])
                done += 1
    return done
