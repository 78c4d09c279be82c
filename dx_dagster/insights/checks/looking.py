"""Looks for rows that break the rules: at those that changed since the last look, and at those that broke them then."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta

from psycopg.sql import SQL, Composed, Identifier

from dx_dagster.insights.checks.rules import CHECKED, CHECKS, INBOX, NOT_FEWER, SYNCED, Checked, Kind
from dx_dagster.warehouse.database import Transaction, Warehouse

OF_WORKSPACES = "bitbucket/repositories"
"""The asset that shows the checks of a workspace itself."""

LONGEST_WAIT = timedelta(minutes=10)
_SYNCS_MISSED = 3


@dataclass(frozen=True)
class Verdict:
    """The result of one check in one workspace.

    Attributes:
        asset: key of the asset.
        name: of the check.
        passed: whether it holds.
        said: what is wrong and what to do, or what holds.
        faults: how many things break it.
        example: one of them.
    """

    asset: str
    name: str
    passed: bool
    said: str
    faults: int = 0
    example: str | None = None

    @property
    def severe(self) -> bool:
        return CHECKS[self.name].severe


# What a check looks at: its table, which repository it belongs to, and how a person finds it.
_THINGS: dict[Kind, tuple[str, str, str]] = {
    "pull": ("bitbucket_pulls", "t.repository_id", "r.slug || '#' || t.source_id"),
    "pipeline": ("bitbucket_pipelines", "t.repository_id", "r.slug || ' run ' || t.build_number"),
    "deployment": ("bitbucket_deployments", "t.repository_id", "r.slug || ' deployment ' || t.source_id"),
    "repository": ("bitbucket_repositories", "t.id", "t.slug"),
    "user": ("bitbucket_users", "NULL", "t.name"),
    "workspace": ("bitbucket_workspaces", "NULL", "t.slug"),
}
_OF_WORKSPACE: dict[Kind, str] = {"user": "t.workspace_id"}
_ITSELF = SQL("INSERT INTO to_check VALUES (%(workspace)s)")
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
# A derived asset is checked as far as it is built: what changed later is not in it yet.
_HOW_FAR = """
    SELECT least(b.built_to, pg_snapshot_xmin(s)::text::bigint) AS upto, m.rows,
        CASE WHEN m.checked_to <= pg_snapshot_xmax(s)::text::bigint THEN m.checked_to END AS since
    FROM pg_current_snapshot() s
    LEFT JOIN build_marks b ON b.workspace_id = %(workspace)s AND b.asset = %(asset)s
    LEFT JOIN check_marks m ON m.workspace_id = %(workspace)s AND m.asset = %(asset)s"""
_SET_MARK = """
    INSERT INTO check_marks (workspace_id, asset, checked_to, rows)
    VALUES (%(workspace)s, %(asset)s, %(upto)s, %(rows)s)
    ON CONFLICT (workspace_id, asset) DO UPDATE SET checked_to = EXCLUDED.checked_to,
        rows = COALESCE(EXCLUDED.rows, check_marks.rows)"""
_CHANGED = SQL("""
    INSERT INTO to_check
    SELECT c.id FROM changed_rows c LEFT JOIN {things} t USING (id)
    LEFT JOIN bitbucket_repositories r ON r.id = {repository}
    WHERE c.kind = {kind} AND c.changed_in >= %(since)s AND c.changed_in < %(upto)s
        AND COALESCE({of}, %(workspace)s) = %(workspace)s
    UNION SELECT f.id FROM check_faults f LEFT JOIN changed_rows c ON c.kind = {kind} AND c.id = f.id
    WHERE f.workspace_id = %(workspace)s AND f.asset = %(asset)s AND COALESCE(c.changed_in, 0) < %(upto)s""")
# With those that only the asset's own rows name.
_EVERYTHING = SQL("""
    INSERT INTO to_check
    SELECT found.id FROM (
        SELECT t.id FROM {things} t LEFT JOIN bitbucket_repositories r ON r.id = {repository}
        WHERE COALESCE({of}, %(workspace)s) = %(workspace)s
        UNION SELECT x.{column} FROM {table} x WHERE NOT EXISTS (SELECT FROM {things} t WHERE t.id = x.{column})) found
    LEFT JOIN changed_rows c ON c.kind = {kind} AND c.id = found.id WHERE COALESCE(c.changed_in, 0) < %(upto)s""")
_FORGET = """
    DELETE FROM check_faults f USING to_check s
    WHERE f.workspace_id = %(workspace)s AND f.asset = %(asset)s AND f.id = s.id"""
_NOTE = SQL("""
    INSERT INTO check_faults (workspace_id, asset, name, id)
    SELECT DISTINCT %(workspace)s::uuid, %(asset)s, {name}, found.id FROM ({rule}) found""")
_COUNT = """
    SELECT name, count(*) AS faults, min(id::text) AS one FROM check_faults
    WHERE workspace_id = %(workspace)s AND asset = %(asset)s GROUP BY name"""
_EXAMPLE = SQL("""
    SELECT {told} AS told FROM {things} t LEFT JOIN bitbucket_repositories r ON r.id = {repository}
    WHERE t.id = %(id)s""")
_REPORT = """
    INSERT INTO check_reports AS old (workspace, asset, name, passed, said)
    VALUES (%(workspace)s, %(asset)s, %(name)s, %(passed)s, %(said)s)
    ON CONFLICT (workspace, asset, name) DO UPDATE
        SET passed = EXCLUDED.passed, said = EXCLUDED.said, reported_at = now()
    WHERE (old.passed, old.said) <> (EXCLUDED.passed, EXCLUDED.said) OR old.reported_at < now() - interval '1 day'
    RETURNING true AS is_news"""
_WORKSPACES = """
    SELECT c.workspace, COALESCE(c.last_synced_at, c.created_at) > now() - %(longest)s AS synced, c.last_synced_at,
        waiting.since, waiting.deliveries, COALESCE(waiting.since > now() - %(longest_wait)s, true) AS applied
    FROM connections c LEFT JOIN LATERAL (
        SELECT min(e.received_at) AS since, count(*) AS deliveries FROM webhook_events e
        WHERE e.workspace = c.workspace AND e.applied_at IS NULL AND e.set_aside_at IS NULL) waiting ON true
    WHERE c.type = 'bitbucket' AND c.deleted_at IS NULL AND c.disabled_at IS NULL ORDER BY c.workspace"""


async def look(
    warehouse: Warehouse, asset: str, workspace_id: str, *, rows: int | None = None, full: bool = False
) -> list[Verdict]:
    """Checks one asset's rows of one workspace.

    `rows`: how many they are, as counted; None to leave that check out. `full`: looks at all of them.
    """
    checked = CHECKED[asset]
    bound = {"workspace": workspace_id, "asset": asset, "rows": rows}
    async with warehouse.transaction(fenced=False) as transaction:  # it changes nothing that an import writes
        await transaction.execute(_LOCK, [f"checks of {asset} {workspace_id}"])
        mark = await transaction.row(_HOW_FAR, bound)
        bound |= {"since": mark.since, "upto": mark.upto}
        await transaction.execute("CREATE TEMPORARY TABLE to_check (id uuid PRIMARY KEY) ON COMMIT DROP")
        scope = _EVERYTHING if full or mark.since is None else _CHANGED
        if await transaction.execute(_ITSELF if checked.kind == "workspace" else _about(scope, checked), bound):
            await transaction.execute("ANALYZE to_check")
            await transaction.execute(_FORGET, bound)
            for name, rule in checked.rules.items():
                await transaction.execute(_NOTE.format(name=name, rule=rule), bound)
        found = {row.name: row for row in await transaction.rows(_COUNT, bound)}
        verdicts = [
            await _verdict(transaction, checked, name, found[name].faults, found[name].one)
            if name in found
            else Verdict(asset, name, passed=True, said=checked.check(name).holds)
            for name in checked.rules
        ]
        await transaction.execute(_SET_MARK, bound)
    return [*verdicts, *_compared(checked, mark.rows, rows)]


def _about(statement: SQL, checked: Checked) -> Composed:
    things, repository, told = _THINGS[checked.kind]
    return statement.format(
        things=Identifier(things),
        repository=SQL(repository),
        of=SQL(_OF_WORKSPACE.get(checked.kind, "r.workspace_id")),
        kind=checked.kind,
        table=Identifier(str(checked.table.name)),
        column=Identifier(checked.column),
        told=SQL(told),
    )


async def _verdict(transaction: Transaction, checked: Checked, name: str, faults: int, one: str) -> Verdict:
    row = await transaction.row(_about(_EXAMPLE, checked), {"id": one})
    example = str(row.told) if row is not None and row.told else f"{checked.kind} {one}"
    check = checked.check(name)
    others = f", and {faults - 1:,} more" if faults > 1 else ""
    return Verdict(checked.asset, name, False, f"{example} {check.broken}{others}. {check.remedy}", faults, example)


def _compared(checked: Checked, before: int | None, rows: int | None) -> Iterable[Verdict]:
    if not checked.kept or rows is None:
        return
    check = checked.check(NOT_FEWER)
    if before is None or rows >= before:
        yield Verdict(checked.asset, NOT_FEWER, passed=True, said=check.holds)
    else:
        said = f"{rows:,} rows, and {before:,} at the last check. {check.remedy}"
        yield Verdict(checked.asset, NOT_FEWER, passed=False, said=said, faults=before - rows)


async def look_at_workspaces(warehouse: Warehouse, sync_every: timedelta) -> dict[str, list[Verdict]]:
    """Checks when each connected workspace was last synced, and how long its deliveries have waited."""
    asset = OF_WORKSPACES
    bound = {"longest": _SYNCS_MISSED * sync_every, "longest_wait": LONGEST_WAIT}
    verdicts = {}
    for row in await warehouse.rows(_WORKSPACES, bound):
        synced, applied = CHECKS[SYNCED], CHECKS[INBOX]
        last = f"Last synced at {row.last_synced_at:%Y-%m-%d %H:%M} UTC" if row.last_synced_at else "Never synced"
        waiting = f"A delivery has waited since {row.since:%Y-%m-%d %H:%M} UTC" if row.since else ""
        verdicts[row.workspace] = [
            Verdict(asset, SYNCED, row.synced, synced.holds if row.synced else f"{last}. {synced.remedy}"),
            Verdict(
                asset,
                INBOX,
                row.applied,
                applied.holds if row.applied else f"{waiting}. {applied.remedy}",
                0 if row.applied else row.deliveries,
            ),
        ]
    return verdicts


async def news(warehouse: Warehouse, workspace: str, verdicts: Collection[Verdict]) -> list[Verdict]:
    """Those that differ from what Dagster was last told, or were told a day ago; they now count as told."""
    async with warehouse.transaction(fenced=False) as transaction:
        return [
            one
            for one in verdicts
            if await transaction.row(
                _REPORT,
                {
                    "workspace": workspace,
                    "asset": one.asset,
                    "name": one.name,
                    "passed": one.passed,
                    "said": one.said,
                },
            )
        ]
