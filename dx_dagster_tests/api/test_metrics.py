"""What Prometheus reads from `/metrics`, and who may."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dx_dagster.api.app import create_app
from dx_dagster.warehouse import api_keys
from dx_dagster.webhooks.address import PATH
from dx_dagster_tests.connecting import on_warehouse
from dx_dagster_tests.delivering import SMALL, Receiving, headers, installed, post
from dx_dagster_tests.servers import serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installation(database_url: str) -> Iterator[Receiving]:
    with installed(database_url, SMALL) as made:
        yield made


def read(text: str) -> dict[tuple[str, ...], float]:
    """Values by name and labels' values, which come in the order of their names."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_what_an_operator_watches(installation):
    body = b'{"repository": {"full_name": "acme/web"}}'
    assert post(installation.receiver, content=body, headers=headers(body)).status_code == 200
    assert post(installation.receiver, content=body, headers=headers(body, secret="wrong")).status_code == 401
    with psycopg.connect(installation.database_url) as database:
        database.execute("UPDATE webhook_events SET received_at = now() - interval '90 seconds'")
        database.execute("ANALYZE bitbucket_pulls")
    answer = httpx.get(installation.receiver.removesuffix(PATH) + "/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = read(answer.text)
    assert found["dx_inbox_deliveries", "acme"] == 1
    assert 90 <= found["dx_inbox_oldest_seconds", "acme"] < 120
    assert found["dx_table_rows", "bitbucket_pulls"] == SMALL.pull_requests
    assert found["dx_sync_failing", "acme"] == 0
    assert found["dx_webhook_believed", "acme"] == 0
    assert found["dx_untold_changes_last_week", "acme"] == 0
    [(name, left)] = [(name, value) for name, value in found.items() if name[0] == "dx_budget_requests_left"]
    assert (name[1], name[3]) == ("bitbucket", "acme")
    assert left == found["dx_budget_requests_limit", *name[1:]] - installation.sandbox.requests.count
    sent = {name[3]: value for name, value in found.items() if name[0] == "dx_requests_total"}
    assert sum(sent.values()) == installation.sandbox.requests.count
    assert sent["200"] > sent["403"] > 0  # one repository is refused
    assert found["dx_delivery_answer_seconds_count", "200"] == 1
    assert found["dx_delivery_answer_seconds_count", "401"] == 1

    told = {
        one.name
        for one in text_string_to_metric_families(answer.text)
        if one.name.startswith("dx_") and not one.name.endswith("_created")
    }
    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert {name.removesuffix("_total") for name in re.findall(r"^\| `(dx_\w+)`", page, re.MULTILINE)} == told
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus-alerts.yaml").read_text())
    rules = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    board = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "operation.json").read_text())
    rules += [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    rules += [one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query"]
    served = {line.split()[0].partition("{")[0] for line in answer.text.splitlines() if not line.startswith("#")}
    served |= {name for name in told if not name.endswith("_total")}  # those without a sample so far
    watched = {name for rule in rules for name in re.findall(r"\b(?:dx|process)_\w+", rule)}
    assert len(watched) > len(told)
    assert watched - served == set()
    labels = dict(re.findall(r"^\| `(dx_\w+)` \| ([\w, ]*) \|", page, re.MULTILINE))
    for name, label in re.findall(r"\b(dx_\w+)\{(\w+)=", " ".join(rules)):
        assert label in labels[name].split(", "), name


def test_metrics_need_a_key_unless_the_request_comes_from_this_machine(installation):
    key = on_warehouse(installation.database_url, lambda warehouse: api_keys.create(warehouse, "prometheus"))
    with serving(create_app(installation.settings)) as url, httpx.Client(base_url=url) as ask:
        assert ask.get("/metrics").status_code == 200
        bearer = {"authorization": f"Bearer {key.get_secret_value()}"}
        # A proxy on this machine passes on the requests of others; and any page may have its reader's browser ask.
        for theirs in ({"x-forwarded-for": "203.0.113.7"}, {"forwarded": "for=203.0.113.7"}, {"via": "1.1 proxy"}):
            assert ask.get("/metrics", headers=theirs).status_code == 401
            assert ask.get("/metrics", headers=theirs | bearer).status_code == 200
        for theirs, status in (({"host": "attacker.example"}, 421), ({"sec-fetch-site": "cross-site"}, 403)):
            assert ask.get("/metrics", headers=theirs).status_code == status
        assert ask.get("/metrics", headers={"host": "monitored.example"} | bearer).status_code == 200
        assert ask.get("/metrics", headers={"authorization": "Bearer dx_wrong"}).status_code == 401
