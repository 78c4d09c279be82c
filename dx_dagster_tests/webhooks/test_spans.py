"""Traces show how a delivery reached its rows, and hold no secret."""

import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dx_dagster.sandbox import WorldConfig
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster.telemetry import spans
from dx_dagster_tests.delivering import Receiving, installed

TINY = WorldConfig(repositories=2, pull_requests=6, members=3)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setenv("DX_TRACES", "on")
    return exporter


@pytest.fixture(autouse=True)
def _decided_anew():
    spans._tracer.cache_clear()  # noqa: SLF001 - a process decides once
    yield
    spans._tracer.cache_clear()  # noqa: SLF001


def apply_some(installation: Receiving) -> int:
    watcher = Watcher(installation.sandbox.world)
    for _ in range(10):
        installation.sandbox.world.step()
    installation.deliver(*watcher.deliveries())
    return installation.refresh().taken


def test_requests_and_deliveries_are_spans_without_secrets(exported, database_url, monkeypatch):
    with installed(database_url, TINY) as installation:
        exported.clear()
        taken = apply_some(installation)
        [applying] = [span for span in exported.get_finished_spans() if span.name == "apply deliveries"]
        inside = [span for span in exported.get_finished_spans() if span.parent == applying.context]
        deliveries = [span for span in inside if span.name.startswith("delivery ")]
        requests = [span for span in inside if span.name.startswith("GET ")]
        assert len(deliveries) == taken > 0
        assert all(span.start_time < span.end_time for span in deliveries)
        assert {span.attributes["http.response.status_code"] for span in requests} == {200}
        for span in exported.get_finished_spans():
            assert "?" not in str(span.attributes)
            assert all(token.secret not in span.to_json() for token in installation.sandbox.tokens)

        exported.clear()
        spans._tracer.cache_clear()  # noqa: SLF001
        monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)  # as where it is not installed
        assert apply_some(installation) > 0
        assert [span.name for span in exported.get_finished_spans()] == []
