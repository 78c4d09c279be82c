"""`scheduled`: what scheduled syncs cost in a workspace in which little happens."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psycopg

from benchmarks import contestants, simulated
from benchmarks.contestants import ROOT, CannotRunError
from benchmarks.happenings import DAY, HOUR, Day
from benchmarks.reporting import Table
from benchmarks.simulated import Installation, Simulation, Sync, now, wait_until
from benchmarks.surroundings import NO_LIMIT, TOKEN, databases
from dx_dagster.cli.ports import free_port
from dx_dagster.sandbox import Sandbox, WorldConfig, truth
from dx_dagster.sandbox.config import TYPICAL_SILENCE
from dx_dagster.sandbox.tokens import RateLimit, Token
from dx_dagster_tests.comparing import count_differences

SCHEDULED = {"how": "scheduled"}
BY_HAND = {"how": "by hand"}
_LABEL = "of the benchmark"
_LOOKS = 60
_BEFORE = timedelta(minutes=2)


def typical(repositories: int, pull_requests: int) -> WorldConfig:
    """A workspace that began just now: a tenth is active, half is quiet."""
    return WorldConfig(
        repositories=repositories, pull_requests=pull_requests, now=None, silent_days=TYPICAL_SILENCE, members=30
    )


@dataclass
class Costs:
    """Requests of scheduled syncs.

    Attributes:
        repositories: of the workspace.
        believed: of a sync in which nothing happened, with a webhook.
        everything, paced: of the syncs of a day, the first of them an hour after everything was asked.
        looks: of the paced ones, those that ask a repository whether something changed.
        least: the fewest such requests that the bounds allow.
        changes: in that day.
        latest: the largest share of its bound after which a change was seen, by way.
        wrong: rows that differ from the truth at the end, by way.
    """

    repositories: int
    believed: int
    everything: Sequence[int]
    paced: Sequence[int]
    looks: int
    least: int
    changes: int
    latest: Mapping[str, float]
    wrong: Mapping[str, int]

    def tables(self) -> list[Table]:
        one, day = self.everything[0], sum(self.everything)
        rows = [
            _row("everything is asked, nothing happened", one, one),
            _row("nothing happened, the webhook is believed", self.believed, one),
            _row("the first hour, each repository at its pace", self.paced[0], self.everything[0]),
            _row(f"{len(self.everything)} syncs of a day that ask everything", day, day),
            _row(f"{len(self.paced)} syncs of a day, each repository at its pace", sum(self.paced), day),
            _row("of these, requests that look for changes", self.looks, day),
            _row("the fewest of those that the bounds allow", self.least, day),
        ]
        title = f"What a scheduled sync costs: {self.repositories:,} repositories, {self.changes} changes in the day"
        seen = [[way, f"{self.latest[way]:.2f}", f"{self.wrong[way]:,}"] for way in self.latest]
        return [
            Table(title, ["sync", "requests", "beside everything"], rows),
            Table("At the end of the day", ["way", "latest change, of its bound", "wrong rows"], seen),
        ]


def _row(name: str, requests: int, beside: int) -> list[str]:
    return [name, f"{requests:,}", f"1/{beside / requests:.1f}" if requests != beside else "1"]


def measure(repositories: int, pull_requests: int) -> Costs:
    with ExitStack() as stack:
        place = stack.enter_context(databases())
        token = Token(TOKEN, label=_LABEL)
        config = typical(repositories, pull_requests)
        sandbox = stack.enter_context(Sandbox(config, tokens=[token], limits=RateLimit(NO_LIMIT)))
        sandbox.world.follows_clock = True
        original = stack.enter_context(place.fresh())
        env = stack.enter_context(contestants.environment(sandbox.url, original)) | simulated.environment()
        first = Installation("first import", env, _LABEL, BY_HAND)
        first.command("connect", "acme")
        with first.at_work():
            first.start()
            Simulation(sandbox, [first]).run()

        @contextmanager
        def copied(name: str, how: Mapping[str, object], **more: str) -> Iterator[Installation]:
            home = Path(env["HOME"]) / name.replace(" ", "-")
            with place.copy(original) as url:
                made = Installation(name, {**env, **more, "DX_DATABASE_URL": url, "DX_HOME": str(home)}, _LABEL, how)
                with made.at_work():
                    yield made

        with copied("webhook", SCHEDULED, DX_PUBLIC_URL="https://dx.example.com") as webhook:
            believed = _with_webhook(sandbox, webhook)
        paced = stack.enter_context(copied("each repository at its pace", SCHEDULED))
        plain = stack.enter_context(copied("everything", BY_HAND))
        return _day(sandbox, (paced, plain), first.syncs[0], believed)


def _with_webhook(sandbox: Sandbox, installation: Installation) -> int:
    """Requests of the second scheduled sync under a healthy webhook; the first one asks what came before it."""
    installation.command("webhooks", "install", "acme")
    port = free_port()
    command = [sys.executable, "-m", "dx_dagster.cli", "serve", "--port", str(port)]
    with subprocess.Popen(command, env=installation.env, cwd=ROOT, stdout=sys.stderr) as receiver:
        try:
            _wait_for_receiver(installation)
            for _ in range(2):
                installation.start()
                Simulation(sandbox, [installation]).run()
        finally:
            receiver.terminate()
    return installation.syncs[-1].requests


def _wait_for_receiver(installation: Installation) -> None:
    for _ in range(_LOOKS):
        time.sleep(1)
        with psycopg.connect(installation.database_url) as connection:
            if connection.execute("SELECT FROM receiver_uptimes").fetchone() is not None:
                return
    raise CannotRunError("The receiver did not start; what it wrote stands above.")


def _day(sandbox: Sandbox, installations: Sequence[Installation], first: Sync, believed: int) -> Costs:
    """A day in which both installations are synced each hour, the first time an hour after everything was asked."""
    wait_until(first.ended + HOUR - _BEFORE)
    day = Day(sandbox.world, now())
    for one in installations:
        one.due_at = first.ended + HOUR
    Simulation(sandbox, installations, day.plan, day.look).run(first.began + DAY + HOUR)
    paced, plain = installations
    everything, syncs = [one.requests for one in plain.syncs], list(paced.syncs)
    latest = {one.name: day.latest(one.name) for one in installations}
    for one in installations:
        one.due_at = None
        one.start(BY_HAND)
        Simulation(sandbox, [one]).run()
    true = truth(sandbox.world)
    return Costs(
        len(day.last),
        believed,
        everything,
        [one.requests for one in syncs],
        sum(one.looks for one in syncs),
        2 * day.least_asked(first.began, syncs),
        len(day.made),
        latest,
        {one.name: sum(count_differences(one.database_url, true).values()) for one in installations},
    )
