"""Who serves, and who counts: the entry hop over real gateways, a real model and a real traffic watch."""

import asyncio
from pathlib import Path
from random import Random

import aiohttp
import pytest

from backstop.api.metricnames import JUDGED_OUTCOMES, FirstTier
from backstop.api.record import RevisionRecord
from backstop.gateway.connection import HEADER_COST, MAX_HEADER_BYTES
from e2e.fakemodel.script import Fault, Rule

from .harness import (
    USER,
    Gateway,
    Gateways,
    Model,
    TrafficApi,
    answering,
    eventually,
    gateway_process,
    make_record,
    model_tier,
    state,
    static_tier,
)

HOP = "x-backstop-hop"


async def _served(entry: Gateway, revision: str, **labels: str) -> float:
    return await entry.total("backstop_served_total", revision=revision, **labels)


async def test_the_canary_gets_exactly_the_share_that_chance_gives_it_and_the_entry_counts_each_request_once(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=250))
    entry = await gateways.start(stable, api=api, seed=11)
    behind = await gateways.start(canary, api=api)
    await entry.acts_on(3)
    await behind.acts_on(3)
    answers = [await entry.chat() for _ in range(200)]
    expected = Random(11)
    drawn = ["canary" if expected.random() * 1000 < 250 else "stable" for _ in range(200)]
    assert [got.said("track") for got in answers] == drawn
    share = drawn.count("canary")
    assert 30 < share < 70
    assert {got.said("revision") for got in answers if got.said("track") == "canary"} == {canary.revision}
    assert await _served(entry, canary.revision, outcome="success", first_tier="answered") == share
    assert await _served(entry, stable.revision, outcome="success", first_tier="answered") == 200 - share
    assert await entry.total("backstop_served_seconds_count") == 200
    assert await entry.total("backstop_sent_total", revision=canary.revision) == share
    assert await entry.total("backstop_sent_total", revision=stable.revision) == 200 - share
    assert await entry.total("backstop_split_total", to="canary", reason="share") == share
    assert await behind.total("backstop_served_total") == 0, "the canary pod serves, the entry counts"
    assert await behind.total("backstop_requests_total", track="canary", outcome="success") == share


async def test_t06_a_canary_declines_what_an_old_view_sends_and_the_caller_is_served_by_stable(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord, model: Model
) -> None:
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry = await gateways.start(stable, api=api, reread_seconds=3600)

    async def watching() -> bool:
        return api.watches == 1

    await eventually(watching)
    api.mute = True  # the entry's watch is silently dead
    api.write(state(4, stable=stable.revision, canary=canary.revision, permille=0, aborted=canary.revision))
    declining = await gateways.start(canary, api=api)
    assert (await declining.status())["generation"] == 4
    assert (await entry.status())["generation"] == 3
    got = await entry.chat()
    assert (got.status, got.said("track"), got.said("revision")) == (200, "stable", stable.revision)
    assert await entry.total("backstop_split_total", to="self", reason="declined") == 1
    assert await _served(entry, stable.revision, outcome="success") == 1
    assert await _served(entry, canary.revision) == 0
    assert model.fake.total == 1, "the canary declined before it asked a model"


@pytest.mark.parametrize(
    ("target", "permille", "aborted", "status"),
    [
        ("canary", 100, False, 200),
        ("canary", 0, False, 421),
        ("canary", 100, True, 421),
        ("stable", 100, False, 421),
        ("other", 100, False, 421),
    ],
)
async def test_a_forwarded_request_is_taken_only_by_the_named_revision_while_it_has_a_share(
    gateways: Gateways,
    api: TrafficApi,
    stable: RevisionRecord,
    canary: RevisionRecord,
    target: str,
    permille: int,
    aborted: bool,
    status: int,
) -> None:
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=permille, aborted=canary.revision if aborted else None))
    pod = await gateways.start(canary, api=api)
    named = {"canary": canary.revision, "stable": stable.revision, "other": "0000000000"}[target]
    assert (await pod.chat(headers={HOP: named})).status == status
    assert await pod.total("backstop_served_total") == 0


async def test_421_comes_before_the_body_is_read(gateways: Gateways, stable: RevisionRecord) -> None:
    pod = await gateways.start(stable)
    host, _, port = pod.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\nx-backstop-hop: other\r\n\r\n"
    )
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 421")
    writer.close()
    await writer.wait_closed()


async def test_a_request_that_nobody_takes_a_connection_for_is_served_by_the_entry(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry = await gateways.start(stable, api=api)
    await entry.acts_on(3)
    got = await entry.chat()
    assert (got.status, got.said("track")) == (200, "stable")
    assert await entry.total("backstop_split_total", to="self", reason="connect_failed") == 1
    assert await entry.total("backstop_sent_total", revision=canary.revision) == 0
    assert await _served(entry, stable.revision, outcome="success") == 1


@pytest.mark.long
async def test_a_canary_that_is_killed_in_mid_answer_is_counted_as_its_error(
    gateways: Gateways,
    api: TrafficApi,
    stable: RevisionRecord,
    canary: RevisionRecord,
    model: Model,
    http: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    model.script(Rule(match="canary", latency_milliseconds=60_000))
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry = await gateways.start(stable, api=api)
    await entry.acts_on(3)
    async with gateway_process(canary, http=http, folder=tmp_path) as process:
        gateways.peers[canary.revision] = process.gateway.address
        asking = asyncio.create_task(entry.chat())
        await eventually(_asked(model))
        process.kill()
        got = await asking
    assert (got.status, got.said("track"), got.said("revision")) == (502, "canary", canary.revision)
    assert await _served(entry, canary.revision, outcome="error") == 1
    assert await _served(entry, stable.revision) == 0
    assert await entry.total("backstop_sent_total", revision=canary.revision) == 1
    assert model.fake.total == 1, "the request was not served a second time"


@pytest.mark.long
async def test_a_canary_that_is_killed_in_mid_stream_ends_the_stream_with_an_error_event(
    gateways: Gateways,
    api: TrafficApi,
    stable: RevisionRecord,
    canary: RevisionRecord,
    model: Model,
    http: aiohttp.ClientSession,
    tmp_path: Path,
) -> None:
    model.script(Rule(match="canary", tokens=1000, token_interval_milliseconds=20))
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry = await gateways.start(stable, api=api)
    await entry.acts_on(3)
    async with gateway_process(canary, http=http, folder=tmp_path) as process:
        gateways.peers[canary.revision] = process.gateway.address
        async with (
            asyncio.timeout(10),
            http.post(f"http://{entry.address}/v1/chat/completions", json={"messages": [USER], "stream": True}) as response,
        ):
            seen = await response.content.readany()
            process.kill()
            seen += await response.read()
    assert (response.status, response.headers["x-backstop-track"]) == (200, "canary")
    assert seen.rstrip().splitlines()[-1].startswith(b'data: {"error":')
    assert b"[DONE]" not in seen
    assert await _served(entry, canary.revision, outcome="truncated") == 1
    assert await _served(entry, canary.revision) == 1


def _asked(model: Model):  # type: ignore[no-untyped-def]  # a local one-liner
    async def look() -> bool:
        return model.fake.total > 0

    return look


async def test_what_became_of_the_canarys_first_tier_is_counted_by_the_entry(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, model: Model
) -> None:
    model.script(Rule(match="canary", fault=Fault.HANG))
    canary = make_record([model_tier(model.url, firstTokenMilliseconds=100), static_tier("Canned.")], prompt="You are the canary prompt.")
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry = await gateways.start(stable, api=api)
    await gateways.start(canary, api=api)
    await entry.acts_on(3)
    for stream in (False, True):
        got = await entry.chat(stream=stream)
        assert (got.text, got.said("tier"), got.said("first-tier"), got.said("reason")) == ("Canned.", "static", "late", "LatencyBreach")
        assert got.said("budget-ms") is None
    assert await _served(entry, canary.revision, outcome="success", first_tier="late") == 2


@pytest.mark.parametrize(("status", "outcome"), [(400, "caller_error"), (500, "error")])
async def test_the_canarys_errors_are_told_as_they_are(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord, model: Model, status: int, outcome: str
) -> None:
    model.script(Rule(match="canary", error_percent=100, error_status=status))
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry = await gateways.start(stable, api=api)
    await gateways.start(canary, api=api)
    await entry.acts_on(3)
    got = await entry.chat()
    assert (got.status, got.said("track")) == (400 if status == 400 else 502, "canary")
    assert await _served(entry, canary.revision, outcome=outcome) == 1
    assert await _served(entry, canary.revision) == 1


async def test_a_head_that_only_the_canary_finds_too_long_is_the_callers_doing(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry = await gateways.start(stable, api=api)
    await gateways.start(canary, api=api)
    await entry.acts_on(3)
    host, _, port = entry.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = b'{"messages":[{"role":"user","content":"Hello"}]}'
    start = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nx-backstop-var-a: " % len(body)
    writer.write(
        start + b"a" * (MAX_HEADER_BYTES - 3 * HEADER_COST - len(start) - 16) + b"\r\n\r\n" + body
    )  # the entry adds headers of its own
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert b"x-backstop-track: canary" in head
    assert await _served(entry, canary.revision, outcome="caller_error") == 1
    assert await _served(entry, canary.revision) == 1
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@pytest.mark.parametrize(
    ("status", "head", "outcome"),
    [
        (429, b"Retry-After: 1\r\nx-backstop-reason: Overload", "refused"),
        (503, b"Retry-After: 1\r\nx-backstop-reason: Overload", "refused"),
        (429, b"Retry-After: 1\r\nx-backstop-reason: ResourceExhaustion\r\nx-backstop-first-tier: failed", "error"),
        (429, b"Retry-After: 1", "error"),
    ],
)
async def test_a_canary_without_room_is_not_a_canary_whose_model_has_none(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord, status: int, head: bytes, outcome: str
) -> None:
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry = await gateways.start(stable, api=api)
    await entry.acts_on(3)
    async with answering(b"HTTP/1.1 %d Not Now\r\n%s\r\nContent-Length: 2\r\n\r\n{}" % (status, head)) as address:
        gateways.peers[canary.revision] = address
        got = await entry.chat()
    assert (got.status, got.said("track"), got.headers["Retry-After"]) == (status, "canary", "1")
    assert await _served(entry, canary.revision, outcome=outcome) == 1
    assert await _served(entry, canary.revision) == 1
    assert await entry.total("backstop_sent_total", revision=canary.revision) == 1, "it was sent: a canary that only refuses shows here"


@pytest.mark.parametrize(
    ("head", "status", "outcome"),
    [
        (
            b"200 OK\r\nContent-Type: text/plain; a=\xe4\xb8\xad\r\nx-backstop-model: \xe4\xb8\xad\x01\r\nx-backstop-tier: ok",
            200,
            "success",
        ),
        (b"200 OK\r\nContent-Type: text/\x7fplain\r\nRetry-After: \x02\r\nx-backstop-tier: ok", 200, "success"),
        (b"999 What\r\nx-backstop-tier: ok", 502, "error"),
    ],
)
async def test_a_peers_answer_is_relayed_whatever_its_head_is_spelled_with(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord, head: bytes, status: int, outcome: str
) -> None:
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry = await gateways.start(stable, api=api)
    await entry.acts_on(3)
    async with answering(b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\n{}" % head) as address:
        gateways.peers[canary.revision] = address
        got = await entry.chat()
    assert (got.status, got.said("track")) == (status, "canary")
    if status == 200:
        assert (got.body, got.said("tier")) == (b"{}", "ok")
    assert await _served(entry, canary.revision, outcome=outcome) == 1


async def test_a_pod_that_is_neither_forwards_everything_to_stable_and_closes_the_connection(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    api.write(state(9, stable=canary.revision, canary=None))
    old = await gateways.start(stable, api=api)
    new = await gateways.start(canary, api=api)
    await old.acts_on(9)
    assert ((await old.status())["role"], (await new.status())["role"]) == ("neither", "stable")
    for _ in range(5):
        got = await old.chat()
        assert (got.status, got.said("revision"), got.said("track")) == (200, canary.revision, "stable")
        assert got.headers["Connection"] == "close"
    assert await old.total("backstop_split_total", to="stable", reason="older_revision") == 5
    assert await _served(old, canary.revision, outcome="success") == 5
    assert await _served(old, stable.revision) == 0


@pytest.mark.parametrize("aborted", [False, True], ids=["without a share", "rolled back"])
async def test_a_canary_that_lost_its_promotion_forwards_its_open_connections_to_stable_where_they_count(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord, aborted: bool
) -> None:
    api.write(state(8, stable=canary.revision, canary=None))
    lost, serving = await gateways.start(canary, api=api), await gateways.start(stable, api=api)
    await lost.acts_on(8)
    assert (await lost.chat()).said("revision") == canary.revision
    api.write(state(9, stable=stable.revision, canary=canary.revision, permille=0, aborted=canary.revision if aborted else None))
    for gateway in (lost, serving):
        await gateway.acts_on(9)
    for _ in range(5):
        got = await lost.chat()
        assert (got.status, got.said("revision"), got.said("track")) == (200, stable.revision, "stable")
        assert got.headers["Connection"] == "close"
    assert await lost.total("backstop_split_total", to="stable", reason="no_share") == 5
    assert await _served(lost, stable.revision, outcome="success") == 5


async def test_a_promotion_under_traffic_refuses_no_request(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=500))
    old, new = await gateways.start(stable, api=api), await gateways.start(canary, api=api)
    await old.acts_on(1)
    promoted = asyncio.Event()

    async def call() -> list[tuple[int, str | None]]:
        seen = []
        while not promoted.is_set():
            got = await old.chat()
            seen.append((got.status, got.said("revision")))
        return seen

    callers = [asyncio.create_task(call()) for _ in range(4)]
    api.write(state(2, stable=canary.revision, canary=None))
    await old.acts_on(2)
    await new.acts_on(2)
    promoted.set()
    seen = [one for caller in callers for one in await caller]
    assert seen
    assert {status for status, _ in seen} == {200}
    assert (await old.chat()).said("revision") == canary.revision


async def test_an_aborted_canary_gets_nothing(gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord) -> None:
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000, aborted=canary.revision))
    entry = await gateways.start(stable, api=api)
    await gateways.start(canary, api=api)
    await entry.acts_on(3)
    assert {(await entry.chat()).said("track") for _ in range(5)} == {"stable"}
    assert (await entry.status())["aborted"]["revision"] == canary.revision


async def test_a_canary_pod_serves_what_a_router_sends_it_and_counts_it(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=100))
    pod = await gateways.start(canary, api=api)
    got = await pod.chat()
    assert (got.status, got.said("track"), got.said("revision")) == (200, "canary", canary.revision)
    assert await _served(pod, canary.revision, outcome="success") == 1


async def test_a_named_canarys_series_are_there_before_its_first_request(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=0))
    entry = await gateways.start(stable, api=api)
    await entry.acts_on(3)
    samples = await entry.metrics()
    served = {
        (labels["outcome"], labels["first_tier"]): value
        for labels, value in samples["backstop_served_total"]
        if labels["revision"] == canary.revision
    }
    for outcome in JUDGED_OUTCOMES:
        for first in FirstTier:
            assert served[outcome.value, first.value] == 0
    assert {labels["first_tier"] for labels, _ in samples["backstop_served_seconds_count"] if labels["revision"] == canary.revision} == set(
        FirstTier
    )
    assert canary.revision in {labels["revision"] for labels, _ in samples["backstop_sent_total"]}


async def test_series_of_revisions_long_gone_are_dropped(gateways: Gateways, api: TrafficApi, stable: RevisionRecord) -> None:
    api.write(state(1, stable=stable.revision))
    entry = await gateways.start(stable, api=api)
    for generation in range(2, 32):
        api.write(state(generation, stable=stable.revision, canary=f"c{generation:09d}", permille=0))
        await entry.acts_on(generation)
    revisions = {labels["revision"] for labels, _ in (await entry.metrics())["backstop_sent_total"]}
    assert stable.revision in revisions
    assert "c000000031" in revisions
    assert len(revisions) == 8
