"""The sandbox as a context manager: a server on a free port, in a thread."""

import socket
import threading
import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from types import TracebackType
from typing import Self

import uvicorn

from dx_dagster.sandbox.config import WorldConfig
from dx_dagster.sandbox.faults import Faults
from dx_dagster.sandbox.hook_sender import HookSender
from dx_dagster.sandbox.hooks import Hooks
from dx_dagster.sandbox.jira import Jira
from dx_dagster.sandbox.recording import Requests
from dx_dagster.sandbox.server import Bitbucket
from dx_dagster.sandbox.tokens import RateLimit, Token
from dx_dagster.sandbox.world import World

HOST = "127.0.0.1"


class Sandbox:
    """A Bitbucket Cloud on loopback.

    Attributes:
        url: the base URL, "http://127.0.0.1:PORT/2.0", once it runs.
        jira_url: base URL of the Jira site beside it.
        worlds: the workspaces that it serves; `world` is the first.
        world, faults, limits, tokens, requests, hooks, jira: may all be read and changed while it runs.
        token: the first token; made from the seed when none was given.
        live: seconds between two random events; None leaves the worlds alone. Its hooks are sent their deliveries.
        follows_clock: a living world follows the clock of this machine; by default, if it started now
            (`WorldConfig.now` None).
    """

    def __init__(
        self,
        config: WorldConfig | World | None = None,
        *,
        also: Iterable[WorldConfig | World] = (),
        tokens: list[Token] | None = None,
        faults: Faults | None = None,
        limits: RateLimit | None = None,
        port: int = 0,
        live: float | None = None,
        follows_clock: bool = False,
    ) -> None:
        self.worlds = [one if isinstance(one, World) else World(one) for one in (config, *also)]
        self.world = self.worlds[0]
        if len({world.config.workspace.lower() for world in self.worlds}) < len(self.worlds):
            raise ValueError("each workspace needs a slug of its own")
        self.tokens = [seeded_token(self.world.config)] if tokens is None else tokens
        self.faults, self.limits = faults or Faults(), limits or RateLimit()
        self.live, self.follows_clock, self._port = live, follows_clock, port
        self._bitbucket = Bitbucket(self.worlds, self.tokens, self.limits, self.faults)
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self.url = ""

    @property
    def token(self) -> Token:
        return self.tokens[0]

    @property
    def requests(self) -> Requests:
        return self._bitbucket.requests

    @property
    def hooks(self) -> Hooks:
        return self._bitbucket.hooks

    @property
    def jira(self) -> Jira:
        return self._bitbucket.jira

    @property
    def jira_url(self) -> str:
        return self.url.removesuffix("/2.0")

    def __enter__(self) -> Self:
        self._socket = socket.create_server((HOST, self._port))
        self.url = f"http://{HOST}:{self._socket.getsockname()[1]}/2.0"
        config = uvicorn.Config(
            self._bitbucket.application(),
            log_config=None,
            log_level="critical",  # faults are made on purpose and need no traceback
            access_log=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            timeout_keep_alive=75,  # uvicorn's own 5 seconds would race with a client that pauses
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._start(lambda: self._server.run(sockets=[self._socket]), "sandbox")
        while not self._server.started:
            if not self._threads[0].is_alive():
                raise RuntimeError("the sandbox did not start")
            time.sleep(0.005)
        if self.live:
            for world in self.worlds:
                world.follows_clock = self.follows_clock or world.config.now is None
            self._start(self._live, "sandbox-live")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopped.set()
        self._server.should_exit = True
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _start(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _live(self) -> None:
        senders = [HookSender(world, self.hooks) for world in self.worlds]
        while not self._stopped.wait(self.live):
            for world, sender in zip(self.worlds, senders, strict=True):
                sender.send()  # once before the step: a first hook is to hear of it
                world.step()
                sender.send()


def seeded_token(config: WorldConfig) -> Token:
    """A workspace access token that opens everything."""
    secret = "ATCTT3xFfG" + sha256(f"{config.workspace}/{config.seed}".encode()).hexdigest()[:40]
    return Token(secret, label="workspace-token")
