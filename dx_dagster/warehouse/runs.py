"""Runs with a process: each holds an advisory lock, which PostgreSQL releases when the process ends in any way."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager

from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.locks import Lock


def at_work(warehouse: Warehouse, run: str) -> AbstractAsyncContextManager[bool]:
    """Holds the lock that marks the run as at work, until the block or the process ends."""
    return warehouse.lock(_name(run), insists=True)


@contextmanager
def executing(url: str, run: str) -> Iterator[bool]:
    """Keeps other processes from executing the run within the block; yields whether none does.

    Raises:
        psycopg.Error: the database does not answer.
    """
    lock = Lock(url, f"dx-dagster task of run {run}")
    is_free = lock.take()
    try:
        yield is_free
    finally:
        lock.release()


async def without_process(warehouse: Warehouse, runs: Sequence[str]) -> list[str]:
    """Which of these runs have no process."""
    rows = await warehouse.rows(
        # The transaction ends with the statement, and the lock with the transaction.
        "SELECT run FROM unnest(%s::text[], %s::text[]) AS one (run, name) "
        "WHERE pg_try_advisory_xact_lock(hashtextextended(name, 0))",
        [list(runs), [_name(run) for run in runs]],
    )
    return [row.run for row in rows]


def _name(run: str) -> str:
    return f"dx-dagster run {run}"
