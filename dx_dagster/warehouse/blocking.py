"""Whom a statement of ours waits for: PostgreSQL lets it wait for as long as somebody else holds the lock."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from dx_dagster.warehouse.connecting import connect, connect_async

_SECONDS_BETWEEN_LOOKS = 5.0
_LOOK_SECONDS = 2
_BLOCKING = """
    SELECT pid, application_name, usename, state, query_start, left(query, 80)
    FROM unnest(pg_blocking_pids(%s)) AS blocking (pid) LEFT JOIN pg_stat_activity USING (pid)"""

_log = logging.getLogger(__name__)
_at_work: set["asyncio.Task[None]"] = set()


def warn(sentence: str) -> None:
    """Into the log, for whom nobody has a better place."""
    _log.warning("%s", sentence)


@contextmanager
def watching(
    url: str, pid: int, what: str, tell: Callable[[str], None], *, look_every: float = _SECONDS_BETWEEN_LOOKS
) -> Iterator[None]:
    """As `telling_who_blocks`, on the running event loop. It costs a timer where the block is shorter than a look."""
    loop = asyncio.get_running_loop()
    task: asyncio.Task[None] | None = None

    def begin() -> None:
        nonlocal task
        task = loop.create_task(_watch_async(url, pid, what, tell, look_every))
        _at_work.add(task)
        task.add_done_callback(_at_work.discard)

    timer = loop.call_later(look_every, begin)
    try:
        yield
    finally:
        timer.cancel()
        if task is not None:
            task.cancel()  # not waited for: its own connection may be slow to end


async def _watch_async(url: str, pid: int, what: str, tell: Callable[[str], None], look_every: float) -> None:
    told: set[int] = set()
    while True:
        with suppress(psycopg.Error, OSError, TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                connection = await connect_async(url, connect_timeout=_LOOK_SECONDS, application_name="dx-dagster")
                async with connection:
                    rows = await (await connection.execute(_BLOCKING, [pid])).fetchall()
            _tell_new(rows, told, what, tell)
        await asyncio.sleep(look_every)


def _tell_new(rows: list[Any], told: set[int], what: str, tell: Callable[[str], None]) -> None:
    for row in rows:
        if row[0] not in told:
            tell(f"{what} waits for a lock that {_holder(row)}.")
        told.add(row[0])


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
            _tell_new(_blocking(url, pid), told, "The upgrade of the tables", warn)


def _blocking(url: str, pid: int) -> list[Any]:
    with connect(
        url, connect_timeout=_LOOK_SECONDS, statement_timeout=_LOOK_SECONDS, application_name="dx-dagster"
    ) as connection:
        return connection.execute(_BLOCKING, [pid]).fetchall()


def _holder(row: Any) -> str:
    """What PostgreSQL tells; to another user not all of it."""
    pid, application, user, state, query_start, query = row
    who = f"process {pid} of the database server" if pid else "a prepared transaction"
    if known := [word for word in (application, user and f"as {user}") if word]:
        who += f" ({' '.join(known)})"
    what = f", {state}" if state else ""
    since = f", its last statement began at {query_start:%Y-%m-%d %H:%M:%S} UTC" if query_start else ""
    said = f": {' '.join(query.split())}" if since and query else ""
    return f"{who} holds{what}{since}{said}"
