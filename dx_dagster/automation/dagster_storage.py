"""How a run in a process of its own uses Dagster's storage."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import DagsterInstance

_KEPT = 30  # seconds that Dagster keeps a connection to its storage
_AT_ONCE = 4  # such connections besides the first


def keep_for_a_run(instance: "DagsterInstance") -> None:
    """Keeps connections, and answers that stay true during a run.

    By default Dagster opens a connection for each of a run's hundreds of statements; its web server pools them. The
    pool is recycled soon: the database may restart while an import waits for its rate limit.

    For each of its events Dagster asks again whether it has its tables and columns, and whether the run's partition
    exists.
    """
    instance.optimize_for_webserver(statement_timeout=0, pool_recycle=_KEPT, max_overflow=_AT_ONCE)
    storage = instance.event_log_storage
    if hasattr(storage.has_table, "cache_info"):  # type: ignore[attr-defined]
        return  # a worker that keeps its instance for several runs
    storage.has_table = cache(storage.has_table)  # type: ignore[attr-defined]
    storage.has_asset_key_col = cache(storage.has_asset_key_col)  # type: ignore[attr-defined]
    storage.has_dynamic_partition = cache(storage.has_dynamic_partition)  # type: ignore[method-assign]
