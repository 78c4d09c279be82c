"""Progress of an import: bars on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from dx_dagster.cli.consoles import plain

_SECONDS_BETWEEN_LINES = 2.0


@dataclass(frozen=True)
class Outlook:
    """What a sync may send, as known at its start.

    Attributes:
        left: requests of the budgets, in this hour.
        limit: requests an hour of the budgets.
        expected: requests that a first import is expected to take; None for a later sync.
    """

    left: int
    limit: int
    expected: int | None = None

    def after(self, requests: int) -> str:
        """How much is left after so many requests of this sync."""
        left = max(0, self.left - requests)
        budget = f"{left:,} of this hour's {self.limit:,} requests left"
        to_go = 0 if self.expected is None else self.expected - requests
        if to_go <= 0:
            return budget
        hours = math.ceil((to_go - left) / self.limit) if to_go > left and self.limit else 0
        later = f", the rest within about {hours} hour{'s' if hours > 1 else ''}" if hours else ""
        return f"about {to_go:,} requests to go; {budget}{later}"


class Bars:
    """One bar for each step, above what is left."""

    def __init__(self, bars: Progress, outlook: Outlook | None = None) -> None:
        self._bars, self._outlook = bars, outlook
        self._tasks: dict[str, TaskID] = {}
        self._left: TaskID | None = None

    def progress(self, step: str, done: int, total: int, requests: int, counted: str) -> None:
        shown = {"completed": done, "total": total, "counted": f"{done:,}/{total:,} {counted}"}
        if step not in self._tasks:
            if self._left is not None:  # it stays the last line
                self._bars.remove_task(self._left)
                self._left = None
            self._tasks[step] = self._bars.add_task(step, **shown)  # type: ignore[arg-type]
        self._bars.update(self._tasks[step], **shown)  # type: ignore[arg-type]
        told = f"{requests:,} requests sent"
        if self._outlook is not None:
            told = f"{told}; {self._outlook.after(requests)}"
        if self._left is None:
            self._left = self._bars.add_task(told, total=None, counted="", is_note=True)
        self._bars.update(self._left, description=told)

    def warning(self, message: str) -> None:
        self._bars.console.print(message, style="yellow")

    def end(self) -> None:
        """Drops the note of what is left, which is no longer true."""
        if self._left is not None:
            self._bars.remove_task(self._left)


class Lines:
    """A line every few seconds, and one at the end of each step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = time.monotonic()

    def progress(self, step: str, done: int, total: int, requests: int, counted: str) -> None:
        if done == total or time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._console.print(f"{step}: {done} of {total} {counted}, {requests} requests")

    def warning(self, message: str) -> None:
        self._console.print(message)


class _BarsAndNote(Progress):
    """Bars, except for the note of what is left, which is text alone."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table([task for task in self.tasks if not task.fields.get("is_note")])
        for task in self.tasks:
            if task.fields.get("is_note"):
                yield Text(task.description, style="dim")


@contextmanager
def display(outlook: Outlook | None = None) -> Iterator[Bars | Lines]:
    """The display on standard error; standard output contains results only."""
    console = plain(stderr=True, soft_wrap=True)
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        *(SpinnerColumn(), TextColumn("{task.description:12}"), BarColumn(bar_width=20)),
        *(TextColumn("{task.fields[counted]}"), TimeElapsedColumn()),
    )
    with _BarsAndNote(*columns, console=console) as bars:
        shown = Bars(bars, outlook)
        yield shown
        shown.end()
