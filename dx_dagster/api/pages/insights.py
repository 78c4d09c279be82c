"""The pages of insights: figures of weeks as charts and tables, and the same as CSV.

The address has all filters, so a link shows what it showed. Charts are drawn from the tables by the page's script.
"""

from dataclasses import replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Depends
from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from dx_dagster.api.data_cloud.envelope import RefusedError
from dx_dagster.api.data_cloud.routes import Served, recognized
from dx_dagster.api.installation import ServedInstallation
from dx_dagster.api.pages import data_quality, figure_tables, insight_filters, reports
from dx_dagster.api.pages.figure_tables import Listing
from dx_dagster.api.pages.insight_filters import Filters, View
from dx_dagster.api.pages.rendering import render
from dx_dagster.api.pages.sessions import reading_insights
from dx_dagster.insights import reading
from dx_dagster.insights.figures import DRAWINGS, TOPICS, Topic
from dx_dagster.insights.reading import Weeks
from dx_dagster.insights.reports.files import Catalogue, Report
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.report_access import ReportsUnavailableError
from dx_dagster.warehouse.schema.measures import BUSINESS_HOURS, FEW

_HOME = "/insights"
_QUALITY = Topic("data-quality", "Data quality", ())
_REPORTS = Topic("reports", "Reports", ())
_LOAD = "load"
_STATIC = Path(__file__).parent.parent / "static"
_FILES = {
    "insights.css": "insights.css",
    "insights.js": "insights.js",
    "vega.js": "vega/vega.min.js",
    "vega-lite.js": "vega/vega-lite.min.js",
    "vega-embed.js": "vega/vega-embed.min.js",
}
_KINDS = {".css": "text/css", ".js": "text/javascript"}
_CACHED = {"Cache-Control": "private, max-age=300"}
_CACHED_FOR_GOOD = {"Cache-Control": "max-age=31536000, immutable"}  # the address changes with the file
_PRESETS = {"3 months": 13, "6 months": 26, "1 year": 52, "2 years": 104}
routes = APIRouter(prefix=_HOME, include_in_schema=False)


async def reader(request: Request) -> None:
    """Requires a session, or an API key as a Bearer token: programs read CSV.

    Raises:
        SignInNeededError: there is neither.
        HTTPException: the key is unknown or revoked, or its address gave too many such keys.
    """
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        await reading_insights(request)
        return
    try:
        await recognized(request, SecretStr(given.strip()), for_insights=True)
    except RefusedError as error:
        raise HTTPException(error.status, error.message, error.headers) from None


_readable = [Depends(reader)]


@routes.get("/static/{name}")
async def static(name: str) -> Response:
    if name not in _FILES:
        return Response(status_code=404)
    return FileResponse(_STATIC / _FILES[name], media_type=_KINDS[Path(name).suffix], headers=_CACHED_FOR_GOOD)


@cache
def _static_address(name: str) -> str:
    digest = sha256((_STATIC / _FILES[name]).read_bytes()).hexdigest()
    return f"{_HOME}/static/{name}?v={digest[:16]}"


@routes.get("/charts/{drawing}.json", dependencies=_readable)
async def chart(drawing: str, dark: bool = False) -> Response:
    """The specification of a chart, without rows."""
    is_of_report = drawing.startswith(reports.DRAWING)
    if not is_of_report and drawing not in DRAWINGS:
        raise HTTPException(404)
    made = await to_thread.run_sync(partial(_specification, drawing, dark=dark))
    if made is None:
        raise HTTPException(404)
    return JSONResponse(made, headers=_CACHED)


def _specification(drawing: str, *, dark: bool) -> dict[str, Any] | None:
    """The specification, or None where there is none of this name."""
    from dx_dagster.insights import charts  # noqa: PLC0415 - slow to import: pages do without it
    from dx_dagster.insights.reports import charts as of_reports  # noqa: PLC0415

    if drawing in DRAWINGS:
        return charts.specification(drawing, dark=dark)
    name = drawing.removeprefix(reports.DRAWING)
    if name not in of_reports.CHARTS:
        return None
    with charts.ONE_AT_A_TIME:
        return of_reports.specification(name, dark=dark)


@routes.get("", dependencies=_readable)
async def overview(request: Request, served: Served) -> Response:
    return await _page(request, served, "")


@routes.get("/data-quality", dependencies=_readable)
async def quality(request: Request, served: Served) -> Response:
    listings = await data_quality.listings(served)
    if _wants_csv(request):
        return _csv_of(listings, request)
    warehouse = await served.warehouse()
    async with warehouse.transaction(read_only=True) as transaction:
        view = await insight_filters.view(transaction, Filters.of(request), served.settings.time_zone)
    return _rendered(request, replace(view, wrong="", status=200), _QUALITY, listings=listings)


async def _page(request: Request, served: ServedInstallation, name: str) -> Response:
    filters, zone = Filters.of(request), served.settings.time_zone
    topic = TOPICS[filters.business_hours].get(name)
    if topic is None:
        return await _report(request, served, name)
    warehouse = await served.warehouse()
    async with warehouse.transaction(read_only=True) as transaction:
        view = await insight_filters.view(transaction, filters, zone)
        if _wants_csv(request):
            return await _csv_of_weeks(transaction, view, topic, request, zone)
        shown = await _shown(transaction, view, topic, zone) if view.of else {}
    return _rendered(request, view, topic, **shown)


@cache
def _taken() -> frozenset[str]:
    """Addresses that no report can have."""
    return frozenset({*TOPICS[False], _QUALITY.name, _REPORTS.name, "static", "charts"})


async def _view(served: ServedInstallation, request: Request) -> View:
    warehouse = await served.warehouse()
    async with warehouse.transaction(read_only=True) as transaction:
        return await insight_filters.view(transaction, Filters.of(request), served.settings.time_zone)


@routes.get("/reports", dependencies=_readable)
async def list_of_reports(request: Request, served: Served) -> Response:
    return await _list_of_reports(request, served, await reports.catalogue(served, _taken()))


@routes.get("/{name}", dependencies=_readable)
async def topic_or_report(request: Request, served: Served, name: str) -> Response:
    return await _page(request, served, name)


async def _list_of_reports(
    request: Request, served: ServedInstallation, catalogue: Catalogue, problem: str = ""
) -> Response:
    view = replace(await _view(served, request), wrong="", status=422 if problem else 200)
    folder = served.settings.report_folder
    shown = {"catalogue": catalogue, "problem": problem, "folder": folder, "has_filters": False}
    return _rendered(request, view, _REPORTS, template="reports.html", **shown)


async def _report(request: Request, served: ServedInstallation, name: str) -> Response:
    catalogue = await reports.catalogue(served, _taken())
    report = catalogue.reports.get(name)
    if report is None:
        problem = next((one for one in catalogue.problems if one.name == name), None)
        if problem is None:
            raise HTTPException(404, "This page does not exist.")
        return await _list_of_reports(request, served, catalogue, f"{problem.file}: {problem.reason}.")
    view = await _view(served, request)
    if _wants_csv(request):
        return await _csv_of_tile(request, served, view, report)
    tiles, problem_here = [], ""
    if not view.wrong:
        try:
            tiles = [reports.shown(one) for one in await reports.outcomes(served, view, report, report.tiles)]
        except ReportsUnavailableError as error:
            problem_here = str(error)
    topic = Topic(quote(report.name, safe=""), report.title, ())
    charts = any(tile.chart for tile in tiles)
    return _rendered(
        request,
        view,
        topic,
        template="report.html",
        current=_REPORTS.name,
        catalogue=catalogue,
        report=report,
        shown_tiles=tiles,
        problem=problem_here,
        has_charts=charts,
        has_hours=False,
    )


async def _csv_of_tile(request: Request, served: ServedInstallation, view: View, report: Report) -> Response:
    if view.wrong:
        raise HTTPException(view.status, view.wrong)
    named = request.query_params.get("table")
    tile = next((one for one in report.tiles if named in {one.name, None, ""}), None)
    if tile is None:
        raise HTTPException(404, "This report has no such tile.")
    try:
        [outcome] = await reports.outcomes(served, view, report, [tile])
    except ReportsUnavailableError as error:
        raise HTTPException(503, str(error)) from None
    if outcome.result is None:
        raise HTTPException(422, outcome.error)
    return _csv(tile.name, reports.as_csv(outcome.result))


async def _shown(transaction: Transaction, view: View, topic: Topic, zone: str) -> dict[str, Any]:
    """What the page shows of the weeks."""
    measures = [measure for figure in topic.figures for measure in figure.measures]
    of, weeks, business_hours = view.of, view.weeks, view.filters.business_hours
    rows = await reading.weekly(transaction, of, weeks, measures) if of else []
    if of is None or not rows:
        return {}
    suffix = BUSINESS_HOURS if business_hours else ""
    has_keys = not topic.name
    totals = await reading.totals(transaction, of, weeks, zone, suffix=suffix, medians=has_keys)
    before = None
    if has_keys and len(rows) == weeks.number:
        earlier = await reading.totals(transaction, of, weeks.before, zone, suffix=suffix)
        before = earlier if earlier and earlier.weeks == weeks.number else None
    return {
        "tables": [figure_tables.table(figure, rows, view.choices.this_week) for figure in topic.figures],
        "tiles": figure_tables.tiles(totals, before, business_hours=business_hours) if totals and has_keys else [],
        "bots": figure_tables.bots(totals) if totals else "",
        "listings": await _listings_of(transaction, view, topic, zone),
    }


async def _listings_of(transaction: Transaction, view: View, topic: Topic, zone: str) -> list[Listing]:
    if topic.name != _LOAD or view.of is None:
        return []
    return [figure_tables.fifths(await reading.fifths(transaction, view.of, view.weeks, zone))]


def _wants_csv(request: Request) -> bool:
    return request.query_params.get("format") == "csv"


async def _csv_of_weeks(transaction: Transaction, view: View, topic: Topic, request: Request, zone: str) -> Response:
    if view.wrong:
        raise HTTPException(view.status, view.wrong)
    named = request.query_params.get("table") or topic.figures[0].name
    figure = next((one for one in topic.figures if one.name == named), None)
    if figure is None:
        return _csv_of(await _listings_of(transaction, view, topic, zone), request)
    rows = await reading.weekly(transaction, view.of, view.weeks, figure.measures) if view.of else []
    return _csv(figure.name, figure_tables.figure_csv(figure, rows))


def _csv_of(listings: list[Listing], request: Request) -> Response:
    named = request.query_params.get("table")
    listing = next((one for one in listings if named in {one.name, None, ""}), None)
    if listing is None:
        raise HTTPException(404, "This page has no such table.")
    return _csv(listing.name, figure_tables.written(listing.header, listing.rows))


def _rendered(request: Request, view: View, topic: Topic, template: str = "insights.html", **values: Any) -> Response:
    exact = replace(view.filters, first=f"{view.weeks.first}", last=f"{view.weeks.last}")
    shown: dict[str, Any] = {
        "tables": [],
        "tiles": [],
        "bots": "",
        "listings": [],
        "current": topic.name,
        "has_filters": topic is not _QUALITY,
        "has_hours": True,
        "has_charts": bool(values.get("tables")),
    } | values
    return render(
        request,
        template,
        status=view.status,
        view=view,
        filters=view.filters,
        topic=topic,
        topics=[*TOPICS[False].values(), _QUALITY, _REPORTS],
        address=lambda name: f"{_HOME}/{name}" if name else _HOME,
        exact=exact.query(),
        presets={
            label: replace(exact, first=f"{Weeks.until(view.choices.this_week, weeks).first}", last="").query()
            for label, weeks in _PRESETS.items()
        },
        few=FEW,
        static=_static_address,
        **shown,
    )


def _csv(name: str, text: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)
