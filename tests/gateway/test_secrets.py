"""What a target's key must not get into: answers, metrics, status, log lines."""

import logging

import aiohttp
import pytest

from e2e.fakemodel.script import Fault, Rule

from .harness import Gateways, Model, make_record, model_tier, static_tier

KEY = "sk-5ecret-of-the-target"
REFUSED = f'{{"error":{{"message":"Incorrect API key provided: {KEY}"}}}}'


@pytest.mark.parametrize("last", [True, False], ids=["nothing else answers", "another tier answers"])
@pytest.mark.parametrize(
    "rule",
    [
        Rule(error_percent=100, error_status=401, error_body=REFUSED),
        Rule(error_percent=100, error_status=403, error_body=REFUSED),
        Rule(error_percent=100, error_status=500, error_body=REFUSED),
        Rule(error_percent=100, error_status=429, error_body=REFUSED),
        Rule(fault=Fault.RESET),
        Rule(fault=Fault.MALFORMED),
        Rule(text="Fine."),
    ],
    ids=["401", "403", "500", "429", "reset", "malformed", "fine"],
)
async def test_m08_a_targets_key_is_in_no_answer_metric_status_or_log_line(
    model: Model, gateways: Gateways, caplog: pytest.LogCaptureFixture, rule: Rule, last: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    model.script(rule)
    chain = [model_tier(model.url, key=True), *([] if last else [static_tier()])]
    gateway = await gateways.start(make_record(chain), keys={"BACKSTOP_API_KEY_0": KEY})
    said = []
    for stream in (False, True):
        got = await gateway.chat(stream=stream)
        said += [got.body.decode(), str(got.headers)]
    assert model.fake.requests[-1]["headers"]["Authorization"] == f"Bearer {KEY}", "it was used"
    async with aiohttp.ClientSession() as session:
        for path in ("/metrics", "/-/status"):
            async with session.get(f"http://{gateway.metrics_address}{path}") as response:
                assert response.status == 200
                said.append(await response.text())
    said += [record.getMessage() + str(vars(record)) for record in caplog.records]
    assert not [text for text in said if KEY in text]
