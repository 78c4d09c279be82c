"""What the steps of syncs did, while they run and for some weeks after. People read it; no import does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from dx_dagster.warehouse import runs
from dx_dagster.warehouse.database import Warehouse

_KEPT = timedelta(days=30)
_SHOWN = 8


@dataclass(frozen=True)
class StepKey:
    """A step of a run, and the workspace that it imports."""

    run_id: str
    step: str
    workspace: str
    kind: str | None = None


@dataclass(frozen=True)
class Count:
    """How far a step is: so many of the items that it `counted`."""

    done: int
    total: int
    counted: str
    requests: int


@dataclass(frozen=True)
class SyncStep:
    """One step of a sync as it is stored; see `sync_steps` for the fields."""

    run_id: str
    step: str
    kind: str | None
    began_at: datetime
    ended_at: datetime | None
    done: int | None
    total: int | None
    counted: str | None
    requests: int | None
    inserted: int | None
    updated: int | None
    skipped: list[dict[str, str]]
    error: str | None


@dataclass(frozen=True)
class Sync:
    """One sync: its steps in the order in which they began, and whether its process is at work."""

    run_id: str
    at_work: bool
    steps: list[SyncStep] = field(default_factory=list)

    @property
    def kind(self) -> str | None:
        return self.steps[0].kind

    @property
    def began_at(self) -> datetime:
        return self.steps[0].began_at

    @property
    def seconds(self) -> float:
        """From its first step to the end of its last."""
        ends = [step.ended_at for step in self.steps if step.ended_at]
        return (max(ends) - self.began_at).total_seconds() if ends else 0.0

    @property
    def state(self) -> str:
        """`running`, `failed`, `killed` or `done`."""
        if self.at_work:
            return "running"
        if self.errors:
            return "failed"
        return "killed" if any(step.ended_at is None for step in self.steps) else "done"

    @property
    def errors(self) -> list[str]:
        """Why steps failed, each reason once."""
        return list(dict.fromkeys(step.error for step in self.steps if step.error))

    @property
    def requests(self) -> int:
        return sum(step.requests or 0 for step in self.steps)

    @property
    def inserted(self) -> int:
        return sum(step.inserted or 0 for step in self.steps)

    @property
    def updated(self) -> int:
        return sum(step.updated or 0 for step in self.steps)

    @property
    def skipped(self) -> list[dict[str, str]]:
        return [{"step": step.step, **one} for step in self.steps for one in step.skipped]


async def begin(warehouse: Warehouse, key: StepKey) -> None:
    """Records that the step begins, in place of an earlier try of the same run."""
    async with warehouse.transaction(fenced=False) as transaction:
        await transaction.execute(
            "INSERT INTO sync_steps (run_id, step, workspace, kind, began_at) "
            "VALUES (%s, %s, %s, %s, clock_timestamp()) ON CONFLICT (run_id, step) DO UPDATE SET began_at = "
            "clock_timestamp(), ended_at = NULL, done = NULL, total = NULL, counted = NULL, requests = NULL, "
            "inserted = NULL, updated = NULL, skipped = '[]', error = NULL",
            [key.run_id, key.step, key.workspace, key.kind],
        )
        await transaction.execute(
            "DELETE FROM sync_steps WHERE workspace = %s AND began_at < now() - %s", [key.workspace, _KEPT]
        )


async def count(warehouse: Warehouse, key: StepKey, counted: Count) -> None:
    """Records how far the step is."""
    async with warehouse.transaction(fenced=False) as transaction:
        await transaction.execute(
            "UPDATE sync_steps SET done = %s, total = %s, counted = %s, requests = %s "
            "WHERE run_id = %s AND step = %s AND ended_at IS NULL",
            [counted.done, counted.total, counted.counted, counted.requests, key.run_id, key.step],
        )


async def end(
    warehouse: Warehouse,
    key: StepKey,
    *,
    requests: int | None = None,
    written: Mapping[str, int] | None = None,
    skipped: Sequence[Mapping[str, str]] = (),
    error: str | None = None,
) -> None:
    """Records how the step ended; `written` as in `Warehouse.written_so_far`."""
    rows = written or {}
    inserted, updated = (
        sum(number for name, number in rows.items() if name.endswith(ending)) for ending in ("/inserted", "/updated")
    )
    async with warehouse.transaction(fenced=False) as transaction:
        await transaction.execute(
            "UPDATE sync_steps SET ended_at = clock_timestamp(), requests = COALESCE(%s, requests), inserted = %s, "
            "updated = %s, skipped = %s, error = %s WHERE run_id = %s AND step = %s",
            [requests, inserted, updated, Jsonb([dict(one) for one in skipped]), error, key.run_id, key.step],
        )


async def last_syncs(warehouse: Warehouse, workspace: str) -> list[Sync]:
    """The last syncs of a workspace, the newest first."""
    statement = """
        WITH last AS (
            SELECT run_id, min(began_at) AS first FROM sync_steps WHERE workspace = %s
            GROUP BY run_id ORDER BY first DESC LIMIT %s)
        SELECT run_id, step, kind, began_at, ended_at, done, total, counted, requests, inserted, updated, skipped, error
        FROM sync_steps JOIN last USING (run_id) ORDER BY first DESC, run_id, began_at, step"""
    parameters: list[Any] = [workspace, _SHOWN]
    steps = await warehouse.fetch(SyncStep, statement, parameters)
    names = list(dict.fromkeys(step.run_id for step in steps))
    ended = set(await runs.without_process(warehouse, names)) if names else set()
    return [Sync(name, name not in ended, [step for step in steps if step.run_id == name]) for name in names]


@dataclass(frozen=True)
class Results:
    """Syncs of a workspace that began within a day: those with an error, and the others."""

    workspace: str
    failed: int
    done: int


async def of_last_day(warehouse: Warehouse) -> list[Results]:
    """The syncs of each workspace that had one, those at work included."""
    statement = """
        SELECT workspace, count(*) FILTER (WHERE failed)::int AS failed, count(*) FILTER (WHERE NOT failed)::int AS done
        FROM (SELECT workspace, bool_or(error IS NOT NULL) AS failed FROM sync_steps
              WHERE began_at > now() - interval '1 day' GROUP BY workspace, run_id) syncs
        GROUP BY workspace"""
    return await warehouse.fetch(Results, statement)
