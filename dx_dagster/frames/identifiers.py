"""Ids of rows: Bitbucket's own uuid where there is one, derived from the parent's id elsewhere."""

from functools import lru_cache
from uuid import NAMESPACE_URL, UUID, uuid5

# Never to be changed: every id that no uuid of Bitbucket stands for is derived from it.
NAMESPACE = uuid5(NAMESPACE_URL, "https://api.bitbucket.org/2.0")


@lru_cache(maxsize=65536)
def of_bitbucket(source_id: str) -> str:
    """The id of something that Bitbucket has a uuid for, written `{…}` there."""
    try:
        return str(UUID(source_id.strip("{}")))
    except ValueError:
        return str(uuid5(NAMESPACE, source_id))


def within(parent_id: str, *key: object) -> str:
    """The id of something that is told apart by `key` within its parent."""
    return str(uuid5(UUID(parent_id), "/".join(map(str, key))))


@lru_cache(maxsize=65536)
def of_user(workspace_id: str, source_id: str) -> str:
    return within(workspace_id, "user", source_id)


def of_pull(repository_id: str, number: int) -> str:
    return within(repository_id, "pull", number)
