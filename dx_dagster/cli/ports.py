"""TCP ports that the commands listen on."""

import errno
import socket
from collections.abc import Mapping
from pathlib import Path

import typer

from dx_dagster.cli.errors import CommandError

LOOPBACK = "127.0.0.1"
Port = typer.Option(min=1, max=65535, help="Port to listen on.")
DatabasePort = typer.Option(
    min=1,
    max=65535,
    help="Port of 127.0.0.1 on which the embedded database listens for BI tools and graphical clients, with a "
    "password. `env --database` prints its address. Without the option it listens on none.",
)


def api_url(port: int) -> str:
    """The address of the API of `up` and `demo`."""
    return f"http://{LOOPBACK}:{port}"


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def require_free(host: str, port: int, *, option: str) -> None:
    """Checks that the port is free, before anything starts.

    Raises:
        CommandError: it is not.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(
                f"Port {port} on {host} is in use by another program, possibly another dx-dagster. "
                f"Nothing was started. Stop that program, or choose another port with {option}."
            ) from None
        raise CommandError(f"Cannot listen on {host}, port {port} ({option}): {error.strerror}.") from None


def require_distinct(ports: Mapping[str, int | None]) -> None:
    """Checks that no two options name one port.

    Raises:
        CommandError: two do.
    """
    seen: dict[int, str] = {}
    for option, port in ports.items():
        if port is not None and seen.setdefault(port, option) != option:
            raise CommandError(
                f"{seen[port]} and {option} are both {port}. Nothing was started. Give each its own port."
            )


def require_database_port(home: Path, port: int | None) -> None:
    """Checks that the port is free for the embedded database, or that this database listens on it already.

    Raises:
        CommandError: another program listens on it.
    """
    from dx_dagster.warehouse.embedded import EmbeddedServer

    if port is not None and EmbeddedServer.of(home).listens_on() != port:
        require_free("127.0.0.1", port, option="--database-port")
