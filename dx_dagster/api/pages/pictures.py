"""The pictures of figures that Dagster's UI shows beside the measures: the charts of insights as SVG images.

The address is signed, and no session is asked for: the UI is on another port or host, where ours do not count.
"""

import logging
import sys
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from subprocess import CalledProcessError
from typing import Any

import anyio
import orjson
from anyio import to_thread
from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dx_dagster.api.data_cloud.routes import Served
from dx_dagster.api.pages import figure_tables
from dx_dagster.insights import pictures, reading
from dx_dagster.insights.figures import Drawing, Figure
from dx_dagster.insights.reading import UnknownScopeError, Weeks
from dx_dagster.warehouse.schema.measures import FEW

_MOST_KEPT = 64  # some 30 KB each
_LONGEST_SECONDS = 30.0
_HEADERS = {
    # Any page may show it as an image. As a page of its own it runs no script and loads nothing.
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'",
    "Cache-Control": "private, max-age=60",
}
_log = logging.getLogger(__name__)
routes = APIRouter(prefix=pictures.PATH, include_in_schema=False)


class Drawer:
    """Draws charts, each in a process of its own and one at a time, and keeps the last ones."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._drawing = anyio.Lock()

    async def drawn(self, digest: str, specification: bytes) -> bytes:
        """The chart as SVG.

        Raises:
            HTTPException: it cannot be drawn.
        """
        if digest not in self._kept:
            async with self._drawing:
                if digest not in self._kept:  # another request may have waited for the same one
                    self._kept[digest] = await _draw(specification)
        self._kept.move_to_end(digest)
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return self._kept[digest]


async def _draw(specification: bytes) -> bytes:
    # Isolated (-I), and by its file: it needs nothing of ours, and none of our variables.
    command = [sys.executable, "-I", str(pictures.PROGRAM)]
    try:
        with anyio.fail_after(_LONGEST_SECONDS):
            return (await anyio.run_process(command, input=specification, env={})).stdout
    except (CalledProcessError, OSError, TimeoutError) as error:
        said = error.stderr.decode(errors="replace").strip() if isinstance(error, CalledProcessError) else error
        _log.error("A picture could not be drawn: %s", said or type(error).__name__)
        raise HTTPException(503, "The picture could not be drawn. The log of the API says why.") from None


@routes.get("/{workspace}/{name}.svg")
async def picture(request: Request, served: Served, workspace: str, name: str, signature: str = "") -> Response:
    """The chart of a figure of a workspace's last weeks."""
    if not pictures.is_signed(workspace, name, signature, pictures.keys(served.settings)):
        raise HTTPException(401, "This is not the address of a picture: its signature is missing or does not match.")
    figure = pictures.figure_of(name)
    if figure is None:
        raise HTTPException(404, "There is no such figure.")
    specification = await to_thread.run_sync(partial(_specification, *await _read(served, figure, workspace)))
    digest = sha256(specification).hexdigest()
    headers = _HEADERS | {"ETag": f'"{digest[:32]}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    drawer: Drawer = request.app.state.drawer
    return Response(await drawer.drawn(digest, specification), media_type="image/svg+xml", headers=headers)


async def _read(served: Served, figure: Figure, workspace: str) -> tuple[Figure, str, Drawing, list[dict[str, Any]]]:
    warehouse = await served.warehouse()
    async with warehouse.transaction(read_only=True) as transaction:
        this_week = await reading.this_week(transaction, served.settings.time_zone)
        try:
            of = await reading.find(transaction, workspace=workspace, repository="", team="")
        except UnknownScopeError as error:
            raise HTTPException(404, str(error)) from None
        rows = await reading.weekly(transaction, of, Weeks.until(this_week, pictures.WEEKS), figure.measures)
    if not rows:
        raise HTTPException(404, f"Workspace {workspace} has no figures yet.")
    return figure, of.name, *figure_tables.points(figure, rows, this_week)


def _specification(figure: Figure, workspace: str, drawn: Drawing, points: Sequence[dict[str, Any]]) -> bytes:
    from dx_dagster.insights import charts  # noqa: PLC0415 - slow to import: other routes do without it

    told = f"{workspace}, by week. Hollow: over fewer than {FEW} rows, or the week under way."
    return orjson.dumps(charts.picture(drawn, points, figure.title, told))
