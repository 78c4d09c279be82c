"""Watches the database of a running `up` or `demo`: starts the embedded one again, and reports the state of any."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
from psycopg import Connection

from dx_dagster.settings import Settings, SettingsError
from dx_dagster.warehouse.connecting import connect, cut_off
from dx_dagster.warehouse.database import DatabaseGoneError
from dx_dagster.warehouse.embedded import EmbeddedServer

_SECONDS_BETWEEN_LOOKS = 2.0
_ANSWER_SECONDS = 3
_KEPT_SECONDS = 10.0  # a server that hangs may still serve old connections
_LONGEST_PAUSE = 15.0
_REPORTS, _REPORT_SECONDS = 5, 600.0
_HEARTBEAT = "SELECT max(timestamp) FROM dagster.daemon_heartbeats"


class DatabaseWatch:
    """Knows whether the database answers. An outage is reported when it is noticed twice, and when it is over.

    Five outages are reported within ten minutes, so that a database that keeps failing does not fill the terminal.

    Attributes:
        is_there: whether it answered when it was last asked.
    """

    def __init__(self, settings: Settings, url: str, tell: Callable[[str], None] = partial(print, flush=True)) -> None:
        server = EmbeddedServer.of(settings.home)
        self._server = server if url == server.url else None
        self._name = "The database" if self._server is None else "The embedded database"
        self._url, self._tell = url, tell
        self._connection: Connection[Any] | None = None
        self._connected_at = self._next = 0.0
        self._since = 0.0
        self._failures = 0
        self._is_reported = False
        self._reports: deque[float] = deque(maxlen=_REPORTS)
        self.is_there = True
        self._heartbeat: object = None

    def look(self, *, now: bool = False) -> bool:
        """Whether the database answers; asks it every two seconds, or `now`. It may take seconds."""
        if not now and time.monotonic() < self._next:
            return self.is_there
        reason = self._ask()
        if reason is None:
            self._note_answer()
        else:
            self._note_failure(reason)
        pause = _SECONDS_BETWEEN_LOOKS * max(1, self._failures // 2)
        self._next = time.monotonic() + min(pause, _LONGEST_PAUSE)
        return self.is_there

    def last_heartbeat(self) -> object:
        """The newest heartbeat of Dagster's daemon."""
        return self._heartbeat

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self) -> str | None:
        """Why the database does not answer; None where it does."""
        try:
            if self._connection is None or time.monotonic() - self._connected_at > _KEPT_SECONDS:
                self.close()
                self._connection = connect(
                    self._url,
                    connect_timeout=_ANSWER_SECONDS,
                    statement_timeout=_ANSWER_SECONDS,
                    application_name="dx-dagster up",
                )
                self._connected_at = time.monotonic()
            with cut_off(self._connection, _ANSWER_SECONDS + 1):
                self._connection.execute("SELECT 1")
                with suppress(psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege):
                    self._heartbeat = self._connection.execute(_HEARTBEAT).fetchone()
        except psycopg.Error as error:
            self.close()
            return DatabaseGoneError(str(error)).reason
        return None

    def _note_answer(self) -> None:
        if self._is_reported:
            self._tell(f"{self._name} answers again, after {time.monotonic() - self._since:.0f} s.")
        self.is_there, self._is_reported, self._failures = True, False, 0

    def _note_failure(self, reason: str) -> None:
        self._failures += 1
        if self.is_there:
            self.is_there, self._since = False, time.monotonic()
        if self._server is not None and not self._server.is_at_work():
            self._report("has ended and is started again.")
            self._revive(self._server)
        elif self._failures > 1:
            self._report(f"does not answer: {reason}. The services wait for it.")

    def _revive(self, server: EmbeddedServer) -> None:
        try:
            server.revive()
        except (SettingsError, OSError) as error:
            if self._is_reported and self._failures == 1:
                self._tell(str(error))
            return
        if self._ask() is None:
            self._note_answer()

    def _report(self, what: str) -> None:
        if self._is_reported or self._failures > 2:  # noqa: PLR2004 - an outage that was not reported stays so
            return
        now = time.monotonic()
        if len(self._reports) == _REPORTS and now - self._reports[0] < _REPORT_SECONDS:
            return
        self._reports.append(now)
        self._is_reported = True
        is_last = len(self._reports) == _REPORTS and now - self._reports[0] < _REPORT_SECONDS
        more = f" Further failures within {_REPORT_SECONDS / 60:.0f} minutes are not reported." if is_last else ""
        self._tell(f"{self._name} {what}{more}")
