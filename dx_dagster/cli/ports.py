"""TCP ports that the commands listen on."""

import errno
import socket

import typer

from dx_dagster.cli.errors import CommandError

Port = typer.Option(min=1, max=65535, help="Port to listen on.")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
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
