"""The pages of insights: figures of weeks as charts and tables, and the same as CSV.

The address has all filters, so a link shows what it showed. Charts are drawn from the tables by the page's script.
"""

from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from anyio import to_thread
from fastapi import APIRouter, Depends
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from dx_dagster.api.data_cloud.routes import Served
from dx_dagster.api.installation import ServedInstallation
from dx_dagster.api.pages import figure_tables
from dx_dagster.api.pages.figure_tables import Listing
from dx_dagster.api.pages.rendering import render
from dx_dagster.api.pages.sessions import signed_in
from dx_dagster.insights import quality, reading
from dx_dagster.insights.figures import DRAWINGS, TOPICS, Drawing, Topic
from dx_dagster.insights.reading import Choices, MeasuredScope, UnknownScopeError, Weeks
from dx_dagster.warehouse import request_counts
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.schema.measures import BUSINESS_HOURS, FEW

_HOME = "/insights"
_QUALITY = Topic("data-quality", "Data quality", ())
_STATIC = Path(__file__).parent.parent / "static"
_FILES = {
    "insights.css": "insights.css",
    "insights.js": "insights.js",
    "vega.js": "vega/vega.min.js",
    "vega-lite.js": "vega/vega-lite.min.js",
    "vega-embed.js": "vega/vega-embed.min.js",
}
_KINDS = {".css": "text/css", ".js": "text/javascript"}
_CACHED = {"Cache-Control": "max-age=300"}
_DEFAULT_WEEKS, _MOST_WEEKS = 26, 520
_PRESETS = {"3 months": 13, "6 months": 26, "1 year": 52, "2 years": 104}
_LONGEST = 500
routes = APIRouter(prefix=_HOME, include_in_schema=False)
_signed_in = [Depends(signed_in)]


class FilterError(ValueError):
    """A filter that cannot be applied; the message is for a person."""


@dataclass(frozen=True)
class Filters:
    """What an address asks for. Weeks are given by any day of theirs; empty is the default."""

    workspace: str = ""
    repository: str = ""
    team: str = ""
    first: str = ""
    last: str = ""
    business_hours: bool = False

    @classmethod
    def of(cls, request: Request) -> "Filters":
        given = {name: value.strip()[:_LONGEST] for name, value in request.query_params.items()}
        names = {"workspace": "workspace", "repository": "repository", "team": "team", "from": "first", "to": "last"}
        return cls(
            **{name: given.get(parameter, "").replace("\0", "") for parameter, name in names.items()},
            business_hours=given.get("hours") == "business",
        )

    def query(self, **more: str) -> str:
        """The query of an address that asks for the same, and more."""
        hours = "business" if self.business_hours else ""
        all_of = {"workspace": self.workspace, "repository": self.repository, "team": self.team}
        all_of |= {"from": self.first, "to": self.last, "hours": hours} | more
        return urlencode({name: value for name, value in all_of.items() if value})

    def check(self) -> None:
        """Checks what figures are asked for.

        Raises:
            FilterError: they are those of a team in a repository, which are not built.
        """
        if self.team and self.repository:
            raise FilterError("Figures are of a repository or of a team, not of a team in a repository. Choose one.")

    def weeks(self, this_week: date) -> Weeks:
        """The weeks, at most up to the current one.

        Raises:
            FilterError: a date is none, or the end is before the beginning.
        """
        last = min(reading.monday(_day(self.last)) if self.last else this_week, this_week)
        if not self.first:
            return Weeks.until(last, _DEFAULT_WEEKS)
        first = reading.monday(_day(self.first))
        if first > last:
            raise FilterError(f"No week lies between {self.first} and {self.last or 'today'}.")
        weeks = Weeks(first, last)
        return weeks if weeks.number <= _MOST_WEEKS else Weeks.until(last, _MOST_WEEKS)


def _day(given: str) -> date:
    try:
        day = date.fromisoformat(given)
    except ValueError:
        raise FilterError(f"{given} is not a valid date: write it as 2026-01-31.") from None
    if not date(1990, 1, 1) <= day <= date(2200, 1, 1):
        raise FilterError(f"{given} is out of range.")
    return day


@dataclass(frozen=True)
class View:
    """What a page shows figures of."""

    filters: Filters
    choices: Choices
    of: MeasuredScope | None
    weeks: Weeks
    wrong: str = ""
    status: int = 200


async def _view(transaction: Transaction, filters: Filters, zone: str) -> View:
    choices = await reading.choices(transaction, filters.workspace, zone)
    filters = replace(filters, workspace=filters.workspace or next(iter(choices.workspaces), ""))
    view = View(filters, choices, None, Weeks.until(choices.this_week, _DEFAULT_WEEKS))
    try:
        view = replace(view, weeks=filters.weeks(choices.this_week))
        filters.check()
        if not choices.workspaces and not filters.workspace:
            return view
        of = await reading.find(
            transaction, workspace=filters.workspace, repository=filters.repository, team=filters.team
        )
    except FilterError as error:
        return replace(view, wrong=str(error), status=400)
    except UnknownScopeError as error:
        return replace(view, wrong=str(error), status=404)
    return replace(view, of=of)


@routes.get("/static/{name}")
async def static(name: str) -> Response:
    if name not in _FILES:
        return Response(status_code=404)
    return FileResponse(_STATIC / _FILES[name], media_type=_KINDS[Path(name).suffix], headers=_CACHED)


@routes.get("/charts/{drawing}.json", dependencies=_signed_in)
async def chart(drawing: str, dark: bool = False) -> Response:
    """The specification of a chart, without rows."""
    found = next((one for one in DRAWINGS if one == drawing), None)
    if found is None:
        raise HTTPException(404)
    made = await to_thread.run_sync(partial(_specification, found, dark=dark))
    return JSONResponse(made, headers=_CACHED)


def _specification(drawing: Drawing, *, dark: bool) -> dict[str, Any]:
    from dx_dagster.insights import charts  # noqa: PLC0415 - slow to import: pages do without it

    return charts.specification(drawing, dark=dark)


@routes.get("", dependencies=_signed_in)
async def overview(request: Request, served: Served) -> Response:
    return await _page(request, served, "")


@routes.get("/data-quality", dependencies=_signed_in)
async def data_quality(request: Request, served: Served) -> Response:
    listings = await _listings(served)
    if request.query_params.get("format") == "csv":
        named = request.query_params.get("table") or listings[0].name
        listing = next((one for one in listings if one.name == named), None)
        if listing is None:
            raise HTTPException(404, "This page has no such table.")
        return _csv(listing.name, figure_tables.written(listing.header, listing.rows))
    warehouse = await served.warehouse()
    async with warehouse.transaction(read_only=True) as transaction:
        view = await _view(transaction, Filters.of(request), served.settings.time_zone)
    return _rendered(request, view, _QUALITY, listings=listings)


@routes.get("/{name}", dependencies=_signed_in)
async def topic(request: Request, served: Served, name: str) -> Response:
    return await _page(request, served, name)


async def _page(request: Request, served: ServedInstallation, name: str) -> Response:
    filters = Filters.of(request)
    shown = TOPICS[filters.business_hours].get(name)
    if shown is None:
        raise HTTPException(404, "This page does not exist.")
    wants_csv = request.query_params.get("format") == "csv"
    figures = shown.figures
    if wants_csv:
        named = request.query_params.get("table") or figures[0].name
        figures = tuple(one for one in figures if one.name == named)
        if not figures:
            raise HTTPException(404, "This page has no such table.")
    zone, totals, before = served.settings.time_zone, None, None
    suffix = BUSINESS_HOURS if filters.business_hours else ""
    measures = [measure for figure in figures for measure in figure.measures]
    warehouse = await served.warehouse()
    async with warehouse.transaction(read_only=True) as transaction:
        view = await _view(transaction, filters, zone)
        rows = await reading.weekly(transaction, view.of, view.weeks, measures) if view.of else []
        if view.of and not wants_csv:
            keys = not name
            totals = await reading.totals(transaction, view.of, view.weeks, zone, suffix=suffix, medians=keys)
            if keys and totals and len(rows) == view.weeks.number:
                before = await reading.totals(transaction, view.of, view.weeks.before, zone, suffix=suffix)
    if wants_csv:
        if view.wrong:
            raise HTTPException(view.status, view.wrong)
        return _csv(figures[0].name, figure_tables.figure_csv(figures[0], rows))
    tables = [figure_tables.table(figure, rows, view.choices.this_week) for figure in figures] if rows else []
    return _rendered(
        request,
        view,
        shown,
        tables=tables,
        tiles=figure_tables.tiles(totals, before, business_hours=filters.business_hours) if totals and not name else [],
        bots=figure_tables.bots(totals) if totals else "",
    )


def _rendered(request: Request, view: View, topic: Topic, **values: Any) -> Response:
    exact = replace(view.filters, first=f"{view.weeks.first}", last=f"{view.weeks.last}")
    shown: dict[str, Any] = {"tables": [], "tiles": [], "bots": "", "listings": []} | values
    return render(
        request,
        "insights.html",
        status=view.status,
        view=view,
        filters=view.filters,
        topic=topic,
        topics=[*TOPICS[False].values(), _QUALITY],
        address=lambda name: f"{_HOME}/{name}" if name else _HOME,
        exact=exact.query(),
        presets={
            label: replace(exact, first=f"{Weeks.until(view.choices.this_week, weeks).first}", last="").query()
            for label, weeks in _PRESETS.items()
        },
        few=FEW,
        **shown,
    )


def _csv(name: str, text: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)


async def _listings(served: ServedInstallation) -> list[Listing]:
    warehouse = await served.warehouse()
    every = await connections.all_connections(warehouse)
    counts = await request_counts.read(warehouse)
    async with warehouse.transaction(read_only=True) as transaction:
        last = await quality.last_rows(transaction, FEW)
        skipped = await quality.skipped_repositories(transaction)
        failed = await quality.failed_checks(transaction)
        days = await quality.requests_by_day(transaction, served.settings.time_zone)
    return [
        Listing(
            "freshness",
            "Freshness",
            "When each connection was last read with success.",
            ("workspace", "connection", "state", "last sync", "last error"),
            [
                (
                    one.workspace,
                    one.type,
                    "disabled" if one.disabled_at else one.standing,
                    one.last_synced_at,
                    one.last_error or "",
                )
                for one in every
            ],
            "No workspace is connected.",
        ),
        Listing(
            "weeks",
            "Weeks with figures",
            f"The newest week of each workspace, and how many weeks have fewer than {FEW} merged pull requests.",
            ("workspace", "repositories", "newest week", "weeks", "weeks with few"),
            [(one.workspace, one.repositories, one.last_week, one.weeks, one.few_weeks) for one in last],
            "Nothing is imported yet.",
        ),
        Listing(
            "skipped",
            "Skipped repositories",
            "Repositories of which the last sync read nothing new. Their figures end where access ended.",
            ("workspace", "repository", "reason"),
            [(one.workspace, one.repository, one.reason) for one in skipped],
            "Every repository is read.",
        ),
        Listing(
            "checks",
            "Checks that warn",
            "Checks of assets that do not pass, as Dagster shows them.",
            ("workspace", "asset", "check", "result", "reported"),
            [(one.workspace, one.asset, one.name, one.said, one.reported_at) for one in failed],
            "Every check passes, or none has run yet.",
        ),
        Listing(
            "requests",
            "Requests by day",
            "Requests that syncs sent in the last 14 days.",
            ("day", "workspace", "requests"),
            [(one.day, one.workspace, one.requests) for one in days],
            "No sync has sent a request in the last 14 days.",
        ),
        Listing(
            "answers",
            "Answers by credential",
            "All requests ever sent with each credential, by the status of their answers.",
            ("workspace", "connection", "credential", "status", "requests"),
            [(one.workspace, one.connection, one.label, one.status, one.requests) for one in counts],
            "No request was sent yet.",
        ),
    ]
