"""Builds of derived tables: each brings its rows up to date in one transaction, which also moves its mark."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy import Table

from dx_dagster.insights import changes
from dx_dagster.insights.changes import Scope
from dx_dagster.insights.derivation import Derivation, Origins, reserve_if_empty
from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.merge import Counts

# A build of a million pull requests sorts and hashes them in memory. Compiling pays for none of its statements.
_FOR_LARGE_SETS = "SELECT set_config('work_mem', '64MB', true), set_config('maintenance_work_mem', '256MB', true), "
_FOR_LARGE_SETS += "set_config('jit', 'off', true)"
# Rows that were imported a moment ago have no statistics yet. PostgreSQL then expects one row in place of a million,
# and joins them by nested loops, for hours.
FOR_EVERYTHING = "SET LOCAL enable_nestloop = off"


async def _no_state(_: Transaction) -> str:
    return ""


@dataclass(frozen=True)
class Build:
    """How one derived table is built.

    Attributes:
        key: key of its asset.
        table: the table.
        after: keys of the assets that it reads.
        derivations: where its columns come from.
        work: writes what changed in the scope.
        rules: version of the rules. A new one builds everything again.
        noted: those of `after` whose changes the build cannot miss: `changed_rows` notes them, or the build itself
            brings their rows up to date. What the others have not seen yet, the next build looks at again.
        state: a text of stored rows that change all rows of the table when they change; empty where there are none.
        figures: query for numbers of the workspace to show beside a build's rows, in one row; empty for none.
        stated: for columns that no derivation fills, the columns that they come from, as `table.column`.
    """

    key: str
    table: Table
    after: tuple[str, ...]
    derivations: tuple[Derivation, ...]
    work: Callable[[Transaction, Scope], Awaitable[None]]
    rules: str = "1"
    noted: tuple[str, ...] = ()
    state: Callable[[Transaction], Awaitable[str]] = _no_state
    figures: str = ""
    stated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def origins(self) -> dict[str, Origins]:
        """For each column of the table, the columns that its value comes from."""
        found: dict[str, Origins] = defaultdict(frozenset)
        for derivation in self.derivations:
            if derivation.table is self.table:
                for column, origins in derivation.origins.items():
                    found[column] |= origins
        for column, names in self.stated.items():
            found[column] |= {(table, name) for table, _, name in (one.partition(".") for one in names)}
        return dict(found)


@dataclass(frozen=True)
class Built:
    """What a build did: rows of its table, whether it looked at everything, and rows of all tables, by name."""

    inserted: int
    updated: int
    everything: bool
    written: Mapping[str, Counts] = field(default_factory=dict, compare=False)


async def bring_up_to_date(
    warehouse: Warehouse, builds: Iterable[Build], workspace_id: str, *, settings: str = ""
) -> None:
    """Runs builds, in an order in which each comes after those that it reads; see `run`."""
    for build in builds:
        await run(warehouse, build, workspace_id, settings=settings)


async def run(
    warehouse: Warehouse, build: Build, workspace_id: str, *, settings: str = "", full: bool = False
) -> Built:
    """Builds the workspace's rows.

    `settings`: text of the settings that change rows. When it differs from the last build's, everything is built.
    """
    async with warehouse.transaction() as transaction:
        return await run_in(transaction, build, workspace_id, settings=settings, full=full)


async def run_in(
    transaction: Transaction, build: Build, workspace_id: str, *, settings: str = "", full: bool = False
) -> Built:
    """As `run`, within a transaction."""
    await transaction.execute(_FOR_LARGE_SETS)
    for table in sorted({str(derivation.table.name) for derivation in build.derivations}):
        await reserve_if_empty(transaction, table)
    after = [key for key in build.after if key not in build.noted]
    rules = " ".join(filter(None, (build.rules, settings, await build.state(transaction))))
    begun = await changes.begin(transaction, workspace_id, build.key, rules, full=full, after=after)
    scope = replace(begun, settings=settings)
    if scope.everything:
        await transaction.execute(FOR_EVERYTHING)
    await build.work(transaction, scope)
    await changes.finish(transaction, build.key, rules, scope)
    written = transaction.written[str(build.table.name)]
    return Built(written.inserted, written.updated, scope.everything, dict(transaction.written))
