"""Reports as the pages of insights show them: the outcome of each tile as cells, and as CSV."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path

from anyio import to_thread
from markupsafe import Markup

from dx_dagster.api.installation import ServedInstallation
from dx_dagster.api.pages import figure_tables
from dx_dagster.api.pages.insight_filters import View
from dx_dagster.insights.reports import variables
from dx_dagster.insights.reports.files import Catalogue, Report, Reports, Tile
from dx_dagster.insights.reports.running import Outcome
from dx_dagster.insights.reports.tiles import Column, Drawing, Result
from dx_dagster.insights.reports.values import values

DRAWING = "report-"
"""What the name of a chart of reports begins with, where charts of figures have names too."""

_NOTHING = "-"
_MIDNIGHT = " 00:00:00"


@dataclass(frozen=True)
class ShownColumn:
    """A heading. `role` is an attribute for the page's script."""

    name: str
    role: Markup
    is_words: bool


@dataclass(frozen=True)
class ShownCell:
    """A cell; `exact` is the value where the text does not say it exactly."""

    text: str
    exact: str
    is_words: bool


@dataclass(frozen=True)
class ShownTile:
    """A tile as the page has it.

    Attributes:
        key: the only value, shown large, as DX does.
    """

    name: str
    title: str
    description: str
    error: str = ""
    chart: str = ""
    x_title: str = ""
    y_title: str = ""
    columns: tuple[ShownColumn, ...] = ()
    rows: Sequence[tuple[ShownCell, ...]] = ()
    note: str = ""
    key: str | None = None

    @property
    def is_wide(self) -> bool:
        return not self.error and not self.chart and self.key is None


@cache
def _reports(folder: Path, taken: frozenset[str]) -> Reports:
    return Reports(folder, taken)


async def catalogue(served: ServedInstallation, taken: frozenset[str]) -> Catalogue:
    """The reports that there are; `taken` are addresses of other pages."""
    return await to_thread.run_sync(_reports(served.settings.report_folder, taken).catalogue)


async def outcomes(served: ServedInstallation, view: View, report: Report, tiles: Sequence[Tile]) -> list[Outcome]:
    """What became of these tiles of the report.

    Raises:
        ReportsUnavailableError: no report can run here.
    """
    zone = served.settings.time_zone
    warehouse = await served.warehouse()
    async with warehouse.transaction(read_only=True) as transaction:
        given = await values(
            transaction,
            view.of,
            view.weeks,
            zone,
            names={name for tile in tiles for name in variables.used(tile.sql)},
            is_only_workspace=len(view.choices.workspaces) == 1,
            defaults=report.defaults,
        )
    address = await served.report_access.address()
    return await served.report_runner.run(tiles, given, address, zone)


def as_csv(result: Result) -> str:
    """The rows as PostgreSQL writes them."""
    are_numbers = [column.kind == "number" for column in result.columns]
    rows = (
        [Decimal(cell) if is_number and cell else cell for cell, is_number in zip(row, are_numbers, strict=True)]
        for row in result.rows
    )
    return figure_tables.written((column.name for column in result.columns), rows)


def shown(outcome: Outcome) -> ShownTile:
    """The tile with its cells as people read them."""
    tile, result, drawing = outcome.tile, outcome.result, outcome.drawing
    if result is None:
        return ShownTile(tile.name, tile.title, tile.description, outcome.error)
    shorten = [_has_only_days(result, place) for place in range(len(result.columns))]
    rows = [
        tuple(
            _cell(cell, column, is_day=is_day)
            for cell, column, is_day in zip(row, result.columns, shorten, strict=True)
        )
        for row in result.rows
    ]
    notes = [f"The first {len(rows):,} rows: the query has more."] if result.has_more else []
    chart, x_title, y_title = "", tile.x_label, tile.y_label
    if drawing is not None:
        chart = drawing.chart
        x = result.columns[drawing.x]
        x_title = x_title or (x.name if x.kind == "number" else "")
        y_title = y_title or (result.columns[drawing.ys[0]].name if len(drawing.ys) == 1 else "")
        notes += [drawing.note] if drawing.note else []
    return ShownTile(
        tile.name,
        tile.title,
        tile.description,
        chart=chart,
        x_title=x_title,
        y_title=y_title,
        columns=tuple(_columns(result.columns, drawing)),
        rows=rows,
        note=" ".join(notes),
        key=rows[0][0].text if chart == "" and len(rows) == len(result.columns) == 1 else None,
    )


def _columns(columns: Iterable[Column], drawing: Drawing | None) -> Iterable[ShownColumn]:
    for place, column in enumerate(columns):
        roles = ""
        if drawing is not None:
            roles += " data-x" * (place == drawing.x) + " data-y" * (place in drawing.ys)
            roles += " data-group" * (place == drawing.group)
        yield ShownColumn(column.name, Markup(roles), column.kind != "number")  # noqa: S704 - of these words alone


def _has_only_days(result: Result, place: int) -> bool:
    """Whether the column has times that all are midnights, as `date_trunc` makes them."""
    return result.columns[place].kind == "time" and all(
        row[place] is None or _MIDNIGHT in str(row[place])[10:] for row in result.rows
    )


def _cell(value: str | None, column: Column, *, is_day: bool) -> ShownCell:
    is_words = column.kind != "number"
    if value is None:
        return ShownCell(_NOTHING, "", is_words)
    if column.kind == "number":
        short = _rounded(value)
        return ShownCell(short, "" if short == value else value, is_words)
    if column.kind == "time":
        short = value.partition(_MIDNIGHT)[0] if is_day else value
        return ShownCell(short, "" if short == value else value, is_words)
    return ShownCell(value, "", is_words)


def _rounded(value: str) -> str:
    """A number with four decimal places at most, unless it is smaller than that."""
    if "." not in value:
        return value
    number = float(value)
    rounded = f"{number:.4f}".rstrip("0").rstrip(".")
    return rounded if float(rounded) or not number else f"{number:.3g}"
