"""The operator's own endpoints, over a real socket."""

import json
import logging

import aiohttp
import pytest

from backstop.api.problems import InputError
from backstop.telemetry.endpoints import serve_endpoints
from backstop.telemetry.log import JsonLines, fields
from backstop.telemetry.metrics import Metrics, PolicyShown


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def test_readiness_says_what_is_missing_and_health_does_not_depend_on_it() -> None:
    missing: list[str] = ["the cluster has not been listed yet"]
    async with serve_endpoints(Metrics().registry, port=0, alive=lambda: None, ready=lambda: missing[0] if missing else None) as port:
        assert await get(port, "/readyz") == (503, "the cluster has not been listed yet")
        assert await get(port, "/healthz") == (200, "ok")
        missing.clear()
        assert await get(port, "/readyz") == (200, "ok")


async def test_a_port_that_is_taken_is_told_by_its_setting() -> None:
    async with serve_endpoints(Metrics().registry, port=0, alive=lambda: None, ready=lambda: None) as taken:
        with pytest.raises(InputError, match=f"`telemetryPort` {taken} cannot be listened on"):
            async with serve_endpoints(Metrics().registry, port=taken, alive=lambda: None, ready=lambda: None):
                raise AssertionError


async def test_a_policy_is_shown_in_one_phase_and_not_at_all_once_it_is_gone() -> None:
    metrics = Metrics()
    async with serve_endpoints(metrics.registry, port=0, alive=lambda: None, ready=lambda: None) as port:
        metrics.show_policy("shop", "support", shown=PolicyShown("Progressing", weight=5))
        metrics.show_policy("shop", "support", shown=PolicyShown("Idle", weight=0))
        _, text = await get(port, "/metrics")
        assert 'backstop_operator_policy_phase{namespace="shop",phase="Idle",policy="support"} 1.0' in text
        assert 'phase="Progressing"' not in text
        assert 'backstop_operator_canary_weight_percent{namespace="shop",policy="support"} 0.0' in text
        metrics.forget_policy("shop", "support")
        metrics.forget_policy("shop", "support")
        _, text = await get(port, "/metrics")
        assert 'policy="support"' not in text


def test_a_log_line_is_one_json_object_whatever_the_message_holds() -> None:
    record = logging.LogRecord("backstop", logging.INFO, __file__, 1, 'two\nlines and "quotes"', None, None)
    record.__dict__.update(fields(policy="support", weight=5))
    line = JsonLines().format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["message"], parsed["policy"], parsed["weight"]) == ('two\nlines and "quotes"', "support", 5)
