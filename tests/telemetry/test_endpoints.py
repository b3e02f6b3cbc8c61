"""The operator's own endpoints, over a real socket."""

import json
import logging

import aiohttp
import pytest

from backstop.api.problems import InputError
from backstop.telemetry.endpoints import serve_endpoints
from backstop.telemetry.log import JsonLines, fields
from backstop.telemetry.metrics import Metrics, PolicyShown, PriceShown


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
        price = PriceShown("primary@0a1b2c3d", "EUR", input=2.5, output=1234567.12345678)
        metrics.show_policy("shop", "support", shown=PolicyShown("Idle", weight=0, prices=(price,)))
        _, text = await get(port, "/metrics")
        assert 'backstop_operator_policy_phase{namespace="shop",phase="Idle",policy="support"} 1.0' in text
        assert 'phase="Progressing"' not in text
        assert 'backstop_operator_canary_weight_percent{namespace="shop",policy="support"} 0.0' in text
        shown = {
            line.partition("} ")[2]: line for line in text.splitlines() if line.startswith("backstop_operator_price_per_million_tokens{")
        }
        assert list(shown) == ["2.5", "1.23456712345678e+06"]
        for of, line in zip(("input", "output"), shown.values(), strict=True):
            for label in ('namespace="shop"', 'policy="support"', 'target="primary@0a1b2c3d"', 'currency="EUR"', f'type="{of}"'):
                assert label in line
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
