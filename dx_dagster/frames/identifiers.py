"""Ids of rows: Bitbucket's uuid where it has one, otherwise derived from the parent's id."""

from functools import lru_cache
from hashlib import sha1
from uuid import NAMESPACE_URL, UUID, uuid5

# Must never change: every derived id depends on it.
NAMESPACE = uuid5(NAMESPACE_URL, "https://api.bitbucket.org/2.0")
# Ids that a page or its neighbours have again. A large import has more than memory should hold.
_REMEMBERED = 4096


@lru_cache(maxsize=_REMEMBERED)
def of_bitbucket(source_id: str) -> str:
    """The id of an object that Bitbucket has a uuid for, in the form `{…}`."""
    try:
        return str(UUID(source_id.strip("{}")))
    except ValueError:
        return str(uuid5(NAMESPACE, source_id))


def within(parent_id: str, *key: object) -> str:
    """The id of an object that `key` identifies within its parent."""
    # Equals str(uuid5(UUID(parent_id), …)) and takes a fifth of the time.
    name = "/".join(map(str, key)).encode()
    digest = bytearray(sha1(bytes.fromhex(parent_id.replace("-", "")) + name, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=_REMEMBERED)
def of_user(workspace_id: str, source_id: str) -> str:
    return within(workspace_id, "user", source_id)


@lru_cache(maxsize=_REMEMBERED)
def of_pull(repository_id: str, number: int) -> str:
    return within(repository_id, "pull", number)
