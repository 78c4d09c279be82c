"""Vega-Lite specifications of the charts of reports, made with Altair. The page adds rows as the data set `rows`.

A row has `x` (milliseconds, a number or a text), `series`, `place` (of the series in the legend) and `value`. The texts
`$x` and `$y` stand for the titles of the axes, which the page fills in. Import it only where a chart is drawn, as
`dx_dagster.insights.charts`.
"""

from functools import cache
from typing import Any

import altair as alt

from dx_dagster.insights.charts import configuration

# Okabe's and Ito's, without the yellow that nobody sees on white. On dark, their light ones come first.
_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
_DARK = ("#56B4E9", "#E69F00", "#2BBF95", "#CC79A7", "#F0E442", "#D55E00", "#FFFFFF", "#9AA3B2")
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [10, 4], [4, 4], [1, 3], [12, 3, 3, 3])
_MARKS = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
_HEIGHT, _BAR = 240, 20
_COLUMNS = alt.ExprRef("width < 300 ? 2 : 4")
_ORDER = alt.EncodingSortField(field="place", op="min")
_KINDS = ("time", "number", "text")

CHARTS = (
    "pie",
    *(f"bars{direction}{mode}" for direction in ("", "-horizontal", "-horizontal-tall") for mode in ("", "-clustered")),
    *(f"{shape}-{kind}" for shape in ("line", "stacked-area", "scatter") for kind in _KINDS),
)


@cache
def specification(chart: str, *, dark: bool = False) -> dict[str, Any]:
    """The chart of this name, for any rows."""
    rows = alt.Chart(alt.NamedData("rows"))
    shape, _, kind = chart.rpartition("-")
    if chart == "pie":
        drawn: Any = _pie(rows, dark=dark)
    elif chart.startswith("bars"):
        drawn = _bars(rows, is_horizontal="horizontal" in chart, is_clustered="clustered" in chart)
    else:
        drawn = {"line": _lines, "stacked-area": _areas, "scatter": _points}[shape](rows, kind)
    size: dict[str, Any] = {"width": "container", "height": _HEIGHT, "autosize": {"type": "fit", "contains": "padding"}}
    if "tall" in chart:  # each bar has the room of its name
        size |= {"height": alt.Step(_BAR), "autosize": {"type": "fit-x", "contains": "padding"}}
    settings = configuration(dark=dark)
    settings["range"] = {"category": [*(_DARK if dark else _LIGHT)]}
    made: dict[str, Any] = drawn.properties(**size).configure(**settings).to_dict()
    return made


def _legend() -> alt.Legend:
    return alt.Legend(
        title=None, orient="top", symbolSize=90, symbolStrokeWidth=0, columns=_COLUMNS, labelLimit=160, symbolLimit=40
    )


def _colour() -> alt.Color:
    return alt.Color("series:N", sort=_ORDER, legend=_legend())


def _across(kind: str) -> alt.X:
    if kind == "time":
        axis = alt.Axis(format="%Y-%m-%d", labelOverlap=True, labelAngle=0, tickCount=6)
        return alt.X("x:T", title="$x", scale=alt.Scale(type="utc"), axis=axis)
    if kind == "number":
        return alt.X("x:Q", title="$x", scale=alt.Scale(zero=False))
    return alt.X("x:N", title="$x", sort=None, axis=_names())


def _names() -> alt.Axis:
    return alt.Axis(labelAngle=-35, labelLimit=110, labelOverlap=True)


def _up(**more: Any) -> alt.Y:
    return alt.Y("value:Q", title="$y", axis={"format": ",~r", "tickCount": 5}, **more)


def _told(kind: str) -> list[alt.Tooltip]:
    x = (
        alt.Tooltip("x:T", title="At", timeUnit="utcyearmonthdatehoursminutes", format="%Y-%m-%d %H:%M")
        if kind == "time"
        else alt.Tooltip("x:Q" if kind == "number" else "x:N", title="At")
    )
    return [x, alt.Tooltip("series:N", title="Series"), alt.Tooltip("value:Q", title="Value", format=",.6~r")]


def _lines(rows: alt.Chart, kind: str) -> Any:
    base = rows.encode(x=_across(kind), tooltip=_told(kind))
    dash = alt.StrokeDash("series:N", sort=_ORDER, scale=alt.Scale(range=[*_DASHES]), legend=_legend())
    shape = alt.Shape("series:N", sort=_ORDER, scale=alt.Scale(range=[*_MARKS]), legend=_legend())
    zero = alt.Scale(zero=True)
    # Vega-Lite warns where two layers give the same scale.
    lines = base.mark_line(strokeWidth=2).encode(y=_up(scale=zero), color=_colour(), strokeDash=dash)
    return alt.layer(
        lines, base.mark_point(size=30, filled=True, opacity=1).encode(y=_up(), color=_colour(), shape=shape)
    )


def _areas(rows: alt.Chart, kind: str) -> Any:
    y = _up(stack="zero", impute=alt.ImputeParams(value=0))
    return rows.mark_area(line=True, fillOpacity=0.7).encode(
        x=_across(kind), y=y, color=_colour(), order=alt.Order("place:Q"), tooltip=_told(kind)
    )


def _points(rows: alt.Chart, kind: str) -> Any:
    shape = alt.Shape("series:N", sort=_ORDER, scale=alt.Scale(range=[*_MARKS]), legend=_legend())
    return rows.mark_point(size=40, filled=True, opacity=0.75).encode(
        x=_across(kind), y=_up(scale=alt.Scale(zero=False)), color=_colour(), shape=shape, tooltip=_told(kind)
    )


def _bars(rows: alt.Chart, *, is_horizontal: bool, is_clustered: bool) -> Any:
    bands: Any = alt.X("x:N", title="$x", sort=None, axis=_names())
    stack: Any = None if is_clustered else "zero"
    values: Any = _up(stack=stack)
    if is_horizontal:
        bands = alt.Y("x:N", title="$x", sort=None, axis=alt.Axis(labelLimit=110, labelOverlap=True))
        values = alt.X("value:Q", title="$y", axis={"format": ",~r", "tickCount": 4}, stack=stack)
    drawn = rows.mark_bar().encode(color=_colour(), order=alt.Order("place:Q"), tooltip=_told("text"))
    drawn = drawn.encode(x=values, y=bands) if is_horizontal else drawn.encode(x=bands, y=values)
    if not is_clustered:
        return drawn
    if is_horizontal:
        return drawn.encode(yOffset=alt.YOffset("series:N", sort=_ORDER))
    return drawn.encode(xOffset=alt.XOffset("series:N", sort=_ORDER))


def _pie(rows: alt.Chart, *, dark: bool) -> Any:
    return rows.mark_arc(stroke="#14181f" if dark else "#ffffff", strokeWidth=1.5).encode(
        theta=alt.Theta("value:Q", stack=True),
        color=_colour(),
        order=alt.Order("place:Q"),
        tooltip=[alt.Tooltip("series:N", title="Label"), alt.Tooltip("value:Q", title="Value", format=",.6~r")],
    )
