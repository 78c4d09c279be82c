"""The route `/metrics`: what a Prometheus server reads, by an API key or from this machine.

Its figures come from the database, so every process of an installation tells the same ones. What one process alone
knows (the latency of its receiver, its CPU time and memory) is beside them.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from pydantic import SecretStr
from starlette.requests import Request

from dx_dagster.api.guard import Hosts, refusal
from dx_dagster.api.installation import ServedInstallation, installation
from dx_dagster.api.keys import Keys, RefusedKeyError, WrongKeyError
from dx_dagster.clock import HOST
from dx_dagster.connections.health import WITH_BUDGETS, health
from dx_dagster.settings import Settings, is_loopback
from dx_dagster.warehouse import counts, request_counts, sync_steps
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.connections.connections import StoredConnection
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.webhooks import belief, inbox

PATH = "/metrics"
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds; Bitbucket's timeout is 10


class ReceiverLatency:
    """How long this process took to answer deliveries, by status."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._seconds = Histogram(
            "dx_delivery_answer_seconds",
            "Time from the start of a delivery's request to its answer.",
            ["status"],
            buckets=_LATENCIES,
            registry=self.registry,
        )

    def observe(self, status: int, seconds: float) -> None:
        self._seconds.labels(str(status)).observe(seconds)


def router(latency: ReceiverLatency, hosts: Hosts) -> APIRouter:
    """The route. Requests without a key are answered where they come from this machine, and not through a proxy."""
    routes = APIRouter()

    @routes.get(PATH, include_in_schema=False)
    async def metrics(request: Request, served: Annotated[ServedInstallation, Depends(installation)]) -> Response:
        if (refused := await _refused(request, hosts)) is not None:
            return refused
        registry = CollectorRegistry()
        registry.register(_Read([metric async for metric in _read(served.settings, await served.warehouse())]))
        text = generate_latest(registry) + generate_latest(latency.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return routes


async def _refused(request: Request, hosts: Hosts) -> Response | None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and given.strip():
        keys: Keys = request.app.state.keys
        try:
            await keys.recognized(request, SecretStr(given.strip()))
        except WrongKeyError:
            return _unauthorized()
        except RefusedKeyError as error:
            return PlainTextResponse(f"{error}\n", error.status, error.headers)
        return None
    if not _is_of_this_machine(request):
        return _unauthorized()
    # Without a key it matters who sent the browser: the page of a stranger may ask this machine as well.
    if (refused := refusal(request.scope, hosts)) is not None:
        status, sentence = refused
        return PlainTextResponse(f"{sentence}\n", status)
    return None


def _is_of_this_machine(request: Request) -> bool:
    """Whether the connection is a local one that no proxy passes on. A proxy may run on this machine."""
    local = request.client is not None and is_loopback(request.client.host)
    return local and not any(name in request.headers for name in _FORWARDED)


def _unauthorized() -> Response:
    sentence = "Metrics need an API key: Authorization: Bearer KEY, with a key of `dx-dagster api-keys create`."
    return PlainTextResponse(f"{sentence}\n", 401, {"WWW-Authenticate": "Bearer"})


class _Read(Collector):
    """Metrics that have been read."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


async def _read(settings: Settings, warehouse: Warehouse) -> AsyncIterator[Metric]:
    known = await connections.all_connections(warehouse)
    workspaces = [one for one in known if one.type == "bitbucket"]
    for read in (
        _budgets(settings, warehouse, known),
        _requests(warehouse),
        _inbox(warehouse),
        _syncs(warehouse, workspaces),
        _webhooks(warehouse, workspaces),
        _rows(warehouse),
    ):
        for metric in await read:
            yield metric


async def _budgets(settings: Settings, warehouse: Warehouse, known: Iterable[StoredConnection]) -> list[Metric]:
    labels = ["workspace", "connection", "credential"]
    left = GaugeMetricFamily(
        "dx_budget_requests_left", "Requests that a credential has left in the rolling window.", labels=labels
    )
    limit = GaugeMetricFamily("dx_budget_requests_limit", "Requests of a credential in the window.", labels=labels)
    works = GaugeMetricFamily("dx_credential_works", "1 where the credential can be used, else 0.", labels=labels)
    for connection in known:
        if connection.type not in WITH_BUDGETS:
            continue
        for one in await health(settings, warehouse, connection):
            # Labels need not differ, the number does.
            name = [connection.workspace, connection.type, f"{one.credential.id}: {one.credential.label}"]
            works.add_metric(name, one.works)
            if one.left is not None and one.limit is not None:
                left.add_metric(name, one.left)
                limit.add_metric(name, one.limit)
    return [left, limit, works]


async def _requests(warehouse: Warehouse) -> list[Metric]:
    sent = CounterMetricFamily(
        "dx_requests",
        "Requests to Bitbucket, by the status of the answer.",
        labels=["workspace", "connection", "credential", "status"],
    )
    for one in await request_counts.read(warehouse):
        sent.add_metric([one.workspace, one.connection, f"{one.credential}: {one.label}", one.status], one.requests)
    return [sent]


async def _inbox(warehouse: Warehouse) -> list[Metric]:
    waiting = GaugeMetricFamily("dx_inbox_deliveries", "Deliveries that wait to be applied.", labels=["workspace"])
    age = GaugeMetricFamily("dx_inbox_oldest_seconds", "Age of the oldest of them.", labels=["workspace"])
    for one in await inbox.waiting_times(warehouse):
        waiting.add_metric([one.workspace], one.waiting)
        age.add_metric([one.workspace], one.seconds)
    return [waiting, age]


async def _syncs(warehouse: Warehouse, workspaces: Iterable[StoredConnection]) -> list[Metric]:
    lag = GaugeMetricFamily("dx_sync_lag_seconds", "Time since a sync last succeeded.", labels=["workspace"])
    failing = GaugeMetricFamily(
        "dx_sync_failing", "1 where the last sync could read nothing, else 0.", labels=["workspace"]
    )
    results = GaugeMetricFamily("dx_syncs_last_day", "Syncs that began within a day.", labels=["workspace", "result"])
    now = HOST.now()
    for one in workspaces:
        if one.last_synced_at is not None:
            lag.add_metric([one.workspace], max(0.0, (now - one.last_synced_at).total_seconds()))
        failing.add_metric([one.workspace], one.last_error is not None)
    for result in await sync_steps.of_last_day(warehouse):
        results.add_metric([result.workspace, "failed"], result.failed)
        results.add_metric([result.workspace, "not_failed"], result.done)
    return [lag, failing, results]


async def _webhooks(warehouse: Warehouse, workspaces: Iterable[StoredConnection]) -> list[Metric]:
    believed = GaugeMetricFamily(
        "dx_webhook_believed", "1 where scheduled syncs believe the webhook, else 0.", labels=["workspace"]
    )
    doubted = GaugeMetricFamily(
        "dx_webhook_doubted_timestamp_seconds",
        "When the belief in the webhook was last lost, in seconds since 1970.",
        labels=["workspace"],
    )
    untold = GaugeMetricFamily(
        "dx_untold_changes_last_week", "Changes that a reconcile found and no delivery told.", labels=["workspace"]
    )
    for one in workspaces:
        found = await belief.read(warehouse, one.workspace)
        believed.add_metric([one.workspace], found.vouched_from is not None)
        untold.add_metric([one.workspace], found.untold)
        if found.doubted_at is not None:
            doubted.add_metric([one.workspace], found.doubted_at.timestamp())
    return [believed, doubted, untold]


async def _rows(warehouse: Warehouse) -> list[Metric]:
    rows = GaugeMetricFamily("dx_table_rows", "Rows of a table, by PostgreSQL's estimate.", labels=["table"])
    for table, estimate in (await counts.estimated(warehouse)).items():
        rows.add_metric([table], estimate)
    return [rows]
