"""`dx-dagster sync`: a workspace's assets as one Dagster run in this process."""

import signal
import time
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dx_dagster.cli.arguments import Workspace
from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.installation import Installation
from dx_dagster.cli.json_output import print_json
from dx_dagster.settings import Settings
from dx_dagster.telemetry import json_logs

if TYPE_CHECKING:
    import dagster as dg

    from dx_dagster.cli.progress import Outlook
    from dx_dagster.warehouse.database import Warehouse


@dataclass
class Outcome:
    """The result of a sync, in the form that `--json` prints."""

    run_id: str
    seconds: float
    requests: int
    tables: dict[str, dict[str, int]]
    skipped: list[dict[str, str]]


def sync(
    workspace: Workspace,
    since: Annotated[
        str | None,
        typer.Option(
            help="Import nothing older than this day in UTC, such as 2026-01-31, or time, such as "
            "2026-01-31T08:00+05:00. Later syncs keep the bound; an earlier day extends it, and 'all' lifts it."
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Fetch everything again.")] = False,
    no_wait: Annotated[
        bool,
        typer.Option("--no-wait", help="Fail if another process is importing the workspace, or the budget is used up."),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Imports the changes in a workspace since the last sync. The first sync imports everything.

    Example: dx-dagster sync acme --since 2026-01-01
    """
    json_logs.set_up()
    outcome = sync_workspace(Settings.read(), workspace, since=_bound(since), full=full, wait=not no_wait)
    if json_:
        print_json(asdict(outcome))
    else:
        print_outcome(workspace, outcome)


def _bound(text: str | None) -> str | None:
    """The text of `--since`, which names a bound.

    Raises:
        BadParameter: it names none.
    """
    if text is None:
        return None
    from dx_dagster.warehouse.imported.bounds import BoundRefusedError, Wanted

    try:
        Wanted.read(text)
    except BoundRefusedError:
        raise typer.BadParameter(
            f"{text!r} is not a date. Use the form 2026-01-31 or 2026-01-31T08:00+05:00, or all to lift the bound.",
            param_hint="--since",
        ) from None
    return text


def sync_workspace(
    settings: Settings, workspace: str, *, since: str | None = None, full: bool = False, wait: bool = True
) -> Outcome:
    """Materializes the workspace's assets.

    Raises:
        CommandError: the workspace is not connected, or a step failed. Results of the other steps are stored.
    """
    from dx_dagster.cli.loading import load_libraries

    load_libraries()
    from dx_dagster.cli.keys import require_keys
    from dx_dagster.cli.progress import display
    from dx_dagster.cli.running import name_api
    from dx_dagster.importer.progress import DISPLAY

    installation = Installation.open(settings)
    require_keys(installation.database_url, settings)
    name_api(settings)
    workspace, outlook = installation.run(partial(_known, settings, workspace, since), connections=1)
    started = time.monotonic()
    terminate = signal.getsignal(signal.SIGTERM)
    with display(outlook) as shown:
        token = DISPLAY.set(shown)
        try:
            result = _run(installation, workspace, since=since, full=full, wait=wait)
        finally:
            DISPLAY.reset(token)
            # Dagster sets SIGTERM to the handler of SIGINT, which jobs of a shell without job control ignore.
            signal.signal(signal.SIGTERM, terminate)
    if not result.success:
        raise CommandError(_reason(result))
    return _outcome(installation, result, workspace, time.monotonic() - started)


async def _known(
    settings: Settings, workspace: str, since: str | None, warehouse: "Warehouse"
) -> "tuple[str, Outlook]":
    """The workspace's name as its connection spells it, and what the sync may send.

    Raises:
        CommandError: it has no enabled connection.
    """
    from dx_dagster.cli.progress import Outlook
    from dx_dagster.connections.estimate import Expected
    from dx_dagster.connections.health import hourly
    from dx_dagster.importer.session import NotConnectedError, connection_in_service

    try:
        connection = await connection_in_service(warehouse, workspace)
    except NotConnectedError as error:
        raise CommandError(str(error)) from None
    left, limit = await hourly(settings, warehouse, connection)
    is_whole = connection.last_synced_at is None and since is None
    expected = Expected.read(connection.expected) if is_whole else None
    return connection.workspace, Outlook(left, limit, expected.requests if expected else None)


def _run(
    installation: Installation, workspace: str, *, since: str | None, full: bool, wait: bool
) -> "dg.ExecuteInProcessResult":
    from dx_dagster.assets.derived import DERIVED_STEPS
    from dx_dagster.assets.partitions import register
    from dx_dagster.assets.steps import STEPS, key_of, op_name
    from dx_dagster.automation import syncing
    from dx_dagster.automation.dagster_storage import keep_for_a_run

    job = syncing.LOADED.resolve_job_def("sync_workspace")
    imported = {"config": {"full": full} | ({"since": since} if since else {})}
    configs = {op_name(key_of(step)): imported for step in STEPS}
    configs |= {name: {"config": {"full": full}} for name in DERIVED_STEPS}
    with installation.dagster() as instance:
        register(instance, [workspace])
        keep_for_a_run(instance)
        return job.execute_in_process(
            instance=instance,
            partition_key=workspace,
            # The daemon must not restart a command that was killed.
            tags={"dx/workspace": workspace, "dagster/max_retries": "0"},
            run_config={
                "resources": {"bitbucket": {"config": {"wait": wait}}},
                "ops": {name: one for name, one in configs.items() if job.has_node_named(name)},
                # The command has its own progress display.
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            raise_on_error=False,
        )


def _reason(result: "dg.ExecuteInProcessResult") -> str:
    """The error of the first failed step.

    Raises:
        KeyboardInterrupt: the run was interrupted, which Dagster does not raise itself.
    """
    for event in result.filter_events(lambda event: event.is_step_failure):
        data = event.step_failure_data
        if data.error and data.error.cls_name == "DagsterExecutionInterruptedError":
            raise KeyboardInterrupt
        if data.user_failure_data and data.user_failure_data.description:
            return str(data.user_failure_data.description)
        if data.error:
            cause = data.error.cause or data.error
            return f"{event.step_key} failed: {cause.message.strip()} (run {result.run_id})"
    return f"Run {result.run_id} failed."


def _outcome(
    installation: Installation, result: "dg.ExecuteInProcessResult", workspace: str, seconds: float
) -> Outcome:
    from dx_dagster.warehouse import counts
    from dx_dagster.warehouse.connections import connections

    outcome = Outcome(result.run_id, round(seconds, 3), requests=0, tables={}, skipped=[])
    written: Counter[str] = Counter()
    for event in result.get_asset_materialization_events():
        metadata: dict[str, Any] = {name: value.value for name, value in event.materialization.metadata.items()}
        outcome.requests += metadata.get("requests", 0)  # a derived table makes none
        outcome.skipped += metadata.get("skipped", [])
        written.update(metadata["written"])

    async def finish(warehouse: "Warehouse") -> dict[str, int]:
        await connections.record_sync(warehouse, workspace)
        return await counts.of_workspace(warehouse, workspace)

    rows = installation.run(finish)
    outcome.tables = {
        table: {"inserted": written[f"{table}/inserted"], "updated": written[f"{table}/updated"], "rows": count}
        for table, count in rows.items()
    }
    return outcome


def print_outcome(workspace: str, outcome: Outcome) -> None:
    from rich.table import Table

    from dx_dagster.cli.consoles import plain

    table = Table("table", "rows", "inserted", "updated", title=f"Workspace {workspace}", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in sorted(outcome.tables.items()):
        table.add_row(name, *(f"{counts[what]:,}" for what in ("rows", "inserted", "updated")))
    console = plain()
    console.print(table)
    console.print(f"{outcome.requests:,} requests in {outcome.seconds:.1f} s. Run {outcome.run_id}")
    for one in outcome.skipped:
        console.print(f"Skipped {one['repository']} ({one['step']}): {one['reason']}")
