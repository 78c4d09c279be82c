"""Builds frames from rows.

polars takes a tenth of a second to load. So it is loaded with the first rows, and schemas name its types.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["text", "texts", "flag", "small integer", "integer", "time"]
Schema = Mapping[str, Kind]

TEXT: Kind = "text"
TEXTS: Kind = "texts"
FLAG: Kind = "flag"
SMALL_INTEGER: Kind = "small integer"
INTEGER: Kind = "integer"
TIME: Kind = "time"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def types(schema: Schema) -> "dict[str, pl.DataType]":
    """The polars types of the schema's columns."""
    import polars as pl  # noqa: PLC0415 - see above

    by_kind: dict[Kind, pl.DataType] = {
        TEXT: pl.String(),
        TEXTS: pl.List(pl.String()),
        FLAG: pl.Boolean(),
        SMALL_INTEGER: pl.Int32(),
        INTEGER: pl.Int64(),
        TIME: pl.Datetime("us", "UTC"),
    }
    return {name: by_kind[kind] for name, kind in schema.items()}


def frame(schema: Schema, rows: Iterable[Sequence[Any]]) -> "pl.DataFrame":
    """Builds a frame; each row holds its values in the order of the schema's columns."""
    import polars as pl  # noqa: PLC0415 - see above

    times = [position for position, kind in enumerate(schema.values()) if kind == TIME]
    return pl.DataFrame([_counted(row, times) for row in rows], schema=types(schema), orient="row", strict=True)


def _counted(row: Sequence[Any], times: Sequence[int]) -> Sequence[Any]:
    """The row with times as integers; polars takes four times as long to convert them."""
    values = list(row)
    for position in times:
        if (moment := values[position]) is not None:
            values[position] = (moment - _EPOCH) // _MICROSECOND
    return values
