"""Creates the ASGI application, with the routes for health checks."""

import anyio
import anyio.to_thread
import psycopg
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from dx_dagster.api import attach, metrics, webhooks
from dx_dagster.settings import Settings
from dx_dagster.warehouse import readiness
from dx_dagster.warehouse.connecting import APPLICATION, connect
from dx_dagster.warehouse.embedded import database_url

_READY_WITHIN_SECONDS = 2


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application for an installation, by default the one that the environment describes."""
    settings = settings or Settings.read()
    url = database_url(settings)
    app = FastAPI(
        title="dx-dagster",
        docs_url=None,
        redoc_url=None,
        # FastAPI's own spans hold queries, such as the token of a sign-in link, and its logs hold input.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    latency = metrics.ReceiverLatency()
    app.include_router(webhooks.router(settings, url, latency.observe))
    attach.attach(app, settings, url, latency)

    @app.get("/healthz", include_in_schema=False)
    async def alive() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/readyz", include_in_schema=False)
    async def ready() -> JSONResponse:
        missing = await _what_is_not_ready(url)
        if missing is None:
            return JSONResponse({"ok": True})
        return JSONResponse({"ok": False, "not_ready": missing}, status_code=503)

    return app


async def _what_is_not_ready(url: str) -> str | None:
    """`database`, `migrations` or None, within two seconds."""
    with anyio.move_on_after(_READY_WITHIN_SECONDS):
        try:
            current = await anyio.to_thread.run_sync(_is_current_and_takes_writes, url, abandon_on_cancel=True)
        except psycopg.Error:
            return "database"
        return None if current else "migrations"
    return "database"


def _is_current_and_takes_writes(url: str) -> bool:
    limit = _READY_WITHIN_SECONDS
    with connect(url, connect_timeout=limit, statement_timeout=limit, application_name=APPLICATION) as connection:
        if not readiness.is_current(connection):
            return False
        readiness.try_write(connection)
        return True
