"""`/v1/embeddings`: the same targets, asked for vectors; no prompt and no canary has a say in them."""

import json
from typing import Any

from backstop.gateway.compilation import compile_revision

from .harness import ExactTarget, Gateways, TrafficApi, make_record, model_tier, state, static_tier

PATH = "/v1/embeddings"
ASKED = rb'{"encoding_format": "base64", "model":"any","input" : ["caf\u00e9", "\ud83d"], "dimensions":2, "x":1.50}'
VECTORS = b'{"object":"list", "data":[{"object":"embedding","index":0,"embedding":"AACAPwAAAEA="}],"model":"e-1","usage":{"x":2} }'


def embedding_tier(target: ExactTarget, *, name: str, model: str | None, window: int = 100, **timeouts: int) -> dict[str, Any]:
    """A model tier that may have vectors; its `window` is the chat's."""
    tier = model_tier(target.url, name=name, model=f"chat-{name}", key=name == "first", vectors=model, **timeouts)
    return tier | {"model": tier["model"] | {"contextTokens": window}}


async def test_w47_vectors_pass_through_from_the_tier_that_answers(
    gateways: Gateways, target: ExactTarget, other_target: ExactTarget
) -> None:
    chain = [
        embedding_tier(target, name="first", model="e-1", firstTokenMilliseconds=2000),
        embedding_tier(target, name="chats", model=None, firstTokenMilliseconds=100),
        embedding_tier(other_target, name="second", model="vendor/e-1", window=200),
        static_tier(),
    ]
    gateway = await gateways.start(make_record(chain), keys={"BACKSTOP_API_KEY_0": "sk-own"})
    target.says(VECTORS)
    got = await gateway.post(ASKED, path=PATH)
    assert (got.status, got.body, got.said("tier"), got.said("model")) == (200, VECTORS, "first", "e-1")
    sent = target.seen[-1]
    assert (sent.path, sent.headers["Authorization"], json.loads(sent.body)["model"]) == (PATH, "Bearer sk-own", "e-1")
    for part in (rb'"input":["caf\u00e9", "\ud83d"]', b'"encoding_format":"base64"', b'"dimensions":2', b'"x":1.50'):
        assert part in sent.body

    too_long = b'{"error":{"message":"maximum context length is 8192 tokens"}}'
    target.says(too_long, status=400)
    other_target.says(VECTORS)
    got = await gateway.post(ASKED, path=PATH)
    assert (got.status, got.body) == (400, too_long), "the window of the model that chats is another one"
    for wrong, reason in ((b'{"data":[]}', "MalformedAnswer"), (b'{"data":[{}],"error":{"code":1}}', "MalformedAnswer"), (b"[", "Malf")):
        target.says(wrong)
        got = await gateway.post(ASKED, path=PATH)
        assert (got.body, got.said("tier"), got.said("hand-offs")) == (VECTORS, "second", "1")
        assert str(got.said("reason")).startswith(reason)
    assert json.loads(other_target.seen[-1].body)["model"] == "vendor/e-1"
    assert len(target.seen) == 5, "the tier in between has no vectors"
    assert await gateway.total("backstop_handoffs_total", **{"from": "first", "to": "second"}) == 3

    other_target.says("{}", status=429)
    got = await gateway.post(ASKED, path=PATH)
    assert (got.status, got.json["error"]["code"]) == (502, "MalformedAnswer"), "a fixed text is no vector"
    assert await gateway.total("backstop_served_total") == 0, "no prompt is judged by it"
    assert await gateway.total("backstop_requests_total", outcome="success") == 4
    assert await gateway.total("backstop_requests_total", outcome="error") == 1


def test_w47_a_tier_without_vectors_takes_no_time_from_those_that_have_them() -> None:
    target_url = "http://models:8000/v1"
    chain = [
        {"name": "a", "model": {"baseURL": target_url, "name": "m", "embeddingModel": "e-1"}},
        {"name": "b", "model": {"baseURL": target_url, "name": "m"}, "timeouts": {"firstTokenMilliseconds": 300}},
        {"name": "c", "model": {"baseURL": target_url, "name": "m", "embeddingModel": "e-1"}, "timeouts": {"firstTokenMilliseconds": 200}},
    ]
    revision = compile_revision(make_record(chain), environment={})
    assert [tier.reserved for tier in revision.embedding_tiers] == [0.2, 0]


async def test_w47_vectors_stay_with_stable(gateways: Gateways, target: ExactTarget, other_target: ExactTarget, api: TrafficApi) -> None:
    stable = make_record([embedding_tier(target, name="a", model="e-1")])
    canary = make_record([embedding_tier(other_target, name="a", model="e-2")])
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=1000))
    gateway = await gateways.start(stable, api=api)
    await gateways.start(canary, api=api)
    await gateway.acts_on(1)
    target.says(VECTORS)
    other_target.says(b'{"choices":[{"index":0,"message":{"content":"From the canary."}}]}')
    got = await gateway.post(ASKED, path=PATH)
    assert (got.body, got.said("track")) == (VECTORS, "stable")
    assert (await gateway.chat()).said("track") == "canary"
    assert not any(seen.path == PATH for seen in other_target.seen)


async def test_vectors_are_offered_where_a_tier_has_them(gateways: Gateways, target: ExactTarget) -> None:
    gateway = await gateways.start(make_record([embedding_tier(target, name="a", model=None)]))
    got = await gateway.post(ASKED, path=PATH)
    assert (got.status, got.json["error"]["code"]) == (404, "not_found")
    gateway = await gateways.start(make_record([embedding_tier(target, name="a", model="e-1")]))
    for body, param in ((b"{}", "input"), (b'{"input":null}', "input"), (b"[]", None), (b'{"input":', None)):
        got = await gateway.post(body, path=PATH)
        assert (got.status, got.json["error"]["param"]) == (400, param)
    async with gateway.http.get(f"http://{gateway.address}/v1/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["chat-a", "e-1"]
    assert not target.seen
