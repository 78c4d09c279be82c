"""API keys, the sessions that they open, and links that sign in once. Only their hashes are stored."""

import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256

from psycopg.errors import UniqueViolation
from pydantic import SecretStr

from dx_dagster.warehouse.database import Transaction, Warehouse

PREFIX = "dxk_"
SESSION_LASTS = timedelta(hours=12)
LINK_LASTS = timedelta(minutes=15)
_RANDOM_BYTES = 32  # a hash without salt or stretching is enough for so much chance


class NameTakenError(Exception):
    """The name belongs to a key that is not revoked."""


@dataclass(frozen=True)
class ApiKey:
    """An API key without its secret."""

    id: int
    name: str
    hint: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    insights_only: bool


@dataclass(frozen=True)
class Counted:
    """Requests with a key.

    Attributes:
        requests: in this minute.
        seconds_left: of the minute.
    """

    requests: int
    seconds_left: float


_COUNT = """
    INSERT INTO api_key_requests AS old VALUES (%s, date_trunc('minute', clock_timestamp()), 1)
    ON CONFLICT (api_key_id) DO UPDATE SET minute = EXCLUDED.minute,
        requests = CASE WHEN old.minute = EXCLUDED.minute THEN old.requests + 1 ELSE 1 END
    RETURNING requests, extract(epoch FROM minute + interval '1 minute' - clock_timestamp())::float AS seconds_left"""
_LINK = "link:"  # goes into the hash of a link's token, so that the token is no session


@dataclass(frozen=True)
class _StoredKey(ApiKey):
    hash: bytes = field(repr=False)


def _hash(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def digest(key: SecretStr) -> bytes:
    """The hash that is stored of the key."""
    return _hash(key.get_secret_value())


async def digests_in_use(warehouse: Warehouse) -> frozenset[bytes]:
    """The hashes of all keys that are not revoked."""
    return frozenset(
        bytes(row.hash) for row in await warehouse.rows("SELECT hash FROM api_keys WHERE revoked_at IS NULL")
    )


async def create(warehouse: Warehouse, name: str, *, insights_only: bool = False) -> SecretStr:
    """Makes a key and returns it; only its hash is stored.

    `insights_only`: it opens insights and nothing else.

    Raises:
        NameTakenError: a key of this name is in use.
    """
    key = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    async with warehouse.transaction() as transaction:
        try:
            await transaction.execute(
                "INSERT INTO api_keys (name, hash, hint, insights_only) VALUES (%s, %s, %s, %s)",
                [name, _hash(key), key[-4:], insights_only],
            )
        except UniqueViolation:
            raise NameTakenError(name) from None
    return SecretStr(key)


async def all_keys(warehouse: Warehouse) -> list[ApiKey]:
    """Every key, revoked ones included, in the order of creation."""
    return await warehouse.fetch(
        ApiKey, "SELECT id, name, hint, created_at, last_used_at, revoked_at, insights_only FROM api_keys ORDER BY id"
    )


async def named(warehouse: Warehouse, name: str) -> ApiKey | None:
    """The key of this name that is not revoked."""
    return await warehouse.fetch_one(
        ApiKey,
        "SELECT id, name, hint, created_at, last_used_at, revoked_at, insights_only FROM api_keys "
        "WHERE name = %s AND revoked_at IS NULL",
        [name],
    )


async def open_sessions(warehouse: Warehouse, key: ApiKey) -> int:
    """The number of sessions and unused links that the key has opened."""
    row = await warehouse.row(
        "SELECT count(*) AS sessions FROM api_sessions WHERE api_key_id = %s AND expires_at > now()", [key.id]
    )
    return int(row.sessions)


async def revoke(warehouse: Warehouse, name: str) -> bool:
    """Revokes a key and ends the sessions that it opened; returns whether there was one of this name."""
    async with warehouse.transaction() as transaction:
        row = await transaction.row(
            "UPDATE api_keys SET revoked_at = now() WHERE name = %s AND revoked_at IS NULL RETURNING id", [name]
        )
        if row is not None:
            await transaction.execute("DELETE FROM api_sessions WHERE api_key_id = %s", [row.id])
        return row is not None


async def recognize(warehouse: Warehouse, key: SecretStr) -> ApiKey | None:
    """The stored key that equals `key`; None for one that is unknown or revoked."""
    given = digest(key)
    found = None
    # Compares with every key, each in constant time: the response time tells nothing about the keys.
    for stored in await warehouse.fetch(
        _StoredKey,
        "SELECT id, name, hint, created_at, last_used_at, revoked_at, insights_only, hash FROM api_keys "
        "WHERE revoked_at IS NULL",
    ):
        if hmac.compare_digest(bytes(stored.hash), given):
            found = stored
    if found is not None:
        await _record_use(warehouse, found.id)
    return found


async def _record_use(warehouse: Warehouse, key_id: int) -> None:
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE api_keys SET last_used_at = now() "
            "WHERE id = %s AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
            [key_id],
        )


async def count_request(warehouse: Warehouse, key: ApiKey) -> Counted:
    """Counts a request with the key, for all processes of the API together."""
    async with warehouse.transaction() as transaction:
        row = await transaction.row(_COUNT, [key.id])
    return Counted(int(row.requests), float(row.seconds_left))


async def open_session(warehouse: Warehouse, key: ApiKey) -> SecretStr:
    """Opens a session on the connections page for the holder of the key, and returns its token."""
    async with warehouse.transaction() as transaction:
        return await _add_session(transaction, key.id)


async def _add_session(transaction: Transaction, key_id: int) -> SecretStr:
    token = secrets.token_urlsafe(_RANDOM_BYTES)
    await transaction.execute("DELETE FROM api_sessions WHERE expires_at < now()")
    await _keep(transaction, _hash(token), key_id, SESSION_LASTS)
    return SecretStr(token)


async def _keep(transaction: Transaction, hash_: bytes, key_id: int, lasts: timedelta) -> None:
    query = "INSERT INTO api_sessions (hash, api_key_id, expires_at) VALUES (%s, %s, now() + %s)"
    await transaction.execute(query, [hash_, key_id, lasts])


async def create_link(warehouse: Warehouse, name: str) -> SecretStr:
    """A token that opens one session of the key of this name, within `LINK_LASTS`.

    A key that does not exist is made and shown to nobody. Revoking it ends its links and sessions.
    """
    token, key = secrets.token_urlsafe(_RANDOM_BYTES), secrets.token_urlsafe(_RANDOM_BYTES)
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "INSERT INTO api_keys (name, hash, hint) VALUES (%s, %s, %s) "
            "ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING",
            [name, _hash(PREFIX + key), key[-4:]],
        )
        row = await transaction.row("SELECT id FROM api_keys WHERE name = %s AND revoked_at IS NULL", [name])
        if row is None:
            raise RuntimeError(f"the API key {name} was revoked meanwhile")
        await _keep(transaction, _hash(_LINK + token), row.id, LINK_LASTS)
    return SecretStr(token)


async def redeem_link(warehouse: Warehouse, token: SecretStr) -> SecretStr | None:
    """The session that a link opens; None for one that was used, has expired, or whose key was revoked.

    Deleting the row decides who of several uses it: the others find none.
    """
    async with warehouse.transaction() as transaction:
        row = await transaction.row(
            """DELETE FROM api_sessions s USING api_keys k
               WHERE s.hash = %s AND s.expires_at > now() AND k.id = s.api_key_id AND k.revoked_at IS NULL
               RETURNING s.api_key_id""",
            [_hash(_LINK + token.get_secret_value())],
        )
        return None if row is None else await _add_session(transaction, row.api_key_id)


async def session(warehouse: Warehouse, token: SecretStr) -> ApiKey | None:
    """The key that opened a session; None where the session has ended or the key is revoked."""
    key = await warehouse.fetch_one(
        ApiKey,
        """SELECT k.id, name, hint, k.created_at, last_used_at, revoked_at, insights_only
           FROM api_sessions s JOIN api_keys k ON k.id = s.api_key_id
           WHERE s.hash = %s AND s.expires_at > now() AND k.revoked_at IS NULL""",
        [_hash(token.get_secret_value())],
    )
    if key is not None:
        await _record_use(warehouse, key.id)
    return key


async def close_session(warehouse: Warehouse, token: SecretStr) -> None:
    async with warehouse.transaction() as transaction:
        await transaction.execute("DELETE FROM api_sessions WHERE hash = %s", [_hash(token.get_secret_value())])
