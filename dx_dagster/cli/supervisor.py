"""Runs child processes together: restarts those that die, and ends all."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.log_stream import LogStream
from dx_dagster.cli.logs import ServiceLog
from dx_dagster.cli.process_sessions import SessionsEndedInAnyCase
from dx_dagster.cli.telling import tell

_POLL_SECONDS = 0.2
_SECRETS = ("BITBUCKET_TOKEN", "BITBUCKET_API_TOKEN", "JIRA_API_TOKEN")  # only commands at the terminal use these
# A service that needed minutes to fail fails for the same reason as one that did so at once.
_SHORT_LIFE_SECONDS = 300.0
_MOST_SHORT_LIVES = 5
_FIRST_PAUSE = 1.0  # doubled with each short life
_OK = 200
_SECONDS_BETWEEN_PROBES = 10.0
_PROBE_SECONDS = 3


@dataclass(frozen=True)
class Service:
    """A program that runs until a signal.

    Attributes:
        health: a port and a path that answers 200 once the service is ready.
        shows_life: whether the running service works; one that does not for `silent_probes` in a row is restarted.
    """

    name: str
    command: tuple[str, ...]
    health: tuple[int, str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    health_host: str = "127.0.0.1"
    shows_life: Callable[[], bool] | None = None
    silent_probes: int = 9

    def is_healthy(self) -> bool:
        if self.health is None:
            return True
        port, path = self.health
        return status_of(self.health_host, port, path) == _OK


def status_of(host: str, port: int, path: str) -> int | None:
    """The status of an answer over HTTP; None where there is none within seconds."""
    connection = HTTPConnection(host, port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


class Database(Protocol):
    """The database that the services use."""

    def look(self, *, now: bool = False) -> bool:
        """Whether it answers."""


@dataclass
class _Child:
    service: Service
    process: subprocess.Popen[bytes]
    log: ServiceLog
    started_at: float = field(default_factory=time.monotonic)
    short_lives: int = 0
    restart_at: float | None = None
    probe_at: float = field(default_factory=lambda: time.monotonic() + _SECONDS_BETWEEN_PROBES)
    silent: int = 0
    silent_since: float = 0.0


class Supervisor:
    """Runs services and restarts those that die. At the end of the block, or when it is killed, they end with
    their children.

    Each service has its own process group: Ctrl-C reaches only the supervisor, which then ends the others in order.
    `stream` shows their logs.
    """

    def __init__(
        self,
        log_folder: Path,
        log_size: int,
        environment: Mapping[str, str],
        cwd: Path,
        stream: LogStream | None = None,
    ) -> None:
        self._log_folder = log_folder
        self._log_size = log_size
        kept = {name: value for name, value in os.environ.items() if name not in _SECRETS}
        self._environment = {**kept, "PYTHONUNBUFFERED": "1", **environment}
        self._cwd = cwd
        self._stream = stream
        self._children: list[_Child] = []
        self._sessions = SessionsEndedInAnyCase(self._environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            self._sessions.end(child.process.pid for child in self._children if child.process.poll() is None)
            for child in self._children:
                child.process.poll()
                child.log.close()
            if self._stream is not None:
                self._stream.close()
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    def start(self, *services: Service) -> None:
        self._log_folder.mkdir(parents=True, exist_ok=True)
        for service in services:
            path = self._log_folder / f"{service.name}.log"
            if self._stream is not None:
                self._stream.follow(service.name, path)
            log = ServiceLog(path, self._log_size)
            self._children.append(_Child(service, self._launch(service, log), log))

    def output_of(self, service: Service) -> str:
        """The service's output since its first start."""
        return self._log_of(service).text()

    def _log_of(self, service: Service) -> ServiceLog:
        return next(child.log for child in self._children if child.service is service)

    def wait_until_healthy(self, seconds: float = 120) -> None:
        """Returns when every service is ready.

        Raises:
            CommandError: a service ended, or was not ready in time.
        """
        deadline = time.monotonic() + seconds
        for service in [child.service for child in self._children]:
            self.wait_for(service, service.is_healthy, deadline - time.monotonic())

    def wait_for(self, service: Service, is_ready: Callable[[], bool], seconds: float = 60) -> None:
        """As `wait_until_healthy`, for one service and its own condition."""
        deadline = time.monotonic() + seconds
        while not is_ready():
            self._require_alive()
            if time.monotonic() > deadline:
                raise CommandError(self._story(service, "is not ready in time"))
            time.sleep(_POLL_SECONDS)
        self._require_alive()

    def _show_logs(self) -> None:
        if self._stream is not None:
            self._stream.show()

    def _require_alive(self) -> None:
        self._show_logs()
        for child in self._children:
            child.log.keep_written()
            if child.process.poll() is not None:
                raise CommandError(
                    self._story(child.service, f"ended during start-up ({_cause(child.process.returncode)})")
                )

    def watch(self, database: Database, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Restarts services that die or hang, until an interrupt. A service that dies waits for the database to answer.

        Calls `meanwhile` again and again, while the database answers.

        Raises:
            CommandError: a service keeps dying.
        """
        while True:
            is_there = database.look()
            self._sessions.keep()
            self._show_logs()
            for child in self._children:
                self._tend(child, database)
                if is_there:
                    self._probe(child)
                else:
                    child.silent = 0
            if is_there:
                meanwhile()
            time.sleep(_POLL_SECONDS)

    def _tend(self, child: _Child, database: Database) -> None:
        now = time.monotonic()
        child.log.keep_written()
        if child.restart_at is None and child.process.poll() is not None:
            cause = _cause(child.process.returncode)
            if not database.look(now=True):
                tell(f"{child.service.name} ended ({cause}), restart when the database answers")
                child.restart_at = now
                return
            is_short = now - child.started_at < _SHORT_LIFE_SECONDS
            child.short_lives = child.short_lives + 1 if is_short else 1
            if child.short_lives == _MOST_SHORT_LIVES:
                within = f"each time within {_SHORT_LIFE_SECONDS / 60:.0f} minutes of its start"
                raise CommandError(self._story(child.service, f"died {_MOST_SHORT_LIVES} times, {within}"))
            pause = _FIRST_PAUSE * 2 ** (child.short_lives - 1)
            tell(f"{child.service.name} ended ({cause}), restart in {pause:.0f} s")
            child.restart_at = now + pause
        elif child.restart_at is not None and now >= child.restart_at and database.look():
            child.restart_at = None
            child.silent, child.probe_at = 0, now + _SECONDS_BETWEEN_PROBES
            child.log.flush()  # so that output of the new process is not counted as a repetition
            child.process = self._launch(child.service, child.log)
            child.started_at = time.monotonic()

    def _probe(self, child: _Child) -> None:
        """Kills a service whose process lives and does not work, so that it is restarted."""
        shows_life, now = child.service.shows_life, time.monotonic()
        if shows_life is None or child.restart_at is not None or now < child.probe_at:
            return
        if shows_life():
            child.silent = 0
        else:
            child.silent_since = child.silent_since if child.silent else now
            child.silent += 1
        child.probe_at = time.monotonic() + _SECONDS_BETWEEN_PROBES
        if child.silent >= child.service.silent_probes:
            silent_for = time.monotonic() - child.silent_since
            tell(f"{child.service.name} has shown no sign of life for {silent_for:.0f} s and is killed")
            with suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGKILL)

    def _launch(self, service: Service, log: ServiceLog) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own services
            service.command,
            env={**self._environment, **self._sessions.mark, **service.environment},
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=log.input,
            stderr=log.input,
            start_new_session=True,
        )

    def _story(self, service: Service, what: str) -> str:
        lines = self.output_of(service).strip().splitlines()[-12:]
        return "\n".join(
            [f"{service.name} {what}. The end of {self._log_of(service).path}:", *(f"  {line}" for line in lines)]
        )


def _cause(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name
