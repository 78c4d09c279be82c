"""Progress of an import: bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from dx_dagster.cli.consoles import plain

_SECONDS_BETWEEN_LINES = 2.0


class Bars:
    """One bar for each step."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def progress(self, step: str, done: int, total: int, requests: int) -> None:
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=total, requests=requests)
        self._bars.update(self._tasks[step], completed=done, total=total, requests=requests)

    def warning(self, message: str) -> None:
        self._bars.console.print(message, style="yellow")


class Lines:
    """A line every few seconds, and one at the end of each step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = time.monotonic()

    def progress(self, step: str, done: int, total: int, requests: int) -> None:
        if done == total or time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._console.print(f"{step}: {done} of {total}, {requests} requests")

    def warning(self, message: str) -> None:
        self._console.print(message)


@contextmanager
def display() -> Iterator[Bars | Lines]:
    """The display on standard error; standard output contains results only."""
    console = plain(stderr=True, soft_wrap=True)
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        *(SpinnerColumn(), TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn()),
        *(TextColumn("{task.fields[requests]} requests"), TimeElapsedColumn()),
    )
    with Progress(*columns, console=console) as bars:
        yield Bars(bars)
