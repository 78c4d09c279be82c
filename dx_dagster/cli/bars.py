"""Progress bars of an import on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from dx_dagster.cli.consoles import plain
from dx_dagster.cli.progress import Outlook


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


class _BarsAndNote(Progress):
    """Bars, except for the note of what is left, which is text alone."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table([task for task in self.tasks if not task.fields.get("is_note")])
        for task in self.tasks:
            if task.fields.get("is_note"):
                yield Text(task.description, style="dim")


@contextmanager
def bars(outlook: Outlook | None) -> Iterator[Bars]:
    """The bars, on standard error."""
    columns = (
        *(SpinnerColumn(), TextColumn("{task.description:12}"), BarColumn(bar_width=20)),
        *(TextColumn("{task.fields[counted]}"), TimeElapsedColumn()),
    )
    with _BarsAndNote(*columns, console=plain(stderr=True, soft_wrap=True)) as drawn:
        shown = Bars(drawn, outlook)
        yield shown
        shown.end()
