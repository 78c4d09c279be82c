"""Runs the query of a tile, within limits, and decides how its rows are drawn."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import AsyncConnection, AsyncRawServerCursor
from psycopg.errors import InsufficientPrivilege, QueryCanceled
from psycopg.rows import TupleRow

from dx_dagster.insights.reports.files import Tile
from dx_dagster.insights.reports.variables import Query, TileError

ColumnKind = Literal["number", "time", "text"]
MOST_ROWS, MOST_SECONDS, MOST_SERIES = 1000, 10, 8
MOST_CHARACTERS_OF_CELL = 1000

_MOST_COLUMNS = 60
_MOST_CHARACTERS = 300_000  # of a tile, so that a page stays within a few MB
_PART = 100  # rows
_MOST_TALL_BARS = 40
_NAME = "tile"
_DECLARED = len(f'DECLARE "{_NAME}" CURSOR FOR ')
# The numbers of PostgreSQL's own types never change.
_KINDS: dict[int, ColumnKind] = {
    **dict.fromkeys((20, 21, 23, 700, 701, 1700), "number"),  # int8, int2, int4, float4, float8, numeric
    **dict.fromkeys((1082, 1114, 1184), "time"),  # date, timestamp, timestamptz
}


@dataclass(frozen=True)
class Column:
    name: str
    kind: ColumnKind


@dataclass(frozen=True)
class Result:
    """Rows as PostgreSQL writes them.

    Attributes:
        has_more: whether the query has more rows.
    """

    columns: tuple[Column, ...]
    rows: Sequence[tuple[str | None, ...]]
    has_more: bool


@dataclass(frozen=True)
class Drawing:
    """Which chart the rows make, and which columns it reads, by their places.

    Attributes:
        chart: the name of its specification.
    """

    chart: str
    x: int
    ys: tuple[int, ...]
    group: int | None
    note: str


async def run(connection: AsyncConnection[TupleRow], query: Query) -> Result:
    """The first rows of the query. A cell is cut on the server, so that no value fills the memory of this process.

    `DECLARE` takes a single SELECT and nothing else. The transaction is rolled back.

    Raises:
        TileError: PostgreSQL refuses or ends the query.
    """
    try:
        async with AsyncRawServerCursor(connection, _NAME) as cursor:
            await cursor.execute(query.text.encode(), query.parameters)
            columns = tuple(Column(one.name, _KINDS.get(one.type_code, "text")) for one in cursor.description or ())
        if not columns:
            raise TileError("The query has no columns.")
        if len(columns) > _MOST_COLUMNS:
            raise TileError(f"The query has {len(columns)} columns, and a tile shows {_MOST_COLUMNS} at most.")
        async with AsyncRawServerCursor(connection, _NAME) as cursor:
            await cursor.execute(_as_text(query.text, len(columns)).encode(), query.parameters)
            return await _fetched(cursor, columns)
    except psycopg.Error as error:
        raise TileError(_sentence(error, query)) from None


def _as_text(sql: str, columns: int) -> str:
    """The query with each value as text. Its own names may repeat, so the columns get others."""
    names = [f"c{number}" for number in range(1, columns + 1)]
    cells = ", ".join(f"left({name}::text, {MOST_CHARACTERS_OF_CELL + 1})" for name in names)
    return f"SELECT {cells} FROM (\n{sql}\n) AS tile ({', '.join(names)})"  # noqa: S608 - the report's own SQL


async def _fetched(cursor: AsyncRawServerCursor[TupleRow], columns: tuple[Column, ...]) -> Result:
    rows: list[tuple[str | None, ...]] = []
    characters = 0
    while True:
        part = await cursor.fetchmany(_PART)
        for row in part:
            characters += sum(len(cell or "") for cell in row)
            if len(rows) == MOST_ROWS or (rows and characters > _MOST_CHARACTERS):
                return Result(columns, rows, has_more=True)
            rows.append(tuple(_cut(cell) for cell in row))
        if len(part) < _PART:
            return Result(columns, rows, has_more=False)


def _cut(cell: str | None) -> str | None:
    if cell is None or len(cell) <= MOST_CHARACTERS_OF_CELL:
        return cell
    return f"{cell[:MOST_CHARACTERS_OF_CELL]}…"


def too_long() -> TileError:
    return TileError(f"The query takes longer than {MOST_SECONDS} seconds: choose fewer weeks, or read fewer rows.")


def no_answer(error: psycopg.Error) -> TileError:
    """The database could not be reached, or ended the connection."""
    return TileError(f"The database has no answer now: {_said(error)}.")


def _said(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_primary or str(error)).split())[:400].rstrip(".")


def _sentence(error: psycopg.Error, query: Query) -> str:
    said = _said(error)
    if isinstance(error, QueryCanceled):
        return str(too_long())
    if isinstance(error, InsufficientPrivilege):
        return (
            f"PostgreSQL refuses the query: {said}; reports read the tables that docs/tables.md lists, and no others."
        )
    if error.sqlstate is None or error.sqlstate.startswith(("08", "57P", "53")):
        return str(no_answer(error))
    place = int(error.diag.statement_position or 0) - _DECLARED
    line = f", in line {query.text.count(chr(10), 0, place - 1) + 1}" if 0 < place <= len(query.text) + 1 else ""
    hint = f" ({' '.join(error.diag.message_hint.split())[:200].rstrip('.')})" if error.diag.message_hint else ""
    return f"PostgreSQL refuses the query{line}: {said}{hint}."


def drawing(tile: Tile, result: Result) -> Drawing:
    """How the rows are drawn.

    Raises:
        TileError: the chart names a column that the query does not have, or one without numbers.
    """
    x = _place(tile.x, "labelColumn" if tile.chart_type == "pie" else "xAxis", result)
    ys = tuple(_place(name, "valueColumn" if tile.chart_type == "pie" else "yAxes", result) for name in tile.ys)
    group = _place(tile.group, "groupByColumn", result) if tile.group else None
    for y in ys:
        column = result.columns[y]
        if column.kind != "number" and any(row[y] is not None for row in result.rows):
            raise TileError(
                f"The chart draws the column {column.name}, which holds no numbers: use EXTRACT(epoch FROM …) for "
                "intervals, and a cast such as ::numeric for text."
            )
    return Drawing(_chart(tile, result, x), x, ys, group, _note(tile, result, x, ys, group))


def _note(tile: Tile, result: Result, x: int, ys: tuple[int, ...], group: int | None) -> str:
    """What the chart leaves out. The page's script draws the largest series."""
    if tile.chart_type == "pie":
        labels = len({row[x] for row in result.rows})
        is_whole, said = labels <= MOST_SERIES, f"{MOST_SERIES - 1} largest of {labels} labels, and the others together"
    else:
        series = len(ys) * (1 if group is None else len({row[group] for row in result.rows}))
        is_whole, said = series <= MOST_SERIES, f"{MOST_SERIES} largest of {series} series"
    return "" if is_whole else f"The chart shows the {said}: the table has all."


def _place(name: str, setting: str, result: Result) -> int:
    """The place of the column; PostgreSQL writes names in lower case where they are not quoted."""
    names = [column.name for column in result.columns]
    same = [place for place, one in enumerate(names) if one == name]
    same = same or [place for place, one in enumerate(names) if one.casefold() == name.casefold()]
    if len(same) == 1:
        return same[0]
    if same:
        raise TileError(f"The query has {len(same)} columns with the name {name}, which {setting} names: rename one.")
    listed = ", ".join(one for one, _ in Counter(names).items())
    raise TileError(f"The chart's {setting} names the column {name[:60]}, and the query has {listed[:400]}.")


def _chart(tile: Tile, result: Result, x: int) -> str:
    if tile.chart_type == "pie":
        return "pie"
    if tile.chart_type != "stacked_bar":
        return f"{tile.chart_type.replace('_', '-')}-{result.columns[x].kind}"
    is_tall = tile.is_horizontal and len({row[x] for row in result.rows}) <= _MOST_TALL_BARS
    return f"bars{'-horizontal' * tile.is_horizontal}{'-tall' * is_tall}{'-clustered' * tile.is_clustered}"
