"""`token`: a large workspace on one token: when what is there, and whether later syncs keep to their hour."""

import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg

from benchmarks import contestants, simulated
from benchmarks.happenings import DAY, HOUR, Day
from benchmarks.reporting import Table
from benchmarks.scheduled import BY_HAND, SCHEDULED, typical
from benchmarks.simulated import Installation, Simulation, Sync, now
from benchmarks.surroundings import databases
from dx_dagster.sandbox import Sandbox, truth
from dx_dagster.sandbox.tokens import RateLimit, Token
from dx_dagster.sandbox.world import World
from dx_dagster_tests.comparing import count_differences

STAGED, AT_ONCE = "week, quarter, all", "all at once"
_PARTS = {"newest week": timedelta(days=7), "last quarter": timedelta(days=91)}
_ALL = "everything"
_MOST_HOURS = 400

# Rows that belong to pull requests, by the join to their repository.
_OF_PULLS = {
    "bitbucket_pulls": "bitbucket_pulls t JOIN bitbucket_pulls p ON p.id = t.id",
    "bitbucket_pull_participants": "bitbucket_pull_participants t JOIN bitbucket_pulls p ON p.id = t.pull_id",
    "bitbucket_pull_activities": "bitbucket_pull_activities t JOIN bitbucket_pulls p ON p.id = t.pull_id",
    "bitbucket_pull_comments": "bitbucket_pull_comments t JOIN bitbucket_pulls p ON p.id = t.pull_id",
    "bitbucket_pull_commits": "bitbucket_pull_commits t JOIN bitbucket_pulls p ON p.id = t.pull_id",
}


@dataclass
class Part:
    """Everything within a bound of the import: its pull requests and pipelines, and how many rows they have."""

    pulls: Sequence[tuple[str, int]]
    pipelines: Sequence[str]
    rows: Mapping[str, int]

    @classmethod
    def of(cls, world: World, since: datetime) -> "Part":
        true: Mapping[str, Sequence[Mapping[str, Any]]] = truth(world, since)
        return cls(
            [(row["repository"], row["source_id"]) for row in true["bitbucket_pulls"]],
            [row["source_id"] for row in true["bitbucket_pipelines"]],
            {table: len(true[table]) for table in _OF_PULLS},
        )

    def is_in(self, database_url: str) -> bool:
        repositories, numbers = [one for one, _ in self.pulls], [number for _, number in self.pulls]
        with psycopg.connect(database_url) as connection:
            for table, join in _OF_PULLS.items():
                counted = connection.execute(
                    f"SELECT count(*) FROM {join} JOIN bitbucket_repositories r ON r.id = p.repository_id "  # noqa: S608
                    "JOIN unnest(%s::text[], %s::bigint[]) AS w (repository, number) "
                    "ON w.repository = r.source_id AND w.number = p.source_id".encode(),
                    [repositories, numbers],
                ).fetchone()
                if counted != (self.rows[table],):
                    return False
            runs = connection.execute(
                "SELECT count(*) FROM bitbucket_pipelines WHERE source_id = ANY(%s)", [self.pipelines]
            ).fetchone()
        return runs == (len(self.pipelines),)


@dataclass
class Measured:
    """One way through the import and the day after it.

    Attributes:
        there: hours from the beginning until each part was there.
        syncs: of the day; the plain way asks everything each time, and waits where its requests are used up.
        latest: the largest share of its bound after which a change was seen.
        wrong: rows that differ from the truth when the import has ended.
    """

    name: str
    there: dict[str, float] = field(default_factory=dict)
    requests: int = 0
    syncs: Sequence[Sync] = ()
    latest: float = 0.0
    wrong: int = 0


def measure(repositories: int, pull_requests: int, hourly: int) -> list[Table]:
    with ExitStack() as stack:
        place = stack.enter_context(databases())
        tokens = [Token(f"ATCTT3-sandbox-{n}", label=name) for n, name in enumerate((STAGED, AT_ONCE))]
        config = typical(repositories, pull_requests)
        sandbox = stack.enter_context(Sandbox(config, tokens=tokens, limits=RateLimit(hourly)))
        sandbox.world.follows_clock = True
        installations = []
        for token, how in zip(tokens, (SCHEDULED, BY_HAND), strict=True):
            url = stack.enter_context(place.fresh())
            env = stack.enter_context(contestants.environment(sandbox.url, url)) | simulated.environment()
            env["BITBUCKET_TOKEN"] = token.secret
            one = Installation(token.label, env, token.label, how)
            one.command("connect", "acme")
            stack.enter_context(one.at_work())
            installations.append(one)
        found = {one.name: Measured(one.name) for one in installations}
        _import(sandbox, installations, found)
        _live_a_day(sandbox, installations, found)
    return _tables(list(found.values()), repositories, pull_requests, hourly)


def _import(sandbox: Sandbox, installations: Sequence[Installation], found: Mapping[str, Measured]) -> None:
    """Imports in both ways at the same time, and looks each hour at what is there."""
    begin, world = now(), sandbox.world
    since = {name: begin - age for name, age in _PARTS.items()}
    parts = {name: Part.of(world, moment) for name, moment in since.items()}
    staged, at_once = installations
    stages = [*({"since": moment.isoformat()} for moment in since.values()), {"since": "all"}]

    def hours() -> float:
        return (now() - begin) / HOUR

    def look(one: Installation) -> None:
        there = found[one.name].there
        for name, part in parts.items():
            if name not in there and part.is_in(one.database_url):
                there[name] = hours()
                print(f"{one.name}: {name} after {hours():.1f} h", file=sys.stderr)

    def go_on(one: Installation) -> None:
        look(one)
        if one is staged and stages:
            one.start(BY_HAND | stages.pop(0))
        else:
            found[one.name].there[_ALL] = hours()

    def look_at_both() -> None:
        for one in installations:
            look(one)

    checks = [(begin + hour * HOUR, look_at_both) for hour in range(1, _MOST_HOURS)]
    staged.start(BY_HAND | stages.pop(0))
    at_once.start(BY_HAND)
    simulation = Simulation(sandbox, installations, checks, go_on)
    simulation.run(goes_on=lambda: any(_ALL not in one.there for one in found.values()))
    true = truth(world)
    for one in installations:
        found[one.name].requests = sum(sync.requests for sync in one.syncs)
        found[one.name].wrong = sum(count_differences(one.database_url, true).values())
        one.syncs.clear()


def _live_a_day(sandbox: Sandbox, installations: Sequence[Installation], found: Mapping[str, Measured]) -> None:
    """A day in which the first is synced as the schedule does, and the second asks everything as often as it can."""
    begin = now()
    day = Day(sandbox.world, begin)
    for one in installations:
        one.due_at = begin + HOUR
    Simulation(sandbox, installations, day.plan, day.look).run(begin + DAY + HOUR)
    for one in installations:
        found[one.name].syncs = list(one.syncs)
        found[one.name].latest = day.latest(one.name)


def _tables(found: Collection[Measured], repositories: int, pull_requests: int, hourly: int) -> list[Table]:
    size = f"{repositories:,} repositories, {pull_requests:,} pull requests, {hourly:,} requests an hour"
    parts = [*_PARTS, _ALL]
    first = [
        [one.name, *(f"{one.there[part]:.1f}" for part in parts), f"{one.requests:,}", f"{one.wrong:,}"]
        for one in found
    ]
    later = []
    for one, way in zip(
        found, ("scheduled, each repository at its pace", "everything is asked each hour"), strict=True
    ):
        minutes = sorted(sync.took / timedelta(minutes=1) for sync in one.syncs)
        later.append(
            [
                way, f"{len(one.syncs)}", f"{sum(sync.requests for sync in one.syncs):,}",
                f"{minutes[len(minutes) // 2]:.0f}", f"{minutes[-1]:.0f}", f"{sum(sync.left for sync in one.syncs)}",
                f"{one.latest:.2f}",
            ]
        )  # fmt: skip
    return [
        Table(
            f"First import: {size}", ["import", *(f"{part}, hours" for part in parts), "requests", "wrong rows"], first
        ),
        Table(
            "The day after it",
            [
                "syncs",
                "ended",
                "requests",
                "median minutes",
                "longest minutes",
                "left something",
                "latest change, of its bound",
            ],
            later,
        ),
    ]
