"""Headers that a target wants beside, or in place of, a bearer token: their values come from Secrets, and go to it alone."""

import logging

import aiohttp
import pytest

from backstop.gateway.compilation import compile_revision
from backstop.gateway.revision import ConfigurationError
from e2e.fakemodel.script import Rule

from .harness import Gateways, Model, make_record, model_tier, static_tier

VALUE = "5ecret-of-the-target"
KEYS = {"BACKSTOP_HEADER_0_0": f" {VALUE}\n", "BACKSTOP_HEADER_0_1": "shop"}


def tier(url: str) -> dict[str, object]:
    found = model_tier(url, vectors="e1")
    names = ("api-key", "OpenAI-Project")
    found["model"]["headersFrom"] = [{"header": name, "secretRef": {"name": "llm", "key": f"k{n}"}} for n, name in enumerate(names)]
    return found


async def test_every_request_to_the_target_carries_them_and_to_no_other(model: Model, other_model: Model, gateways: Gateways) -> None:
    chain = [tier(model.url), model_tier(other_model.url, name="second", firstTokenMilliseconds=1000)]
    gateway = await gateways.start(make_record(chain), keys=KEYS)
    theirs = {"api-key": "of-the-caller", "openai-project": "theirs"}
    for stream in (False, True):
        await gateway.chat(stream=stream, headers=theirs)
    await gateway.post(b'{"input":"a"}', path="/v1/embeddings", headers=theirs)
    sent = [request["headers"] for request in model.fake.requests]
    assert len(sent) == 3
    assert {(headers["api-key"], headers["OpenAI-Project"], headers.get("Authorization")) for headers in sent} == {(VALUE, "shop", None)}
    model.script(Rule(error_percent=100))
    await gateway.chat(headers=theirs)
    assert not {"api-key", "openai-project"} & {name.lower() for name in other_model.fake.requests[-1]["headers"]}


async def test_m08_their_values_are_in_no_answer_metric_status_or_log_line(
    model: Model, gateways: Gateways, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    model.script(Rule(error_percent=100, error_status=401, error_body=f'{{"error":{{"message":"{VALUE} is wrong"}}}}'))
    for chain in ([tier(model.url)], [tier(model.url), static_tier()]):
        gateway = await gateways.start(make_record(chain), keys=KEYS)
        got = await gateway.chat()
        said = [got.body.decode(), str(got.headers), str(await gateway.status())]
        async with aiohttp.ClientSession() as session, session.get(f"http://{gateway.metrics_address}/metrics") as response:
            said.append(await response.text())
        assert not [text for text in said if VALUE in text]
    assert VALUE not in repr(compile_revision(make_record([tier(model.url)]), environment=KEYS))
    assert not [record for record in caplog.records if VALUE in record.getMessage() + str(vars(record))]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (" ", "it is empty; give the Secret `llm` with `k0`, or set `BACKSTOP_HEADER_0_0`"),
        ("5ecret\r\nx-other: 1", "the key in Secret `llm` holds characters that a header cannot carry"),
        ("5ecret-\u00e9", "the key in Secret `llm` holds characters that a header cannot carry"),
    ],
)
def test_a_value_that_cannot_be_sent_ends_the_start_with_a_sentence_that_keeps_it(value: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compile_revision(make_record([tier("models:1")]), environment=KEYS | {"BACKSTOP_HEADER_0_0": value})
    assert str(refused.value) == f"`spec.chain[0].model.headersFrom[0].secretRef`: {sentence}"
