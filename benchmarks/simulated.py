"""Installations beside a living world in simulated time.

All processes run under a clock that is stepped while none of them is at work: while a sync waits for its budget, and
between two syncs. What they do takes the time that it takes.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import psycopg

from benchmarks.contestants import ROOT, CannotRunError, checked
from dx_dagster.sandbox import Sandbox
from dx_dagster_tests.stepped_clock import COMPILER, ClockFile, SteppedClock

_LOOK = 0.05  # real seconds
_QUIET_LOOKS = 40
_QUIET_LOOKS_OF_HURRIED = 800  # a request of a scheduled sync waits for half a minute, and is left to the next one
_USED_UP, _MUCH_IS_FREE = 0.9, 0.3
_COUNTS_FOR = 3660.0  # seconds for which dx-dagster counts a request, from the end of its minute
_WAITS = re.compile(rb"^waiting \d+ s, until (\d\d):(\d\d):(\d\d)", re.MULTILINE)
_LATEST_BYTES = 20_000  # of standard error: a wait is told once, and others go on beside it
_A_LOOK = re.compile(r"/repositories/[^/]+/[^/]+/(pullrequests|pipelines)/?\?")
_DAY = timedelta(days=1)
_TICK = timedelta(minutes=5)  # of the schedule
_EVERY = timedelta(hours=1)


def run_under_a_clock() -> int | None:
    """Runs this program again under a clock that can be stepped, and returns its status; None within that program.

    Raises:
        CannotRunError: there is no C compiler.
    """
    if "STEPPED_CLOCK" in os.environ:
        return None
    if COMPILER is None or not sys.platform.startswith("linux"):
        raise CannotRunError("Simulated time needs Linux and a C compiler (cc). On Debian: apt-get install gcc")
    with tempfile.TemporaryDirectory(prefix="dx-dagster-clock-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL may run as another user
        clock = SteppedClock(Path(folder), everything=True)
        command = [sys.executable, "-m", "benchmarks", *sys.argv[1:]]
        return subprocess.call(command, env={**os.environ, **clock.environment})


def environment() -> dict[str, str]:
    """What other processes need to share the clock."""
    return {name: os.environ[name] for name in ("LD_PRELOAD", "STEPPED_CLOCK", "STEPPED_CLOCK_ALL")}


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the clock of all processes


def wait_until(moment: datetime) -> None:
    """Steps the clock to the moment, if it has not come yet."""
    clock = ClockFile.inherited()
    seconds = (moment - now()).total_seconds()
    if seconds > 0:
        clock.step(clock.ahead + int(seconds) + 1)
        time.sleep(3 * _LOOK)


@dataclass(frozen=True)
class Sync:
    """A sync that has ended.

    Attributes:
        looks: requests that ask a repository whether pull requests or pipelines have changed.
        left: its requests did not suffice for everything that was due.
    """

    began: datetime
    ended: datetime
    requests: int
    looks: int
    left: bool

    @property
    def took(self) -> timedelta:
        return self.ended - self.began


@dataclass
class Installation:
    """An installation, with a process that runs its syncs.

    Attributes:
        how: what it runs when it is due; see `benchmarks.syncing`.
        token: label of its token at the sandbox.
        due_at: when its next sync begins; None for no other one.
    """

    name: str
    env: Mapping[str, str]
    token: str
    how: Mapping[str, object]
    due_at: datetime | None = None
    syncs: list[Sync] = field(default_factory=list)
    began: datetime | None = None
    requests: int = 0
    looks: int = 0
    quiet_looks: int = 0
    how_now: Mapping[str, object] = field(default_factory=dict)

    @property
    def database_url(self) -> str:
        return self.env["DX_DATABASE_URL"]

    def command(self, *arguments: str, **env: str) -> str:
        return checked((sys.executable, "-m", "dx_dagster.cli", *arguments), {**self.env, **env})

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Holds the process that runs its syncs."""
        command = [sys.executable, "-m", "benchmarks.syncing", "acme"]
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(
                command, env=self.env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as self._process,
        ):
            self._answers: SimpleQueue[str] = SimpleQueue()
            self._errors = errors
            threading.Thread(target=self._listen, daemon=True).start()
            try:
                self._answer(timeout=120)
                yield
            finally:
                self._process.kill()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            self._answers.put(line)
        self._answers.put("")

    def _answer(self, timeout: float) -> dict[str, Any]:
        line = self._answers.get(timeout=timeout)
        found = json.loads(line) if line else {"error": "it ended"}
        if "error" in found:
            self._errors.seek(0)
            raise CannotRunError(f"{self.name}: {found['error']}\n{self._errors.read()[-3000:]}")
        return dict(found)

    def start(self, how: Mapping[str, object] | None = None) -> None:
        self.began, self.requests, self.looks, self.quiet_looks = now(), 0, 0, 0
        self.how_now = how or self.how
        print(json.dumps(self.how_now), file=self._process.stdin, flush=True)

    def answer_within(self, seconds: float) -> dict[str, Any] | None:
        """The answer of the sync under way, if it ends by then."""
        try:
            return self._answer(timeout=seconds)
        except Empty:
            return None

    def end(self, answer: Mapping[str, Any]) -> None:
        """Adds the sync under way to `syncs`; the next one is due at the schedule's first tick after an hour."""
        left = any("left to the next sync" in note for note in answer.get("notes", ()))
        self.syncs.append(Sync(self.began or now(), now(), self.requests, self.looks, left))
        print(f"{now():%a %H:%M} {self.name}: {self.requests:,} requests", file=sys.stderr)
        self.began = None
        if self.due_at is not None:
            self.due_at = _next_tick(self.syncs[-1].ended + _EVERY)

    def waits_until(self) -> datetime | None:
        """When the sync goes on, if it has sent nothing for long and waits for its budget; None where it works."""
        is_hurried = self.how_now["how"] == "scheduled"
        if self.quiet_looks < (_QUIET_LOOKS_OF_HURRIED if is_hurried else _QUIET_LOOKS):
            return None
        if not is_hurried and not self._says_that_it_waits():
            return None
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute(
                "SELECT spent, request_limit, extract(epoch FROM clock_timestamp())::float8 FROM budgets "
                "WHERE request_limit IS NOT NULL"
            ).fetchone()
        return _room_at(*row) if row else None

    def _says_that_it_waits(self) -> bool:
        """Whether the last wait that a sync by hand has told is not over yet."""
        size = os.fstat(self._errors.fileno()).st_size
        latest = os.pread(self._errors.fileno(), _LATEST_BYTES, max(0, size - _LATEST_BYTES))
        told = _WAITS.findall(latest)
        if not told:
            return False
        at = now().astimezone()
        hour, minute, second = map(int, told[-1])
        until = at.replace(hour=hour, minute=minute, second=second)
        return (until - at) % _DAY < _DAY / 2  # it may be tomorrow


def _room_at(spent: Sequence[tuple[float, int]], limit: int, at: float) -> datetime | None:
    """When much of a budget is free again, if it is nearly used up; `spent` are requests by the end of their minute."""
    counted = sorted((until + _COUNTS_FOR, requests) for until, requests in spent if until + _COUNTS_FOR > at)
    left = sum(requests for _, requests in counted)
    if left < _USED_UP * limit:
        return None
    for until, requests in counted:
        left -= requests
        if left <= _MUCH_IS_FREE * limit:
            return datetime.fromtimestamp(until + 1, UTC)
    return None


def _next_tick(moment: datetime) -> datetime:
    return datetime.fromtimestamp(-(-moment.timestamp() // _TICK.total_seconds()) * _TICK.total_seconds(), UTC)


@dataclass
class Simulation:
    """A sandbox and the installations that import its workspace.

    Attributes:
        happenings: what happens in the world, by time, earliest first.
        on_end: called with an installation whose sync has ended.
    """

    sandbox: Sandbox
    installations: Sequence[Installation]
    happenings: list[tuple[datetime, Callable[[], None]]] = field(default_factory=list)
    on_end: Callable[[Installation], None] = lambda _: None

    def run(self, until: datetime | None = None, goes_on: Callable[[], bool] = lambda: True) -> None:
        """Runs until the moment, while it `goes_on`, or until nothing is under way and nothing is due."""
        while True:
            waiting = self._work()
            if not goes_on():
                return
            moments = [
                *waiting,
                *(moment for moment, _ in self.happenings[:1]),
                *(one.due_at for one in self.installations if one.began is None and one.due_at is not None),
                *([until] if until else []),
            ]
            if not moments or (until is not None and min(moments) >= until):
                if until is not None:
                    wait_until(until)
                return
            wait_until(min(moments))
            self._go_on()

    def _go_on(self) -> None:
        while self.happenings and self.happenings[0][0] <= now():
            self.happenings.pop(0)[1]()
        for one in self.installations:
            one.quiet_looks = 0
            if one.began is None and one.due_at is not None and one.due_at <= now() and not self._is_taken(one.token):
                one.start()

    def _is_taken(self, token: str) -> bool:
        """Whether a sync with this token is under way: requests are counted by token."""
        return any(one.began is not None and one.token == token for one in self.installations)

    def _work(self) -> list[datetime]:
        """Lets all syncs work until each has ended or waits; when those that wait go on."""
        waiting: dict[str, datetime] = {}
        while True:
            self._count()
            running = [one for one in self.installations if one.began is not None]
            for one in running:
                if answer := one.answer_within(_LOOK):
                    self._count()
                    one.end(answer)
                    waiting.pop(one.name, None)
                    self.on_end(one)
                elif moment := one.waits_until():
                    waiting[one.name] = moment
                else:
                    waiting.pop(one.name, None)
            if all(one.name in waiting for one in running if one.began is not None):
                return list(waiting.values())

    def _count(self) -> None:
        """Counts the requests since the last look, by token."""
        found, looks = Counter[str | None](), Counter[str | None]()
        recorded = self.sandbox.requests.recorded
        while recorded:
            request = recorded.popleft()
            found[request.token] += 1
            looks[request.token] += bool(_A_LOOK.search(request.path))
        for one in self.installations:
            if one.began is not None:
                one.requests += found[one.token]
                one.looks += looks[one.token]
            one.quiet_looks = 0 if found[one.token] else one.quiet_looks + 1
