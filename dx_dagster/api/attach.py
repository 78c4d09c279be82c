"""Adds the Data Cloud API, the connections pages and the metrics to an application: state, routes, error handlers."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from dx_dagster.api import metrics
from dx_dagster.api.bodies import BodyLimit
from dx_dagster.api.data_cloud import reference
from dx_dagster.api.data_cloud import routes as data_cloud
from dx_dagster.api.data_cloud.envelope import RefusedError
from dx_dagster.api.guard import Guard, Hosts
from dx_dagster.api.headers import SafeHeaders
from dx_dagster.api.installation import ServedInstallation
from dx_dagster.api.keys import InsightsOnlyError, Keys
from dx_dagster.api.pages import connection, connections, insights, pictures
from dx_dagster.api.pages.sessions import ForgedError, SignInNeededError
from dx_dagster.insights.pictures import PATH as PICTURES
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections.vault import VaultError
from dx_dagster.warehouse.database import WarehouseError
from dx_dagster.webhooks.address import PATH

_log = logging.getLogger(__name__)
_OPEN = frozenset({PATH, metrics.PATH, "/healthz", "/readyz", "/openapi.json"})


def attach(app: FastAPI, settings: Settings, url: str, latency: metrics.ReceiverLatency) -> None:
    """Adds state, routes, error handlers and middleware to the application."""
    app.state.installation = ServedInstallation(settings, url)
    app.state.keys = Keys(app.state.installation)
    app.state.drawer = pictures.Drawer()
    app.include_router(_closing(app.state.installation))
    app.include_router(data_cloud.routes)
    app.include_router(connections.entrance)
    app.include_router(connections.routes)
    app.include_router(connection.routes)
    app.include_router(pictures.routes)
    app.include_router(insights.routes)
    app.include_router(reference.routes)
    names = settings.served_hosts | ({settings.public_host} if settings.public_host else set())
    app.include_router(metrics.router(latency, Hosts(names)))
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(SignInNeededError, connections.to_sign_in)
    app.add_exception_handler(InsightsOnlyError, connections.to_sign_in)
    app.add_exception_handler(ForgedError, connections.to_sign_in)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _other)
    for kind in (WarehouseError, PoolTimeout, psycopg.OperationalError, VaultError):
        app.add_exception_handler(kind, _unavailable)
    app.add_exception_handler(Exception, _broken)
    app.add_middleware(BodyLimit, is_exempt=lambda path: path == PATH)
    app.add_middleware(Guard, hosts=Hosts(names), is_open=_is_open)
    app.add_middleware(SafeHeaders)


def _is_open(path: str) -> bool:
    """Whether the guard lets all requests to this path pass: no cookie counts there, and no page is shown.

    Deliveries and addresses of pictures are signed, the API and the metrics take a key from a header that no foreign
    page can set, and health checks use the address of the machine. Metrics without a key have the guard's check
    themselves.
    """
    return path in _OPEN or path.startswith(("/api/", f"{PICTURES}/"))


def _closing(installation: ServedInstallation) -> APIRouter:
    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        await installation.close()

    return APIRouter(lifespan=lifespan)


def _is_api(request: Request) -> bool:
    return request.url.path.startswith("/api/")


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, RefusedError):
        raise error
    if _is_api(request):
        return error.response()
    missing = error.code == "connection_not_found"
    return PlainTextResponse("This connection does not exist." if missing else error.message, 404 if missing else 400)


async def _invalid(request: Request, error: Exception) -> Response:
    """Answers an invalid number in the path, without quoting it."""
    fields = {str(part) for one in getattr(error, "errors", list)() for part in one["loc"]}
    if not _is_api(request):
        return PlainTextResponse("This page does not exist.", 404)
    if "connection_id" in fields:
        return RefusedError("connection_not_found", "No connection exists for the given connection_id.").response()
    return RefusedError("credential_not_found", "No credential exists for the given id on that connection.").response()


async def _other(request: Request, error: Exception) -> Response:
    """Answers an unknown route or method."""
    status = getattr(error, "status_code", 404)
    headers = getattr(error, "headers", None)
    if not _is_api(request):
        return PlainTextResponse(f"{getattr(error, 'detail', 'Not Found')}", status, headers)
    codes = {404: "method_not_found", 405: "method_not_allowed"}
    message = "The Data Cloud API has no such method."
    return RefusedError(codes.get(status, "invalid_json"), message, status=status, headers=headers).response()


async def _unavailable(request: Request, error: Exception) -> Response:
    _log.error("%s %s: %s", request.method, request.url.path, error)
    if isinstance(error, VaultError):
        refused = RefusedError("unavailable", str(error), status=503)
    else:
        refused = RefusedError("unavailable", "The database does not answer.", status=503)
    return refused.response() if _is_api(request) else PlainTextResponse(refused.message, 503)


async def _broken(request: Request, _: Exception) -> Response:
    """Answers an unexpected error; the log has its traceback."""
    message = "Internal error. The log of the API has the details."
    refused = RefusedError("unavailable", message, status=500)
    return refused.response() if _is_api(request) else PlainTextResponse(message, 500)
