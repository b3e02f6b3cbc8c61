"""The official `openai` client, unchanged, against a gateway."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from e2e.fakemodel.script import Fault, Rule

from .harness import USER, ExactTarget, Gateways, Model, make_record, model_tier, static_tier


@pytest.fixture
async def client(model: Model, gateways: Gateways) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of a gateway with a variable, a model and a static answer."""
    tier = model_tier(model.url, firstTokenMilliseconds=1000)
    record = make_record(
        [tier | {"model": tier["model"] | {"embeddingModel": "e1"}}, static_tier()],
        prompt="Help {{customer}}.",
        variables=[{"name": "customer"}],
    )
    gateway = await gateways.start(record)
    async with openai.AsyncOpenAI(base_url=f"http://{gateway.address}/v1", api_key="sk-caller", max_retries=0) as client:
        yield client


async def test_w49_chat(client: openai.AsyncOpenAI, model: Model) -> None:
    answer = await client.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hi"}], metadata={"customer": "Ann"})
    assert answer.choices[0].message.content == "All is well."
    assert model.sent()["messages"] == [{"role": "system", "content": "Help Ann."}, {"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(("fault", "text"), [(Fault.NONE, "All is well."), (Fault.MALFORMED, "Not now.")])
async def test_w49_stream_from_a_model_and_from_the_static_tier(client: openai.AsyncOpenAI, model: Model, fault: Fault, text: str) -> None:
    model.script(Rule(fault=fault))
    stream = await client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": "Hi"}],
        metadata={"customer": "Ann"},
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert chunks[-1].usage is not None


TOOLS: Any = [
    {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}}}}
]
CALLED = {"id": "call-1", "type": "function", "function": {"name": "find", "arguments": '{"id": 4711}'}}


async def test_w49_tools(gateways: Gateways, target: ExactTarget) -> None:
    gateway = await gateways.start(make_record([model_tier(target.url)]))
    target.says(
        json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": [CALLED]}, "finish_reason": "tool_calls"}]})
    )
    async with openai.AsyncOpenAI(base_url=f"http://{gateway.address}/v1", api_key="sk-caller", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "Where is 4711?"}]
        answer = await client.chat.completions.create(model="any", messages=messages, tools=TOOLS, tool_choice="auto")
        assert answer.choices[0].message.tool_calls is not None
        (call,) = answer.choices[0].message.tool_calls
        assert call.to_dict() == CALLED
        sent = json.loads(target.seen[0].body)
        assert (sent["tools"], sent["tool_choice"]) == (TOOLS, "auto")

        begun = CALLED | {"index": 0, "function": {"name": "find", "arguments": ""}}
        pieces = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"id": ', "4711}")]
        deltas = [{"role": "assistant", "tool_calls": [begun]}, *({"tool_calls": [piece]} for piece in pieces), {}]
        chunks = [{"choices": [{"index": 0, "delta": d, "finish_reason": None if d else "tool_calls"}]} for d in deltas]
        target.says("".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n", stream=True)
        stream = await client.chat.completions.create(model="any", messages=messages, tools=TOOLS, stream=True)
        said = [call async for chunk in stream for call in chunk.choices[0].delta.tool_calls or ()]
        assert [(call.id, call.function.name) for call in said if call.id and call.function] == [("call-1", "find")]
        assert "".join(call.function.arguments or "" for call in said if call.function) == '{"id": 4711}'

        # What the tool said goes back with the call that asked for it.
        target.says(
            json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "In Linz."}, "finish_reason": "stop"}]})
        )
        messages += [{"role": "assistant", "tool_calls": [CALLED]}, {"role": "tool", "tool_call_id": "call-1", "content": "Linz"}]
        last = await client.chat.completions.create(model="any", messages=messages, tools=TOOLS)
        assert last.choices[0].message.content == "In Linz."
        assert json.loads(target.seen[-1].body)["messages"][-3:] == messages


async def test_w49_the_static_answer(client: openai.AsyncOpenAI, model: Model) -> None:
    model.script(Rule(error_percent=100))
    answer = await client.chat.completions.create(model="any", messages=[USER], metadata={"customer": "Ann"})
    assert (answer.choices[0].message.content, answer.model) == ("Not now.", "backstop/static")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 0


async def test_w49_errors(client: openai.AsyncOpenAI, model: Model) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="any", messages=[USER])
    assert refused.value.param == "metadata.customer"
    with pytest.raises(openai.NotFoundError):
        await client.images.generate(prompt="x")
    model.script(Rule(tokens=5, fault=Fault.CUT, cut_after_tokens=3))
    stream = await client.chat.completions.create(model="any", messages=[USER], metadata={"customer": "Ann"}, stream=True)
    with pytest.raises(openai.APIError, match="incomplete"):
        async for _ in stream:
            pass


async def test_w49_models(client: openai.AsyncOpenAI) -> None:
    listed = [model async for model in await client.models.list()]
    assert [model.id for model in listed] == ["m1", "backstop/static", "e1"]
    for model in listed:
        assert await client.models.retrieve(model.id) == model
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.models.retrieve("m1/other")
    assert (unknown.value.code, unknown.value.param, unknown.value.type) == ("model_not_found", "model", "invalid_request_error")


async def test_w49_embeddings(client: openai.AsyncOpenAI, model: Model) -> None:
    answer = await client.embeddings.create(model="any", input=["one", "two"])  # in base64, as the client asks by itself
    assert [(vector.index, vector.embedding) for vector in answer.data] == [(0, [3.0, 0.5]), (1, [3.0, 0.5])]
    assert (answer.model, model.sent()["encoding_format"], model.sent()["model"]) == ("e1", "base64", "e1")


async def test_w49_completions(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="any", prompt="Hi", extra_body={"metadata": {"customer": "Ann"}})
    assert (answer.choices[0].text, answer.object) == ("All is well.", "text_completion")
    stream = await client.completions.create(model="any", prompt="Hi", stream=True, extra_body={"metadata": {"customer": "Ann"}})
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "All is well."
