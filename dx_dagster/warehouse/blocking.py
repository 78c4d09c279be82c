"""Whom a statement of ours waits for: PostgreSQL lets it wait for as long as somebody else holds the lock."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from dx_dagster.warehouse.connecting import connect

_SECONDS_BETWEEN_LOOKS = 5.0
_LOOK_SECONDS = 2
_BLOCKING = """
    SELECT pid, application_name, usename, state, query_start
    FROM unnest(pg_blocking_pids(%s)) AS blocking (pid) LEFT JOIN pg_stat_activity USING (pid)"""

_log = logging.getLogger(__name__)


@contextmanager
def telling_who_blocks(url: str, pid: int, *, look_every: float = _SECONDS_BETWEEN_LOOKS) -> Iterator[None]:
    """Warns of each session that the session `pid` waits for within the block, once it has for some seconds."""
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(url, pid, look_every, ended), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


def _watch(url: str, pid: int, look_every: float, ended: threading.Event) -> None:
    told: set[int] = set()
    while not ended.wait(look_every):
        with suppress(psycopg.Error):  # whoever works over the connection itself hears of that
            for row in _blocking(url, pid):
                if row[0] not in told:
                    _log.warning("The upgrade of the tables waits for a lock that %s.", _holder(*row))
                told.add(row[0])


def _blocking(url: str, pid: int) -> list[Any]:
    with connect(
        url, connect_timeout=_LOOK_SECONDS, statement_timeout=_LOOK_SECONDS, application_name="dx-dagster"
    ) as connection:
        return connection.execute(_BLOCKING, [pid]).fetchall()


def _holder(pid: int, application: str | None, user: str | None, state: str | None, query_start: Any) -> str:
    """What PostgreSQL tells; to another user not all of it."""
    who = f"process {pid} of the database server" if pid else "a prepared transaction"
    if known := [word for word in (application, user and f"as {user}") if word]:
        who += f" ({' '.join(known)})"
    what = f", {state}" if state else ""
    since = f", its last statement began at {query_start:%Y-%m-%d %H:%M:%S} UTC" if query_start else ""
    return f"{who} holds{what}{since}"
