"""Servers on loopback: an ASGI application in a thread, answers by path, and `dx-dagster serve` as a process."""

import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dx_dagster.cli.ports import free_port
from dx_dagster.http_limits.limits import Limits
from dx_dagster.http_limits.protocol import options

PLAIN: dict[str, Any] = {"http": "auto", "ws": "none"}  # uvicorn's own protocol, without our limits


@contextmanager
def serving(application: ASGIApp, limits: Limits | None = None, **more: Any) -> Iterator[str]:
    """The application on a port of its own, in a thread, within the limits that `serve` has unless others are given."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        settings = {**options(limits or Limits()), "log_config": None, "access_log": False, **more}
        server = uvicorn.Server(uvicorn.Config(application, **settings))
        thread = threading.Thread(target=lambda: server.run(sockets=[bound]))
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield f"{'https' if 'ssl_certfile' in more else 'http'}://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def answering(answers: Mapping[str, tuple[int, str]], **more: Any) -> Iterator[str]:
    """The base URL of an API that answers each path with a status and a body; '' stands for all others, else 404."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        path = Request(scope).url.path.removeprefix("/2.0")
        status, body = answers.get(path) or answers.get("") or (404, "{}")
        await Response(body, status, {"content-type": "text/html"})(scope, receive, send)

    with serving(application, lifespan="off", **PLAIN, **more) as url:
        yield f"{url}/2.0"


def self_signed(folder: Path) -> dict[str, Path]:
    """A certificate for 127.0.0.1 that nobody vouches for, as `serving` takes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = {"ssl_certfile": folder / "certificate.pem", "ssl_keyfile": folder / "key.pem"}
    files["ssl_certfile"].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files["ssl_keyfile"].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


class Served:
    """`dx-dagster serve` as a process of its own, once `probe` answers 200. `files` is how many it may have open."""

    def __init__(
        self, environment: Mapping[str, str], log: Path, files: int | None = None, probe: str = "/readyz"
    ) -> None:
        self.port = free_port()
        self._log, self._probe = log, probe

        def allow_files() -> None:
            if files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        with log.open("wb") as output:
            self.process = psutil.Popen(
                [sys.executable, "-m", "dx_dagster.cli", "serve", "--port", str(self.port)],
                env=dict(environment),
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=allow_files,
            )
        deadline = time.monotonic() + 60
        while not self.answers():
            if time.monotonic() > deadline:
                self.process.kill()
                self.process.wait()
                raise TimeoutError(self.log)
            time.sleep(0.1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def memory(self) -> float:
        return float(self.process.memory_info().rss) / 2**20

    def answers(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}{self._probe}", verify=False, timeout=10).status_code == 200
        return False

    def stop(self) -> int:
        """Its exit status."""
        self.process.terminate()
        return int(self.process.wait(20))
