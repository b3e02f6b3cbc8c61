"""The chain over real sockets: deadlines, hand-offs, what passes back, and how streams end."""

import asyncio
import json
import time

import aiohttp
import pytest
from aiohttp import web

from e2e.fakemodel.script import Fault, Rule

from .harness import NOBODY, USER, Gateways, Model, answering, eventually, listening, make_record, model_tier, static_tier


async def test_an_answer_passes_through_and_says_who_gave_it(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url), static_tier()]))
    got = await gateway.chat()
    assert (got.status, got.text) == (200, "All is well.")
    assert got.json["model"] == "m1"
    said = {name: got.said(name) for name in ("policy", "revision", "prompt-version", "track", "tier", "model", "attempts", "hand-offs")}
    assert said == {
        "policy": "support",
        "revision": gateway.revision,
        "prompt-version": "support-1",
        "track": "stable",
        "tier": "primary",
        "model": "m1",
        "attempts": "1",
        "hand-offs": "0",
    }
    assert got.said("reason") is None
    assert got.said("request-id")
    assert float(got.said("overhead-ms") or "nan") >= 0


async def test_a_stream_passes_through_byte_for_byte(model: Model, gateways: Gateways, http: aiohttp.ClientSession) -> None:
    model.script(Rule(text="Grüße, 世界 🎉 and more", line_end="\r\n", slice_bytes=7))
    gateway = await gateways.start(make_record([model_tier(model.url)]))
    got = await gateway.chat(stream=True)
    async with http.post(f"http://{model.url}/v1/chat/completions", json={"model": "m1", "stream": True, "messages": [USER]}) as response:
        assert got.body == await response.read()
    assert got.text == "Grüße, 世界 🎉 and more"
    assert got.headers["Content-Type"].startswith("text/event-stream")


async def test_w06_first_token_too_late_streams_the_next_tier(model: Model, other_model: Model, gateways: Gateways) -> None:
    model.script(Rule(latency_milliseconds=20_000))
    other_model.script(Rule(text="From the second."))
    gateway = await gateways.start(
        make_record(
            [model_tier(model.url, firstTokenMilliseconds=100), model_tier(other_model.url, name="second", model="m2")], budget=3000
        )
    )
    got = await gateway.chat(stream=True)
    assert (got.status, got.text, got.is_done) == (200, "From the second.", True)
    assert (got.said("tier"), got.said("model"), got.said("reason"), got.said("first-tier")) == ("second", "m2", "LatencyBreach", "late")
    assert await gateway.total("backstop_handoffs_total", **{"from": "primary", "to": "second", "failure_mode": "LatencyBreach"}) == 1


async def test_w07_a_chain_of_slow_targets_ends_inside_the_budget_with_the_static_answer(model: Model, gateways: Gateways) -> None:
    model.script(Rule(fault=Fault.HANG))
    chain = [model_tier(model.url, firstTokenMilliseconds=300), model_tier(model.url, name="second"), static_tier("Later, please.")]
    gateway = await gateways.start(make_record(chain, budget=600))
    began = time.monotonic()
    got = await gateway.chat()
    took = time.monotonic() - began
    assert (got.status, got.text, got.json["model"]) == (200, "Later, please.", "backstop/static")
    assert got.json["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert (got.said("attempts"), got.said("hand-offs")) == ("2", "2")
    assert took > 0.5, "the second tier had what the budget left after the first"
    assert took < 0.6 + 1.0, "the budget, and a second for a busy machine"


async def test_an_unset_first_token_time_leaves_the_later_tiers_theirs(model: Model, other_model: Model, gateways: Gateways) -> None:
    model.script(Rule(fault=Fault.HANG))
    other_model.script(Rule(latency_milliseconds=150, text="In time."))
    chain = [model_tier(model.url), model_tier(other_model.url, name="second", firstTokenMilliseconds=1500)]
    got = await (await gateways.start(make_record(chain, budget=2000))).chat()
    assert (got.status, got.text, got.said("tier")) == (200, "In time.", "second")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 422])
async def test_w09_errors_of_the_callers_making_pass_back_unchanged(
    model: Model, other_model: Model, gateways: Gateways, status: int, stream: bool
) -> None:
    said = '{ "error": {"message":"too many  spaces", "odd": 1.50} }'
    model.script(Rule(error_percent=100, error_status=status, error_body=said))
    gateway = await gateways.start(
        make_record([model_tier(model.url), model_tier(other_model.url, name="second", firstTokenMilliseconds=9), static_tier()])
    )
    got = await gateway.chat(stream=stream)
    assert (got.status, got.body) == (status, said.encode())
    assert other_model.fake.total == 0
    # A model or an address that is not known is not the caller's doing: it goes back unchanged, and counts against the revision.
    assert await gateway.total("backstop_served_total", outcome="error" if status == 404 else "caller_error") == 1
    assert await gateway.total("backstop_handoffs_total") == 0


@pytest.mark.parametrize(
    "content_type", [b"application/json; a=\xe4\xb8\xad", b"application/json; a=\xff", b"application/\x01json", b"application/json\x7f"]
)
async def test_an_error_passes_back_whatever_its_content_type_is_spelled_with(gateways: Gateways, content_type: bytes) -> None:
    said = b'{"error":{"message":"no"}}'
    async with answering(
        b"HTTP/1.1 400 Bad\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (content_type, len(said), said)
    ) as address:
        gateway = await gateways.start(make_record([model_tier(address, model="m\r\nx: 1")]))
        got = await gateway.chat()
    assert (got.status, got.body, got.headers["Content-Type"][:11]) == (400, said, "application")
    assert "x" not in got.headers
    assert await gateway.total("backstop_served_total", outcome="caller_error") == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_w10_a_refused_key_takes_the_target_out_until_one_request_has_tried_it_again(
    model: Model, other_model: Model, gateways: Gateways, status: int
) -> None:
    later = 0.0
    model.script(Rule(error_percent=100, error_status=status, error_body='{"error":{"message":"Incorrect API key sk-123"}}'))
    other_model.script(Rule(text="From the second."))
    chain = [model_tier(model.url, key=True, firstTokenMilliseconds=2000), model_tier(other_model.url, name="second")]
    gateway = await gateways.start(make_record(chain), keys={"BACKSTOP_API_KEY_0": "sk-123"}, clock=lambda: time.monotonic() + later)
    first, second = await gateway.chat(), await gateway.chat()
    assert [(got.status, got.text, got.said("reason")) for got in (first, second)] == [(200, "From the second.", "DependencyFailure")] * 2
    assert (first.said("first-tier"), second.said("first-tier")) == ("failed", "failed")
    assert model.fake.total == 1, "the second request did not go to the target that is out"
    assert await gateway.total("backstop_target_up", target="primary") == 0
    assert await gateway.total("backstop_target_up", target="second") == 1

    later = 31.0
    model.script(Rule(text="Back.", latency_milliseconds=200))
    together = await asyncio.gather(*(gateway.chat() for _ in range(5)))
    assert sorted(got.text for got in together) == ["Back."] + ["From the second."] * 4, (
        "one request tries it, the others do not wait for it"
    )
    assert (await gateway.chat()).text == "Back."
    assert await gateway.total("backstop_target_up", target="primary") == 1


async def test_w46_the_targets_key_and_trace_headers_go_upstream_and_the_callers_key_does_not(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(make_record([model_tier(model.url, key=True)]), keys={"BACKSTOP_API_KEY_0": "sk-own\n"})
    headers = {"Authorization": "Bearer caller", "traceparent": "00-aa-bb-01", "tracestate": "x=1", "x-other": "1", "Cookie": "a=b"}
    assert (await gateway.chat(headers=headers)).status == 200
    sent = model.fake.requests[-1]["headers"]
    assert (sent["Authorization"], sent["traceparent"], sent["tracestate"]) == ("Bearer sk-own", "00-aa-bb-01", "x=1")
    assert not {"x-other", "Cookie"} & sent.keys()
    await gateway.chat(headers={"traceparent": "00-aa-bb-01", "tracestate": "x=" + "1" * 510})
    assert len(model.fake.requests[-1]["headers"]["tracestate"]) == 512
    await gateway.chat(headers={"traceparent": "0" * 513, "tracestate": "x=" + "1" * 511})
    assert not {"traceparent", "tracestate"} & model.fake.requests[-1]["headers"].keys(), "what is longer is dropped"


@pytest.mark.parametrize(
    ("rule", "mode"),
    [
        (Rule(error_percent=100, error_status=500), "DependencyFailure"),
        (Rule(error_percent=100, error_status=302), "DependencyFailure"),
        (Rule(error_percent=100, error_status=429), "ResourceExhaustion"),
        (Rule(error_percent=100, error_status=503), "ResourceExhaustion"),
        (Rule(fault=Fault.RESET), "DependencyFailure"),
        (Rule(fault=Fault.MALFORMED), "MalformedAnswer"),
        (Rule(fault=Fault.ERROR_BODY), "MalformedAnswer"),
        (Rule(fault=Fault.EMPTY), "MalformedAnswer"),
        (Rule(fault=Fault.HANG), "LatencyBreach"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_w14_every_failure_before_content_hands_off_with_its_mode(
    model: Model, gateways: Gateways, rule: Rule, mode: str, stream: bool
) -> None:
    model.script(rule)
    time_enough = 300 if rule.fault is Fault.HANG else 4000
    gateway = await gateways.start(make_record([model_tier(model.url, firstTokenMilliseconds=time_enough), static_tier()]))
    got = await gateway.chat(stream=stream)
    assert (got.status, got.text, got.said("tier"), got.said("reason")) == (200, "Not now.", "static", mode)
    assert model.fake.total == 1
    assert await gateway.total("backstop_attempts_total", target="primary", outcome=mode) == 1
    first = "late" if mode == "LatencyBreach" else "failed"
    assert await gateway.total("backstop_served_total", outcome="success", first_tier=first) == 1
    assert await gateway.total("backstop_served_seconds_count", first_tier=first) == 1


async def test_w15_a_role_chunk_is_no_content(model: Model, gateways: Gateways) -> None:
    model.script(Rule(fault=Fault.ROLE_ONLY))
    gateway = await gateways.start(make_record([model_tier(model.url, firstTokenMilliseconds=200), static_tier()]))
    got = await gateway.chat(stream=True, stream_options={"include_usage": True})
    assert (got.text, got.is_done, got.said("reason")) == ("Not now.", True, "LatencyBreach")
    assert [event["model"] for event in got.events] == ["backstop/static"] * 4, "nothing of the first tier's stream is in it"
    assert got.events[-1]["usage"]["total_tokens"] == 0


async def test_a_target_that_nobody_listens_at_hands_off(gateways: Gateways) -> None:
    got = await (await gateways.start(make_record([model_tier(NOBODY), static_tier()]))).chat()
    assert (got.text, got.said("reason")) == ("Not now.", "DependencyFailure")


async def test_w16_a_cut_stream_ends_with_an_error_event_and_without_done(model: Model, gateways: Gateways) -> None:
    model.script(Rule(tokens=60, fault=Fault.CUT, cut_after_tokens=40))
    gateway = await gateways.start(make_record([model_tier(model.url, firstTokenMilliseconds=3000), static_tier()]))
    got = await gateway.chat(stream=True)
    assert got.text.split() == [f"t{n}" for n in range(40)]
    assert (got.status, got.is_done, got.events[-1]["error"]["code"]) == (200, False, "stream_interrupted")
    assert await gateway.total("backstop_served_total", outcome="truncated", first_tier="answered") == 1
    assert await gateway.total("backstop_requests_total", outcome="truncated", tier="primary") == 1


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.UNFINISHED, Fault.GARBAGE])
async def test_w17_w18_silence_an_early_end_and_garbage_in_a_stream_are_truncations(model: Model, gateways: Gateways, fault: Fault) -> None:
    model.script(Rule(tokens=30, fault=fault, cut_after_tokens=20))
    gateway = await gateways.start(make_record([model_tier(model.url, stallMilliseconds=1000)]))
    got = await gateway.chat(stream=True)
    assert got.text.split() == [f"t{n}" for n in range(20)]
    assert (got.is_done, "error" in got.events[-1]) == (False, True)
    assert await gateway.total("backstop_served_total", outcome="truncated") == 1


async def test_w19_a_missing_done_is_added(model: Model, gateways: Gateways) -> None:
    model.script(Rule(fault=Fault.NO_DONE))
    gateway = await gateways.start(make_record([model_tier(model.url)]))
    got = await gateway.chat(stream=True)
    assert (got.text, got.is_done) == ("All is well.", True)
    assert await gateway.total("backstop_served_total", outcome="success") == 1


async def test_a_caller_has_the_end_of_its_stream_before_a_target_that_keeps_its_own_open(gateways: Gateways) -> None:
    """The target ends its stream when the caller has the end: who waits for the target first gives up, and makes another connection."""
    has_end, connections = asyncio.Event(), []

    async def ends_late(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        connections.append(request.transport.get_extra_info("peername"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        delta = {"index": 0, "delta": {"content": "Fine."}, "finish_reason": "stop"}
        await response.write(b"data: " + json.dumps({"choices": [delta]}).encode() + b"\n\ndata: [DONE]\n\n")
        await has_end.wait()
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", ends_late)
    async with listening(app) as url:
        gateway = await gateways.start(make_record([model_tier(url)]))
        for number in (1, 2):
            assert (await gateway.chat(stream=True)).is_done
            has_end.set()

            async def counted(number: int = number) -> bool:
                return await gateway.total("backstop_served_total", outcome="success") == number

            await eventually(counted)
    assert len(connections) == 2
    assert connections[0] == connections[1]


async def test_w22_every_piece_of_a_stream_is_passed_on_when_it_comes(gateways: Gateways, http: aiohttp.ClientSession) -> None:
    """The next token leaves the model when its caller has the one before: whoever holds one back holds up the stream."""
    seen = [asyncio.Event() for _ in range(20)]

    async def one_by_one(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number, event in enumerate(seen):
            delta = {"index": 0, "delta": {"content": f"t{number} "}, "finish_reason": None}
            await response.write(b"data: " + json.dumps({"choices": [delta]}).encode() + b"\n\n")
            await event.wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", one_by_one)
    async with listening(app) as url:
        gateway = await gateways.start(make_record([model_tier(url, stallMilliseconds=60_000)], budget=90_000))
        body = {"messages": [USER], "stream": True}
        async with asyncio.timeout(30), http.post(f"http://{gateway.address}/v1/chat/completions", json=body) as response:
            text = b""
            for number, event in enumerate(seen):
                while f"t{number} ".encode() not in text:
                    text += await response.content.readany()
                event.set()
            assert (await response.content.read()).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("leaves", ["before an answer", "before a stream", "before its first content", "in a stream"])
async def test_w24_a_caller_that_leaves_takes_the_upstream_call_with_it(
    model: Model, gateways: Gateways, http: aiohttp.ClientSession, leaves: str
) -> None:
    rules = {"in a stream": Rule(tokens=100, token_interval_milliseconds=50), "before its first content": Rule(fault=Fault.ROLE_ONLY)}
    model.script(rules.get(leaves, Rule(latency_milliseconds=60_000)))
    gateway = await gateways.start(make_record([model_tier(model.url)], budget=90_000))
    body = {"messages": [USER], "stream": leaves != "before an answer"}
    if leaves == "in a stream":
        response = await http.post(f"http://{gateway.address}/v1/chat/completions", json=body)
        await response.content.readany()
        response.close()
    else:
        with pytest.raises(TimeoutError):
            await http.post(f"http://{gateway.address}/v1/chat/completions", json=body, timeout=aiohttp.ClientTimeout(total=0.3))

    async def cancelled() -> bool:
        return model.fake.cancelled == 1 and await gateway.total("backstop_served_total", outcome="cancelled") == 1

    await eventually(cancelled, within=1)
    assert await gateway.total("backstop_served_total") == 1
    assert (await gateway.status())["inFlight"] == 0


async def test_w13_an_exhausted_chain_gives_the_first_targets_error_class(model: Model, other_model: Model, gateways: Gateways) -> None:
    model.script(Rule(error_percent=100, error_status=429))
    other_model.script(Rule(error_percent=100, error_status=500))
    chain = [model_tier(model.url, firstTokenMilliseconds=1000), model_tier(other_model.url, name="second")]
    gateway = await gateways.start(make_record(chain))
    got = await gateway.chat()
    assert (got.status, got.json["error"]["code"], got.headers["x-should-retry"]) == (429, "ResourceExhaustion", "false")
    assert await gateway.total("backstop_served_total", outcome="error", first_tier="failed") == 1


async def test_a_target_on_a_metadata_address_is_never_connected_to(model: Model, gateways: Gateways) -> None:
    import socket

    from backstop.gateway.gateway import guarded_socket

    for forbidden in ("169.254.169.254", "::ffff:169.254.169.254", "fe80::1%lo", "fd00:ec2::254"):
        family = socket.AF_INET6 if ":" in forbidden else socket.AF_INET
        with pytest.raises(OSError, match="metadata"):
            guarded_socket((family, socket.SOCK_STREAM, 0, "", (forbidden, 80)))
    with guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))) as allowed:
        assert allowed.fileno() >= 0


async def test_a_redirect_is_not_followed(model: Model, other_model: Model, gateways: Gateways) -> None:
    from aiohttp import web

    async def redirect(_: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"http://{other_model.url}/v1/chat/completions")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", redirect)
    async with listening(app) as address:
        gateway = await gateways.start(make_record([model_tier(address), static_tier()]))
        assert (await gateway.chat()).text == "Not now."
    assert other_model.fake.total == 0
