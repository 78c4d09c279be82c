"""Builds frames from rows."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

Schema = Mapping[str, pl.DataType | type[pl.DataType]]
TIME = pl.Datetime("us", "UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def frame(schema: Schema, rows: Iterable[Sequence[Any]]) -> pl.DataFrame:
    """Builds a frame; each row holds its values in the order of the schema's columns."""
    times = [position for position, kind in enumerate(schema.values()) if kind == TIME]
    return pl.DataFrame([_counted(row, times) for row in rows], schema=dict(schema), orient="row", strict=True)


def _counted(row: Sequence[Any], times: Sequence[int]) -> Sequence[Any]:
    """The row with times as integers; polars takes four times as long to convert them."""
    values = list(row)
    for position in times:
        if (moment := values[position]) is not None:
            values[position] = (moment - _EPOCH) // _MICROSECOND
    return values
