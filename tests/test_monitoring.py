"""The alerts and PodMonitors that are shipped, against a real Prometheus, and against what is really exported and rendered."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from backstop.api import metricnames
from backstop.api.policystatus import Phase
from backstop.api.reasons import Reason
from backstop.rendering.revision import deployment, template_of
from backstop.rollout.place import Outcome as RolloutOutcome
from backstop.telemetry.metrics import Metrics
from e2e.cluster.build import program
from e2e.cluster.ports import free_port
from tests.analysis.conftest import Prometheus
from tests.gateway.harness import eventually
from tests.rendering.scene import OWNER, record, revision_of

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "manifests" / "monitoring"
ALERTS = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["spec"]["groups"] for rule in group["rules"]]
DEADLINE_SECONDS = 30.0
OF = 'namespace="shop",policy="support",revision="r1"'

# By series: what is exported while all is well, and while nothing is. A list: by how much the counter grows with each scrape.
Series = Mapping[str, float | list[float]]
WELL: Series = {
    "backstop_operator_leading": 1,
    'backstop_operator_pass_failures_total{cause="Unavailable"}': [0],
    'backstop_operator_pass_failures_total{cause="Overtaken"}': [5],
    'backstop_operator_transitions_total{kind="FallbackPolicy",reason="MetricsUnavailable"}': [0],
    'backstop_operator_transitions_total{kind="FallbackPolicy",reason="Promoted"}': [1],
    'backstop_operator_policy_phase{namespace="shop",policy="support",phase="Progressing"}': 1,
    'backstop_operator_last_rollout_outcome{namespace="shop",policy="support",outcome="RolledBack"}': 1,
    'backstop_operator_last_decision_timestamp_seconds{namespace="shop",policy="support"}': 1e9,  # long ago
    'backstop_operator_last_shift_timestamp_seconds{namespace="shop",policy="support"}': 1e9,
    f'backstop_served_total{{{OF},cache="miss",outcome="success",first_tier="answered"}}': [1000],
    f'backstop_served_total{{{OF},cache="miss",outcome="success",first_tier="late"}}': [100],
    f'backstop_served_total{{{OF},cache="miss",outcome="error",first_tier="failed"}}': [1],
    f'backstop_served_total{{{OF},cache="miss",outcome="caller_error",first_tier="answered"}}': [500],
    f'backstop_requests_total{{{OF},track="stable",tier="primary",outcome="success"}}': [1000],
    f"backstop_budget_exceeded_total{{{OF}}}": [1],
    f'backstop_target_up{{{OF},target="primary"}}': 1,
    f'backstop_breaker_state{{{OF},tier="primary"}}': 0,
    f'backstop_refused_total{{{OF},reason="requests"}}': [0],
    f'backstop_tickets_waiting{{{OF},tier="people"}}': 0,
}
ILL: Series = {
    "backstop_operator_leading": 0,
    'backstop_operator_pass_failures_total{cause="Unavailable"}': [1],
    'backstop_operator_transitions_total{kind="FallbackPolicy",reason="MetricsUnavailable"}': [1],
    'backstop_operator_policy_phase{namespace="shop",policy="support",phase="Halted"}': 1,
    'backstop_operator_last_rollout_outcome{namespace="shop",policy="support",outcome="RolledBack"}': 1,
    'backstop_operator_last_decision_timestamp_seconds{namespace="shop",policy="support"}': 9e12,  # later than any now
    f'backstop_served_total{{{OF},cache="miss",outcome="success",first_tier="late"}}': [100],
    f'backstop_served_total{{{OF},cache="miss",outcome="error",first_tier="failed"}}': [5],
    f'backstop_requests_total{{{OF},track="stable",tier="primary",outcome="success"}}': [100],
    f"backstop_budget_exceeded_total{{{OF}}}": [5],
    f'backstop_target_up{{{OF},target="primary"}}': 0,
    f'backstop_breaker_state{{{OF},tier="primary"}}': 2,
    f'backstop_refused_total{{{OF},reason="requests"}}': [1],
    f'backstop_tickets_waiting{{{OF},tier="people"}}': 3,
}


@contextmanager
def exporting(series: Series) -> Iterator[tuple[int, list[None]]]:
    """A port with these at `/metrics`, and a list that is as long as it was read often."""
    scrapes: list[None] = []

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            scrapes.append(None)
            values = ((name, value[0] * len(scrapes) if isinstance(value, list) else value) for name, value in series.items())
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write("".join(f"{name} {value}\n" for name, value in values).encode())

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], scrapes
        finally:
            server.shutdown()
            thread.join()


@asynccontextmanager
async def judging(folder: Path, *, port: int) -> AsyncIterator[Prometheus]:
    """A Prometheus with the rules that are shipped, which scrapes this port and judges once a second."""
    (folder / "alerts.yaml").write_text(yaml.safe_dump(ALERTS["spec"]))
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
        "rule_files: [alerts.yaml]\n"
        f"scrape_configs: [{{job_name: all, honor_labels: true, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
    )
    server = Prometheus(binary=program("prometheus"), directory=folder, port=free_port())
    await server.start()
    try:
        yield server
    finally:
        server.stop()


async def asked(server: Prometheus, path: str) -> dict[str, Any]:
    response = await asyncio.to_thread(requests.get, f"{server.url}/api/v1/{path}", timeout=5)
    data: dict[str, Any] = response.json()["data"]
    return data


async def raised(server: Prometheus) -> set[str]:
    """Names of alerts whose expression holds, however long."""
    return {alert["labels"]["alertname"] for alert in (await asked(server, "alerts"))["alerts"]}


@pytest.mark.prometheus
async def test_every_alert_that_is_shipped_is_raised_by_its_trouble(tmp_path: Path) -> None:
    with exporting(ILL) as (port, _):
        async with judging(tmp_path, port=port) as server:

            async def all_of_them() -> bool:
                return await raised(server) == {rule["alert"] for rule in RULES}

            await eventually(all_of_them, within=DEADLINE_SECONDS)
            rules = [rule for group in (await asked(server, "rules"))["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule["health"] for rule in rules} == {rule["alert"]: "ok" for rule in RULES}


@pytest.mark.prometheus
async def test_no_alert_is_raised_while_all_is_well(tmp_path: Path) -> None:
    with exporting(WELL) as (port, scrapes):
        async with judging(tmp_path, port=port) as server:

            async def scraped() -> bool:
                return len(scrapes) >= 8

            await eventually(scraped, within=DEADLINE_SECONDS)
            assert await raised(server) == set()


def exported() -> set[str]:
    """Names of all series of operator and gateway."""
    own = {family.name + ("_total" if family.type == "counter" else "") for family in Metrics().registry.collect()}
    return own | {value for value in vars(metricnames).values() if isinstance(value, str) and value.startswith("backstop_")}


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_asks_for_what_is_exported(rule: dict[str, Any]) -> None:
    assert set(re.findall(r"backstop_\w+", rule["expr"])) <= exported()
    values: dict[str, set[str]] = {
        "phase": set(Phase),
        "reason": set(Reason),
        "outcome": {*metricnames.Outcome, *RolloutOutcome},
        "first_tier": set(metricnames.FirstTier),
        "cache": set(metricnames.CacheUse),
        "cause": {"Overtaken"},
    }
    for label, matcher in re.findall(r'(\w+)(?:=~|!=|=)"([^"]+)"', rule["expr"]):
        assert set(matcher.split("|")) <= values[label]


def test_the_page_says_of_every_alert_what_to_do() -> None:
    page = (ROOT / "docs" / "how-to" / "monitoring.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(Backstop\w+)`", page, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_the_pod_monitors_find_the_pods_that_are_rendered_and_their_ports() -> None:
    monitors = yaml.safe_load_all((MONITORING / "podmonitors.yaml").read_text(encoding="utf-8"))
    stored = record()
    gateway = deployment(OWNER, revision=revision_of(stored), template=template_of(stored))
    installed = yaml.safe_load_all((ROOT / "manifests" / "base" / "backstop.yaml").read_text(encoding="utf-8"))
    (operator,) = (body for body in installed if body["kind"] == "Deployment")
    for monitor, pod in zip(monitors, (body["spec"]["template"] for body in (gateway, operator)), strict=True):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        ports = [port["name"] for container in pod["spec"]["containers"] for port in container["ports"]]
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= set(ports)
