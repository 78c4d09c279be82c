"""Spans of OpenTelemetry: for steps, requests to Bitbucket, and deliveries (DX_TRACES=on).

Without the setting, or without OpenTelemetry's packages, nothing is loaded and nothing is recorded. The exporter takes
its address from OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT.
"""

import os
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

from dx_dagster.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.trace import Span, Tracer

Value = str | int | None

_OFF: AbstractContextManager[None] = nullcontext()


def span(name: str, **attributes: Value) -> "AbstractContextManager[Span | None]":
    """A span around the block. An exception that leaves it makes the span one of an error."""
    tracer = _tracer()
    return _OFF if tracer is None else _within(tracer, name, attributes)


def request_span(method: str, kind: str, host: str, path: str) -> "AbstractContextManager[Span | None]":
    """A span around a request. `path` has no query, and the span has no header: both may hold secrets."""
    tracer = _tracer()
    if tracer is None:
        return _OFF
    about: dict[str, Value] = {"http.request.method": method, "server.address": host, "url.path": path}
    return _within(tracer, f"{method} {kind}", about, is_request=True)


def answered(span: "Span | None", status: int | None) -> None:
    """Notes the status of the answer in the span of its request; None where there was no answer."""
    if span is None:
        return
    from opentelemetry.trace import StatusCode

    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if status is None or status >= 400:  # noqa: PLR2004 - as OpenTelemetry's conventions for HTTP say
        span.set_status(StatusCode.ERROR, "no answer" if status is None else None)


def record(name: str, began: datetime, ended: datetime, **attributes: Value) -> None:
    """A span of something that has ended."""
    if (tracer := _tracer()) is not None:
        made = tracer.start_span(name, start_time=_nanoseconds(began), attributes=_given(attributes))
        made.end(_nanoseconds(ended))


@contextmanager
def _within(tracer: "Tracer", name: str, attributes: dict[str, Value], *, is_request: bool = False) -> "Iterator[Span]":
    from opentelemetry.trace import SpanKind

    kind = SpanKind.CLIENT if is_request else SpanKind.INTERNAL
    with tracer.start_as_current_span(name, kind=kind, attributes=_given(attributes)) as made:
        yield made


def _given(attributes: dict[str, Value]) -> dict[str, str | int]:
    return {name: value for name, value in attributes.items() if value is not None}


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000


def _are_on() -> bool:
    """Whether the environment asks for traces. In another project, something else may be wrong with it."""
    try:
        return Settings.read().traces == "on"
    except SettingsError:
        return False


@cache
def _tracer() -> "Tracer | None":
    """The tracer, decided once for a process."""
    if not _are_on():
        return None
    try:
        import opentelemetry.sdk  # noqa: F401
        from opentelemetry import trace
    except ImportError:
        return None
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # else the host of the process has one
        _provide()
    return trace.get_tracer("dx_dagster")


def _provide() -> None:
    """Sends spans to a collector, if the exporter is installed. They are sent by a thread, the last ones at the end."""
    from opentelemetry import trace
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        return
    name = os.environ.get("OTEL_SERVICE_NAME") or "dx-dagster"
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
