"""`make bench`, `python -m benchmarks`: measures imports side by side, from the sandbox on this machine."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import deliveries, in_flight, killed_imports, one_token, receiving, reporting, tables
from benchmarks import measures as measures_of_weeks
from benchmarks import runs as runs_of_dagster
from benchmarks import scheduled as scheduled_syncs
from benchmarks import storage as stored
from benchmarks import unified as unified_tables
from benchmarks import workers as celery_workers
from benchmarks.contestants import CONTESTANTS, OURS, CannotRunError, Contestant, require
from benchmarks.measuring import Measured, Run, prepared, true_rows
from benchmarks.reporting import PageError, Table
from benchmarks.simulated import run_under_a_clock
from benchmarks.soak import Load, soak
from benchmarks.surroundings import Databases, databases, serving
from dx_dagster.sandbox import WorldConfig

_WIDE = 140  # characters a line where no terminal says
TINY = WorldConfig(repositories=1, pull_requests=1, members=1, forbidden_repositories=0)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console(stderr=True)

Name = StrEnum("Name", {name: name for name in CONTESTANTS})  # type: ignore[misc] # the choices of a table
BrokerName = StrEnum("BrokerName", {name: name for name in celery_workers.BROKERS})  # type: ignore[misc] # likewise
Only = Annotated[list[Name] | None, typer.Option(help="Only this one; may be given several times.")]
Write = Annotated[bool, typer.Option("--write", help="Put the tables into docs/performance.md.")]
Latency = Annotated[float, typer.Option(help="Seconds before each answer of the sandbox.")]
Json = Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")]


def first_import(contestant: Contestant, config: WorldConfig, latency: float, place: Databases) -> Measured:
    """Measures one import into an empty database, from a new sandbox."""
    with serving(config, latency) as server, prepared(contestant, server, place) as run:
        console.print(f"{contestant.name}: {config.pull_requests:,} pull requests ...")
        measured = run.measure()
        return replace(measured, wrong=run.wrong()) if contestant is OURS else measured


def later_syncs(config: WorldConfig, latency: float, place: Databases) -> list[Measured]:
    """Measures three syncs of ours: everything, no change, and changes of one pull request in a hundred."""

    def sync(run: Run, name: str) -> Measured:
        console.print(f"{OURS.name}: {name} ...")
        return replace(run.measure(name), wrong=run.wrong())

    with serving(config, latency) as server, prepared(OURS, server, place) as run:
        found = [sync(run, "first import"), sync(run, "nothing changed")]
        changed = max(1, config.pull_requests // 100)
        events = server.change(changed)
        return [*found, sync(run, f"{changed} pull requests changed by {events} events")]


@app.command()
def compare(
    pull_requests: Annotated[int, typer.Option()] = 2000,
    latency: Latency = 0.06,
    only: Only = None,
    write: Write = False,
    json_: Json = False,
) -> None:
    """Measure ours, the documented way and dlt, one after the other; then ours again.

    Example: make bench ARGS="compare --pull-requests 500 --only ours --only endpoints"
    """
    config = WorldConfig(pull_requests=pull_requests)
    chosen = [CONTESTANTS[name] for name in only or CONTESTANTS]
    for contestant in chosen:
        require(contestant)
    with databases() as place:
        measured = [first_import(one, config, latency, place) for one in chosen if one is not OURS]
        syncs = later_syncs(config, latency, place) if OURS in chosen else []
        start_up = first_import(OURS, TINY, 0, place) if syncs and not json_ else None
        with serving(config, 0) as server:
            true = true_rows(server)
    if syncs:
        measured.insert(0, replace(syncs[0], name=OURS.name))
    if json_:
        found = {"imports": [asdict(one) for one in measured], "syncs": [asdict(one) for one in syncs], "true": true}
        print(json.dumps(found))
        return
    again = [tables.later(replace(start_up, name="start-up: one pull request"), syncs)] if start_up else []
    first = tables.side_by_side(measured, pull_requests, latency)
    _show("compare", [first, *again, tables.by_table(measured, true)], write=write)


@app.command()
def scale(
    sizes: Annotated[list[int] | None, typer.Argument(help="Numbers of pull requests.")] = None,
    latency: Latency = 0,
    others_up_to: Annotated[int, typer.Option(help="The other ways too, up to this size.")] = 0,
    write: Write = False,
) -> None:
    """Measure the growth of each figure with the number of pull requests: 2,000, 20,000 and 200,000 by default.

    Example: make bench ARGS="scale 2000 20000 --others-up-to 2000"
    """
    found: dict[int, list[Measured]] = {}
    with databases() as place:
        for size in sorted(sizes or [2_000, 20_000, 200_000]):
            chosen = CONTESTANTS.values() if size <= others_up_to else [OURS]
            for contestant in chosen:
                require(contestant)
            config = WorldConfig(pull_requests=size)
            found[size] = [first_import(one, config, latency, place) for one in chosen]
    _show("scale", [tables.growth(found, latency), tables.per_pull_request(found)], write=write)


@app.command()
def killed(
    pull_requests: Annotated[int, typer.Option()] = 2000,
    times: Annotated[int, typer.Option(help="How often the import is killed.")] = 8,
    latency: Latency = 0.06,
    write: Write = False,
) -> None:
    """Measure an import that is killed again and again, beside an undisturbed one.

    Example: make bench ARGS="killed --pull-requests 500 --times 3"
    """
    with databases() as place:
        _show("killed", [killed_imports.measure(pull_requests, times, latency, place)], write=write)


@app.command()
def flight(
    repositories: Annotated[int, typer.Option()] = 200,
    pull_requests: Annotated[int, typer.Option()] = 2000,
    latency: Latency = 0.2,
    write: Write = False,
) -> None:
    """Measure how close an import comes to the time of its requests, where 8 and where 30 are answered at once.

    Example: make bench ARGS="flight --pull-requests 500"
    """
    config = WorldConfig(repositories=repositories, pull_requests=pull_requests)
    with databases() as place:
        start_up = first_import(OURS, TINY, 0, place)
        _show("flight", [in_flight.measure(config, latency, start_up, place)], write=write)


@app.command()
def scheduled(
    repositories: Annotated[int, typer.Option()] = 600,
    pull_requests: Annotated[int, typer.Option()] = 1200,
    write: Write = False,
) -> None:
    """Measure the scheduled syncs of a simulated day in which little happens, beside asking everything each hour.

    Example: make bench ARGS="scheduled --repositories 60 --pull-requests 120"
    """
    if (status := run_under_a_clock()) is not None:
        sys.exit(status)
    _show("scheduled", scheduled_syncs.measure(repositories, pull_requests).tables(), write=write)


@app.command()
def token(
    repositories: Annotated[int, typer.Option()] = 1400,
    pulls: Annotated[int, typer.Option()] = 100_000,
    hourly: Annotated[int, typer.Option(help="Requests an hour of the token.")] = 1000,
    write: Write = False,
) -> None:
    """Measure the import of a large workspace over one token in simulated time, and the day after it.

    Example: make bench ARGS="token --repositories 140 --pulls 10000 --hourly 100"
    """
    if (status := run_under_a_clock()) is not None:
        sys.exit(status)
    _show("token", one_token.measure(repositories, pulls, hourly), write=write)


@app.command("soak")
def soak_(
    minutes: Annotated[float, typer.Option()] = 30,
    workspaces: Annotated[int, typer.Option()] = 20,
    every: Annotated[float, typer.Option(help="Seconds between two changes of one workspace.")] = 30,
    sync_every: Annotated[float, typer.Option(help="Seconds between two syncs of one workspace.")] = 600,
    write: Write = False,
) -> None:
    """Run an installation whose workspaces live, with faults of Bitbucket, a restart of PostgreSQL and a clock step.

    Memory and sockets of each process are sampled. All rows are compared with the truth at the end; the status is 1
    where any differs.

    Example: make bench ARGS="soak --minutes 30"
    """
    outcome = soak(Load(workspaces, minutes, every, sync_every))
    _show("soak", outcome.tables(), write=write)
    for table, said in outcome.differences.items():
        print(f"{table}: {said}", file=sys.stderr)
    if outcome.differences:
        sys.exit(1)


@app.command()
def receive(
    trees: Annotated[list[Path] | None, typer.Argument(help="Checkouts to take turns; this one unless told.")] = None,
    connections: Annotated[int, typer.Option()] = 8,
    seconds: Annotated[float, typer.Option(help="How long a round of one kind takes.")] = 3,
    rounds: Annotated[int, typer.Option()] = 4,
    write: Write = False,
) -> None:
    """Measure deliveries that `serve` stores and refuses.

    Example: make bench ARGS="receive . ../before"
    """
    chosen = [tree.resolve() for tree in trees or [Path()]]
    _show("receive", receiving.measure(chosen, connections, seconds, rounds), write=write)


@app.command("deliveries")
def deliveries_(
    trees: Annotated[list[Path] | None, typer.Argument(help="Checkouts, one after the other; this one.")] = None,
    workspaces: Annotated[int, typer.Option()] = 50,
    minutes: Annotated[float, typer.Option()] = 10,
    every: Annotated[float, typer.Option(help="Seconds between two deliveries of one workspace.")] = 30,
    write: Write = False,
) -> None:
    """Measure when deliveries of many workspaces are in the tables, and the CPU that each takes.

    Example: make bench ARGS="deliveries . ../before --minutes 2"
    """
    load = deliveries.Load(workspaces, minutes, every)
    _show("deliveries", deliveries.measure(trees or [Path()], load), write=write)


@app.command()
def runs(number: Annotated[int, typer.Option()] = 5, write: Write = False) -> None:
    """Measure what Dagster takes for a run, in a process of its own and in one of a Celery worker.

    Example: make bench ARGS="runs --number 3"
    """
    _show("runs", runs_of_dagster.measure(number), write=write)


@app.command()
def workers(
    workspaces: Annotated[int, typer.Option()] = 50,
    every: Annotated[float, typer.Option(help="Seconds between two deliveries of one workspace.")] = 60,
    sync_every: Annotated[float, typer.Option(help="Seconds between two scheduled syncs of one workspace.")] = 300,
    broker: Annotated[BrokerName, typer.Option(help="Its server must be installed.")] = BrokerName("redis"),
) -> None:
    """Kill Celery workers, empty the broker and restart PostgreSQL under deliveries and syncs.

    Rows, deliveries and runs are compared with what they should be at the end; the status is 1 where any differs.

    Example: make bench ARGS="workers --workspaces 10 --every 20 --sync-every 180"
    """
    outcome = celery_workers.measure(workspaces, every, sync_every, celery_workers.BROKERS[broker])
    for line in outcome.lines():
        print(line)
    if not outcome.is_right:
        sys.exit(1)


@app.command()
def unified(pulls: Annotated[int, typer.Option()] = 1_000_000, write: Write = False) -> None:
    """Measure builds of unified tables: everything, beside CREATE TABLE AS; and after 1,000 changes.

    Example: make bench ARGS="unified --pulls 50000"
    """
    _show("unified", unified_tables.measure(pulls), write=write)


@app.command()
def storage(minutes: Annotated[float, typer.Option(help="How long it runs.")] = 10, write: Write = False) -> None:
    """Measure what Dagster's runs and ticks add to the database in a day, and what upkeep leaves of it.

    Example: make bench ARGS="storage --minutes 5"
    """
    _show("storage", stored.measure(minutes), write=write)


@app.command()
def measures(pulls: Annotated[int, typer.Option()] = 1_000_000, write: Write = False) -> None:
    """Measure builds of measures, beside a query with percentile_cont for each chart and group.

    Example: make bench ARGS="measures --pulls 100000"
    """
    _show("measures", measures_of_weeks.measure(pulls), write=write)


@app.command("all")
def both(write: Write = False) -> None:
    """Run `compare`, `killed` and `scale` as docs/performance.md has them. Takes about half an hour."""
    compare(write=write)
    killed(write=write)
    scale(write=write)


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        compare()


def _show(block: str, found: Sequence[Table], *, write: bool) -> None:
    shown = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    for table in found:
        table.show(shown)
    shown.print(reporting.machine(), highlight=False)
    if write:
        arguments = shlex.join(argument for argument in sys.argv[1:] if argument != "--write")
        reporting.write(block, f'make bench ARGS="{arguments}"' if arguments else "make bench", found)


def main() -> None:
    try:
        app()
    except (CannotRunError, PageError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
