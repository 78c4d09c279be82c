"""Tables for the terminal and for docs/performance.md."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table as RichTable

_LOAD = os.getloadavg()[0]  # before there is any of ours: wall times mean little on a busy machine
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


class PageError(Exception):
    """docs/performance.md has no place for these tables."""


@dataclass
class Table:
    """`rows` begin with a name; all else is numbers, written out."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def show(self, console: Console) -> None:
        shown = RichTable(*self.columns, title=self.title, title_justify="left")
        shown.columns[0].no_wrap = True
        for column in shown.columns[1:]:
            column.justify = "right"
        for row in self.rows:
            shown.add_row(*row)
        console.print(shown)

    @property
    def markdown(self) -> str:
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        return f"**{self.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(block: str, command: str, tables: Sequence[Table]) -> None:
    """Puts tables between the page's markers `<!-- bench:BLOCK -->` and `<!-- /bench:BLOCK -->`.

    Raises:
        PageError: the markers are not there.
    """
    text = PAGE.read_text()
    start, end = f"<!-- bench:{block} -->\n", f"<!-- /bench:{block} -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise PageError(f"{PAGE} lacks the lines {start.strip()} and {end}; the tables are to stand between them.")
    made = f"`{command}` on {machine()}."
    PAGE.write_text("\n\n".join([before + start + made, *(table.markdown for table in tables)]) + f"\n{end}{after}")


def machine() -> str:
    """The machine in words."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load average {_LOAD:.1f} at the start"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
