"""Figures as tables: what stands in each cell of the page, and the same values as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from dx_dagster.insights.figures import Drawing, Figure, Measure, Unit
from dx_dagster.insights.reading import Fifth, Median, Totals
from dx_dagster.warehouse.schema.measures import FEW

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_NOTHING = "-"
_SPACE = "\N{NO-BREAK SPACE}"
_SECONDS = frozenset({"seconds", "business_seconds"})
# A spreadsheet takes a cell that begins like this for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Cell:
    """A value for people, and as a number where the text does not say it exactly."""

    text: str
    number: str = ""


@dataclass(frozen=True)
class TableRow:
    """One week. `over` is the number of rows that its figures are over; None where they are counts themselves."""

    week: date
    cells: tuple[Cell, ...]
    over: int | None
    is_under_way: bool


@dataclass(frozen=True)
class FigureTable:
    """A figure of some weeks, the newest first."""

    figure: Figure
    rows: tuple[TableRow, ...]
    drawing: Drawing

    @property
    def latest(self) -> str:
        """The figures of the newest week that has ended, as a sentence."""
        row = next((row for row in self.rows if not row.is_under_way), None)
        if row is None:
            return ""
        if all(cell.text in {"0", _NOTHING} for cell in row.cells):
            return f"Week of {row.week}: none."
        told = (f"{one.label.lower()} {cell.text}" for one, cell in zip(self.figure.measures, row.cells, strict=True))
        return f"Week of {row.week}: {', '.join(told)}."


@dataclass(frozen=True)
class Tile:
    """A key figure of all weeks together. `before` is that of as many weeks before."""

    title: str
    value: str
    note: str
    before: str


@dataclass(frozen=True)
class Listing:
    """A table without a chart."""

    name: str
    title: str
    meaning: str
    header: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    empty: str


def few(rows: int) -> bool:
    """Whether a figure over so many rows says little."""
    return 0 < rows < FEW


def few_or_number(rows: int) -> str:
    return f"few (n={rows})" if few(rows) else f"{rows:,}"


def text(value: float | None, unit: Unit) -> str:
    """A value for people."""
    if value is None:
        return _NOTHING
    if unit in _SECONDS:
        return duration(value, days=unit == "seconds")
    return {"number": f"{value:,.0f}", "share": f"{value:.1%}", "ratio": f"{value:.2f}"}[unit]


def duration(seconds: float, *, days: bool = True) -> str:
    """Seconds in the unit that suits them: in hours at most, or in days."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f}{_SPACE}s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f}{_SPACE}min"
    return f"{seconds / _DAY:.1f}{_SPACE}d" if days and seconds >= 2 * _DAY else f"{seconds / _HOUR:.1f}{_SPACE}h"


def table(figure: Figure, weeks: Iterable[dict[str, Any]], this_week: date) -> FigureTable:
    """The figure's table, from rows of `dx_dagster.insights.reading.weekly`."""
    over, weeks = _counted_by(figure), list(weeks)
    return FigureTable(
        figure,
        tuple(
            TableRow(
                row["week"],
                tuple(_cell(figure, measure, row[measure.column]) for measure in figure.measures),
                row[over] if over else None,
                row["week"] == this_week,
            )
            for row in weeks
        ),
        _drawing(figure, weeks),
    )


def points(figure: Figure, weeks: Sequence[dict[str, Any]], this_week: date) -> tuple[Drawing, list[dict[str, Any]]]:
    """How the figure is drawn, and the rows of its chart, as static/insights.js reads them from the table."""
    over = _counted_by(figure)
    return _drawing(figure, weeks), [
        {
            "week": str(row["week"]),
            "series": measure.label,
            "place": place,
            "value": row[measure.column],
            "few": row["week"] == this_week or bool(over and row[over] < FEW),
        }
        for row in reversed(weeks)
        for place, measure in enumerate(figure.measures, 1)
        if measure.is_drawn
    ]


def _counted_by(figure: Figure) -> str:
    """The column with the number of rows that the drawn figures are over; empty where they are counts."""
    return next((one.rows for one in figure.measures if one.is_drawn), "")


def _drawing(figure: Figure, weeks: Sequence[dict[str, Any]]) -> Drawing:
    if figure.drawing != "durations":
        return figure.drawing
    drawn = [measure for measure in figure.measures if measure.is_drawn]
    most = max((row[one.column] or 0 for row in weeks for one in drawn), default=0)
    if most < 2 * _HOUR:
        return "minutes"
    return "days" if most >= 2 * _DAY and drawn[0].unit == "seconds" else "hours"


def _cell(figure: Figure, measure: Measure, value: float | None) -> Cell:
    if value is None:
        return Cell(_NOTHING)
    if measure.unit == "number":
        is_few = measure.column in figure.counts and few(int(value))
        shown = few_or_number(int(value)) if is_few else f"{value:,.0f}"
        return Cell(shown, "" if shown.isdigit() else f"{value:.0f}")
    return Cell(text(value, measure.unit), f"{value:.0f}" if measure.unit in _SECONDS else f"{value:.5g}")


def tiles(now: Totals, before: Totals | None, *, business_hours: bool) -> list[Tile]:
    """The four keys."""
    unit: Unit = "business_seconds" if business_hours else "seconds"
    return [
        Tile(
            "Deployment frequency",
            f"{now.deployments / now.weeks:.1f} a week",
            f"{now.deployments:,} deployments in {now.weeks} {'week' if now.weeks == 1 else 'weeks'}",
            f"{before.deployments / before.weeks:.1f} a week" if before else "",
        ),
        _median("Lead time", now.lead_time, before.lead_time if before else None, "deployed pull requests", unit),
        Tile(
            "Change-failure rate",
            text(_rate(now), "share"),
            _over(now.deployments, "deployments"),
            text(_rate(before), "share") if before else "",
        ),
        _median("Cycle time", now.cycle_time, before.cycle_time if before else None, "merged pull requests", unit),
    ]


def _rate(of: Totals) -> float | None:
    return of.change_failures / of.deployments if of.deployments else None


def _median(title: str, now: Median, before: Median | None, what: str, unit: Unit) -> Tile:
    earlier = text(before.seconds, unit) if before else ""
    return Tile(f"{title}, median", text(now.seconds, unit), _over(now.rows, what), earlier)


def _over(rows: int, what: str) -> str:
    return f"{few_or_number(rows)} of {what}" if few(rows) else f"over {rows:,} {what}"


def fifths(found: Sequence[Fifth]) -> Listing:
    """How many of the reviews each fifth of the people gave."""
    return Listing(
        "fifths",
        "Reviews by fifths of the people",
        "People of these weeks in five groups of one size, by the number of their reviews. The share of each group is "
        "of all reviews. Where all review as much, each has 20%.",
        ("fifth", "people", "reviews", "share"),
        [(one.fifth, one.people, one.reviews, one.share) for one in found],
        "These are too few people: a group would be a single person.",
    )


def bots(now: Totals) -> str:
    """How much of the work bots did, which no figure of people contains."""
    return (
        "Figures are of people. In these weeks, bots had "
        f"{_share_of(now.bots_merged, now.merged + now.bots_merged)} merged pull requests and "
        f"{_share_of(now.bot_reviews, now.reviews + now.bot_reviews)} reviews."
    )


def _share_of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" + (f" ({part / whole:.0%})" if whole else "")


def figure_csv(figure: Figure, weeks: Iterable[dict[str, Any]]) -> str:
    """The table with the values as they are stored; `few` says that a figure of the row is over few rows."""
    columns = [measure.column for measure in figure.measures]
    counts = figure.counts
    return written(
        ("week", *columns, "few"),
        (
            (row["week"], *(row[column] for column in columns), str(any(few(row[one]) for one in counts)).lower())
            for row in weeks
        ),
    )


def written(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """CSV of which a spreadsheet runs no cell as a formula."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows([_harmless(value) for value in row] for row in rows)
    return file.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
