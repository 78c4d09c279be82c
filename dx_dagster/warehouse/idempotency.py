"""Keys with which a client repeats a request without doing its work twice, kept for a day."""

from dataclasses import dataclass

from dx_dagster.warehouse.database import Transaction, Warehouse

_FORGET = "DELETE FROM idempotency_keys WHERE created_at < now() - interval '1 day'"


class ReusedError(Exception):
    """The key belongs to a request with another content."""


@dataclass(frozen=True)
class IdempotencyKey:
    """A client's key for a request on a connection; `content` is a digest of what the request asks for."""

    connection_id: int
    key: str
    content: bytes


async def claim(warehouse: Warehouse, key: IdempotencyKey) -> int | None:
    """Claims the key for its content; returns the id of the credential that it has added already.

    A request that was killed leaves a claim without a credential: its content may be tried again.

    Raises:
        ReusedError: another content has claimed it within a day.
    """
    async with warehouse.transaction() as transaction:
        await transaction.execute(_FORGET)
        await transaction.execute(
            "INSERT INTO idempotency_keys (connection_id, key, content) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            [key.connection_id, key.key, key.content],
        )
        row = await transaction.row(
            "SELECT content, credential_id FROM idempotency_keys WHERE connection_id = %s AND key = %s",
            [key.connection_id, key.key],
        )
    if bytes(row.content) != key.content:
        raise ReusedError(key.key)
    return None if row.credential_id is None else int(row.credential_id)


async def settle(transaction: Transaction, key: IdempotencyKey, credential_id: int) -> None:
    """Stores which credential the request has added; call it in the transaction that adds it."""
    await transaction.execute(
        # Another attempt of the same request may have failed meanwhile, and released the claim.
        """INSERT INTO idempotency_keys (connection_id, key, content, credential_id) VALUES (%s, %s, %s, %s)
           ON CONFLICT (connection_id, key) DO UPDATE SET credential_id = excluded.credential_id
           WHERE idempotency_keys.content = excluded.content""",
        [key.connection_id, key.key, key.content, credential_id],
    )


async def release(warehouse: Warehouse, key: IdempotencyKey) -> None:
    """Gives the claim of a request back that has added nothing."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "DELETE FROM idempotency_keys WHERE connection_id = %s AND key = %s AND content = %s "
            "AND credential_id IS NULL",
            [key.connection_id, key.key, key.content],
        )
