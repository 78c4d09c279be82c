"""Sessions that a statement waits for: PostgreSQL lets it wait for as long as another session holds the lock."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import NamedTuple

import psycopg
from psycopg.rows import class_row

from dx_dagster.warehouse.connecting import APPLICATION, connect, connect_async

_SECONDS_BETWEEN_LOOKS = 5.0
_LOOK_SECONDS = 2
_BLOCKING = """
    SELECT pid, application_name, usename, state, query_start, left(query, 80) AS query
    FROM unnest(pg_blocking_pids(%s)) AS blocking (pid) LEFT JOIN pg_stat_activity USING (pid)"""


class _Blocking(NamedTuple):
    """A session, or a prepared transaction (process 0), that holds the lock."""

    pid: int
    application_name: str | None
    usename: str | None
    state: str | None
    query_start: datetime | None
    query: str | None


_log = logging.getLogger(__name__)
_at_work: set["asyncio.Task[None]"] = set()


def warn(sentence: str) -> None:
    """Writes the sentence to the log, where the caller has no better place for it."""
    _log.warning("%s", sentence)


@contextmanager
def watching(
    url: str, pid: int, what: str, tell: Callable[[str], None], *, look_every: float = _SECONDS_BETWEEN_LOOKS
) -> Iterator[None]:
    """`telling_who_blocks` on the running event loop. A block shorter than `look_every` costs only a timer."""
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
                connection = await connect_async(url, connect_timeout=_LOOK_SECONDS, application_name=APPLICATION)
                async with connection, connection.cursor(row_factory=class_row(_Blocking)) as cursor:
                    found = await (await cursor.execute(_BLOCKING, [pid])).fetchall()
            _tell_new(found, told, what, tell)
        await asyncio.sleep(look_every)


def _tell_new(blockers: list[_Blocking], told: set[int], what: str, tell: Callable[[str], None]) -> None:
    for blocking in blockers:
        if blocking.pid not in told:
            tell(f"{what} waits for a lock that {_holder(blocking)}.")
        told.add(blocking.pid)


@contextmanager
def telling_who_blocks(url: str, pid: int, *, look_every: float = _SECONDS_BETWEEN_LOOKS) -> Iterator[None]:
    """Warns of each session that the session `pid` has waited for within the block for some seconds."""
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
        with suppress(psycopg.Error):  # the statement itself reports that
            _tell_new(_blocking(url, pid), told, "The upgrade of the tables", warn)


def _blocking(url: str, pid: int) -> list[_Blocking]:
    with (
        connect(
            url, connect_timeout=_LOOK_SECONDS, statement_timeout=_LOOK_SECONDS, application_name=APPLICATION
        ) as connection,
        connection.cursor(row_factory=class_row(_Blocking)) as cursor,
    ):
        return cursor.execute(_BLOCKING, [pid]).fetchall()


def _holder(blocking: _Blocking) -> str:
    """Describes the session. PostgreSQL hides a part of it from other users."""
    who = f"process {blocking.pid} of the database server" if blocking.pid else "a prepared transaction"
    if known := [word for word in (blocking.application_name, blocking.usename and f"as {blocking.usename}") if word]:
        who += f" ({' '.join(known)})"
    what = f", {blocking.state}" if blocking.state else ""
    began = blocking.query_start
    since = f", its last statement began at {began:%Y-%m-%d %H:%M:%S} UTC" if began else ""
    said = f": {' '.join(blocking.query.split())}" if since and blocking.query else ""
    return f"{who} holds{what}{since}{said}"
