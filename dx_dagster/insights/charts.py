"""Vega-Lite specifications of charts, made with Altair. The page adds the rows of its table as the data set `rows`.

A row has `week` (a date), `series`, `place` (of the series in the legend), `value`, `few` (over few rows, or of a week
under way) and `note` (how many rows). Series differ in dash and mark as well as in colour. The colours are those of
Okabe and Ito.

Altair takes a second to import: import this module only where a chart is drawn.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from threading import Lock
from typing import Any

import altair as alt

from dx_dagster.insights.figures import Drawing

# On a dark background, blue and vermilion are too dark.
_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_DARK = ("#56B4E9", "#E69F00", "#2BBF95", "#CC79A7")
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2])
_MARKS = ("circle", "square", "triangle-up", "diamond")
_FONT = "system-ui, sans-serif"
_TEXT = "#1c2330"
# Title of the axis, format of its numbers, and what it shows at least.
_AXES: dict[Drawing, tuple[str, str, float]] = {
    "minutes": ("minutes", ",~r", 1),
    "hours": ("hours", ",~r", 1),
    "days": ("days", ",~r", 1),
    "bars": ("each week", ",~r", 1),
    "lines": ("each week", ",~r", 1),
    "shares": ("share", ".0%", 0.1),
}
_SECONDS: dict[Drawing, int] = {"minutes": 60, "hours": 3600, "days": 86_400}
_SIX_DAYS = 6 * 86_400_000
_HEIGHT = 200
_PICTURE_WIDTH, _PICTURE_HEIGHT = 560, 260
_SIZE = alt.ExprRef("width < 300 ? 14 : 34")
_COLUMNS = alt.ExprRef("width < 300 ? 2 : 4")
# Altair keeps the object of a chained call on its class: another thread's chart would get its axis.
ONE_AT_A_TIME = Lock()


def specification(drawing: Drawing, *, dark: bool = False) -> dict[str, Any]:
    """The chart for rows of any figure that is drawn like this."""
    with ONE_AT_A_TIME:
        return _specification(drawing, dark=dark)


@cache
def _specification(drawing: Drawing, *, dark: bool = False, is_picture: bool = False) -> dict[str, Any]:
    base = _base(drawing)
    scaled = base.encode(y=_value(drawing, alt.Scale(zero=True, domain=alt.DomainUnionWith([0, _AXES[drawing][2]]))))
    drawn = _bars(scaled) if drawing == "bars" else _lines(scaled, base, is_picture=is_picture)
    size = {"width": "container", "height": _HEIGHT, "autosize": {"type": "fit", "contains": "padding"}}
    made: dict[str, Any] = drawn.properties(**size).configure(**configuration(dark=dark)).to_dict()
    return made


def picture(drawing: Drawing, rows: Sequence[Mapping[str, Any]], title: str, subtitle: str) -> dict[str, Any]:
    """The chart with its rows, of fixed size and on white: what shows it may be light or dark."""
    text = {"color": _TEXT, "subtitleColor": _TEXT, "font": _FONT, "subtitleFont": _FONT}
    with ONE_AT_A_TIME:
        made = _specification(drawing, is_picture=True)
    return {
        **made,
        "datasets": {"rows": [*rows]},
        "title": {"text": title, "subtitle": subtitle, "anchor": "start", "frame": "group", "offset": 12, **text},
        "background": "#ffffff",
        "padding": 14,
        "width": _PICTURE_WIDTH,
        "height": _PICTURE_HEIGHT,
    }


def _base(drawing: Drawing) -> alt.Chart:
    title, _, _ = _AXES[drawing]
    unit = _SECONDS.get(drawing, 1)
    rows = alt.NamedData("rows", format={"parse": {"week": "utc:'%Y-%m-%d'"}})
    return (
        alt.Chart(rows)
        .transform_calculate(shown=alt.expr.if_(alt.expr.isValid(alt.datum.value), alt.datum.value / unit, None))
        .encode(
            x=alt.X(
                "week:T",
                title=None,
                scale=alt.Scale(type="utc"),
                axis=alt.Axis(format="%b %y", tickCount="month", labelOverlap=True),
            ),
            y=_value(drawing),
            tooltip=[
                alt.Tooltip("week:T", title="Week of", timeUnit="utcyearmonthdate", format="%Y-%m-%d"),
                alt.Tooltip("series:N", title="Figure"),
                alt.Tooltip("shown:Q", title=title.capitalize(), format=".1%" if drawing == "shares" else ",.4~r"),
                alt.Tooltip("note:N", title="Rows"),
            ],
        )
    )


def _value(drawing: Drawing, scale: alt.Scale | None = None) -> alt.Y:
    title, number_format, _ = _AXES[drawing]
    step = {"tickMinStep": 1} if drawing in {"bars", "lines"} else {}
    shown = alt.Y("shown:Q", title=title, axis={"format": number_format, "tickCount": 5, **step})
    return shown if scale is None else shown.scale(scale)


def _order() -> alt.EncodingSortField:
    return alt.EncodingSortField(field="place", op="min")


def _lines(scaled: alt.Chart, base: alt.Chart, *, is_picture: bool) -> alt.Chart | alt.LayerChart | alt.FacetChart:
    legend = alt.Legend(
        title=None, orient="top", symbolSize=90, symbolStrokeWidth=2, columns=_COLUMNS, columnPadding=20, labelLimit=200
    )
    # The page's Vega-Lite 6.5 makes one legend of these, vl-convert's 6.4 two: one for colors, one for the others.
    color = alt.Color("series:N", sort=_order(), legend=None if is_picture else legend)
    dash = alt.StrokeDash("series:N", sort=_order(), scale=alt.Scale(range=[*_DASHES]), legend=legend)
    shape = alt.Shape("series:N", sort=_order(), scale=alt.Scale(range=[*_MARKS]), legend=legend)
    # Vega-Lite warns where two layers give the same scale.
    lines = scaled.mark_line(strokeWidth=2).encode(color=color, strokeDash=dash)
    # A hollow mark says little.
    points = base.mark_point(size=_SIZE, strokeWidth=1.5, opacity=1).encode(
        color=color, shape=shape, fill=alt.Fill("series:N", sort=_order(), legend=legend), fillOpacity=_hollow(0, 1)
    )
    return alt.layer(lines, points)


def _bars(base: alt.Chart) -> alt.Chart:
    """Bars as wide as a week without its last day."""
    made: alt.Chart = (
        base.transform_calculate(until=alt.expr.time(alt.datum.week) + _SIX_DAYS)
        .mark_bar()
        .encode(
            x2="until:T",
            y2={"value": "height"},
            color=alt.Color("series:N", legend=None),
            fillOpacity=_hollow(0.2, 0.9),
            stroke=alt.Stroke("series:N", legend=None),
        )
    )
    return made


def _hollow(of_few: float, otherwise: float) -> Any:
    return alt.when(alt.datum.few).then(alt.value(of_few)).otherwise(alt.value(otherwise))


def configuration(*, dark: bool) -> dict[str, Any]:
    """Colours and fonts of every chart."""
    text, lines = ("#e7eaf0", "#3a4252") if dark else (_TEXT, "#d5dae3")
    axis = {"labelColor": text, "titleColor": text, "gridColor": lines, "domainColor": lines, "tickColor": lines}
    fonts = {"labelFont": _FONT, "titleFont": _FONT, "labelFontSize": 12, "titleFontSize": 12}
    return {
        "background": "transparent",
        "font": _FONT,
        "aria": False,  # the page describes the chart, and its table has the figures
        "mark": {"aria": False},
        "view": {"stroke": None},
        "axis": {**axis, **fonts, "titleFontWeight": "normal", "aria": False},
        "axisX": {"grid": False},
        "legend": {"labelColor": text, "labelFont": _FONT, "labelFontSize": 12, "aria": False},
        "range": {"category": [*(_DARK if dark else _LIGHT)]},
    }
