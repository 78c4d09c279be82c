"""The values of the limits."""

import logging
import resource
from contextlib import suppress
from dataclasses import dataclass

from dx_dagster.settings import Settings

BACKLOG = 512
# Connections that wait in the backlog, and the process's own files: database, log, libraries.
_OTHER_FILES = BACKLOG + 128
_FEWEST_CONNECTIONS = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Sizes are in bytes, times in seconds.

    Attributes:
        patience_seconds: a younger connection is not closed to make room; its request may be on its way.
        uncounted: addresses and networks of proxies, whose connections belong to many clients.
    """

    request_line: int = 8 * 1024
    headers: int = 32 * 1024
    fields: int = 100
    body: int = 4 * 1024 * 1024
    head_seconds: float = 10
    body_seconds: float = 30
    idle_seconds: float = 60
    answer_seconds: float = 30
    patience_seconds: float = 1
    connections: int = 1000
    connections_per_address: int = 200
    uncounted: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(
            connections=settings.http_connections,
            connections_per_address=settings.http_connections_per_address,
            uncounted=tuple(settings.proxies),
        )


def affordable(connections: int) -> int:
    """The number of connections that the limit of open files allows; raises that limit where it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    affordable = max(_FEWEST_CONNECTIONS, min(connections, soft - _OTHER_FILES))
    if affordable < connections:
        _log.warning(
            "At most %d connections instead of %d (DX_HTTP_CONNECTIONS): this process may open %d files. "
            "To allow all connections, raise the limit of open files to %d (ulimit -n).",
            affordable,
            connections,
            soft,
            wanted,
        )
    return affordable
