"""The Prometheus source against servers on real sockets that do not behave."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace

import pytest

from backstop.analysis.objective import objective_of
from backstop.analysis.policy import LivePolicy
from backstop.analysis.prometheus import OWN_THREADS, THREADS, PrometheusSource
from backstop.analysis.queries import MetricsSourceConfig
from backstop.analysis.samples import Partial, ProviderError, Sample
from backstop.analysis.source import fetched_by_batch
from backstop.analysis.state import AnalysisState
from backstop.api.fallbackpolicy import SLO, PromQL
from tests.analysis.history import errors_objective, live_policy

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
DEEP = b"[" * 100_000 + b"]" * 100_000  # Python bears a thousand levels of it, or from 3.13 on ten thousand
EMPTY = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": []}}).encode()


def response(body: bytes, *, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n".encode() + body


def says(answer: bytes) -> Answer:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return handle


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()  # until the client gives up


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A header line now and then: no single read ever waits long."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(60):
        if reader.at_eof() or writer.is_closing():
            return
        writer.write(b"X-Wait: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server on a free port of the loopback → its URL, and one entry for each connection it took."""
    taken: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(b"")
        try:
            await answer(reader, writer)
        except ConnectionError:
            pass  # the client has given up, as it should
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", taken
    finally:
        server.close()


def source_at(url: str, *, name: str = "default", deadline_seconds: float = 5.0, largest_bytes: int = 1024 * 1024) -> PrometheusSource:
    config = MetricsSourceConfig(name=name, url=url, scrape_interval_seconds=5.0)
    return PrometheusSource(config, deadline_seconds=deadline_seconds, largest_bytes=largest_bytes)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (says(response(b"<html>Sign in</html>", kind="text/html")), "answered with something that is not a Prometheus answer"),
        (says(response(b'{"status":"error"}', status="503 Service Unavailable")), "answered with HTTP status 503"),
        (says(response(b"", status="302 Found", more="Location: http://127.0.0.1:1/\r\n")), "answered with HTTP status 302"),
        (says(response(b'{"status":"success","data":{"resultType":"vector","result":[]}}')), "answered with a 'vector'"),
        (says(response(DEEP)), "answered with something that is not a Prometheus answer"),
        (
            says(response(b'{"status":"success","data":{"resultType":"matrix","result":' + DEEP + b"}}")),
            "answered with something that is not a Prometheus answer",
        ),
        (says(response(b" " * (1024 * 1024 + 1))), "answered with more than 1 MiB"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"), "broke off its answer"),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "could not be reached"),
        (says(b""), "could not be reached"),
    ],
)
async def test_each_misbehaviour_is_an_error_of_the_provider_after_one_attempt(answer: Answer, said: str) -> None:
    async with serving(answer) as (url, taken):
        with closing(source_at(url)) as source:
            result = await source.query("up[5s]")
    assert isinstance(result, ProviderError)
    assert result.sentence.startswith(f"Metrics source `default` {said}")
    assert len(taken) == 1


@pytest.mark.parametrize("answer", [silence, drip])
async def test_a_server_that_never_comes_to_an_end_is_given_up_at_the_deadline(answer: Answer) -> None:
    async with serving(answer) as (url, _):
        with closing(source_at(url, deadline_seconds=0.3)) as source:
            result = await source.query("up[5s]")
    assert result == ProviderError("Metrics source `default` did not answer within 0.3 s.")


async def test_a_server_that_dripped_its_answers_is_heard_again_when_it_is_well() -> None:
    well = asyncio.Event()

    async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if well.is_set():
            writer.write(response(EMPTY))
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
        while not reader.at_eof():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(drips) as (url, _):
        with closing(source_at(url, deadline_seconds=0.5)) as source:
            for _ in range(2 * THREADS):
                assert isinstance(await source.query("up[5s]"), ProviderError)
            well.set()
            assert await source.query("up[5s]") == []


async def test_a_query_s_own_deadline_begins_when_it_is_asked() -> None:
    async with serving(silence) as (url, taken):
        with closing(source_at(url, deadline_seconds=0.5)) as source:
            results = await asyncio.gather(*(source.query("up[5s]") for _ in range(2 * THREADS)))
    asked, waited = "did not answer within 0.5 s", "was not asked: the query waited 0.5 s for others"
    assert len(taken) >= [asked in str(result) for result in results].count(True) >= THREADS
    assert all(asked in str(result) or waited in str(result) for result in results)


async def test_the_gateways_metrics_wait_for_no_selector_of_an_author() -> None:
    async def answers_the_gateways(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"slow" in await reader.readuntil(b"\r\n\r\n"):
            await reader.read()
        writer.write(response(EMPTY))
        await writer.drain()

    async with serving(answers_the_gateways) as (url, taken):
        with closing(source_at(url, deadline_seconds=60.0)) as source:
            slow = [asyncio.create_task(source.query("slow[5s]", own=True)) for _ in range(2 * OWN_THREADS)]
            while len(taken) < OWN_THREADS:  # noqa: ASYNC110 - what the server has taken is no event
                await asyncio.sleep(0.01)
            assert await source.query("up[5s]") == []
            assert not any(task.done() for task in slow)
            for task in slow:
                task.cancel()


async def test_a_slow_selector_holds_up_its_own_policies_alone() -> None:
    def own(name: str, total: str) -> LivePolicy:
        slo = SLO(name="own", promQL=PromQL(bad=f"failed_{total}", total=total), maxPercent="1")
        return replace(live_policy(objective_of(slo), errors_objective(), since=None), name=name)

    answered = asyncio.Event()

    async def slow_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"slow_total" in await reader.readuntil(b"\r\n\r\n"):
            await answered.wait()
        writer.write(response(EMPTY))
        await writer.drain()

    found = []
    async with serving(slow_once) as (url, _):
        with closing(source_at(url, deadline_seconds=60.0)) as source:
            live = [own("late", "slow_total"), replace(own("soon", "done_total"), namespace="other")]
            async for batch in fetched_by_batch(live, source=source, now=10.0):
                found.append([*batch])
                answered.set()
    assert found == [[("other", "soon")], [("shop", "late")]]


async def test_warnings_are_partial() -> None:
    body = {"status": "success", "data": {"resultType": "matrix", "result": []}, "warnings": ["store 3 is down"]}
    async with serving(says(response(json.dumps(body).encode()))) as (url, _):
        with closing(source_at(url)) as source:
            result = await source.query("up[5s]")
    assert result == Partial("Metrics source `default` answered in part, so nothing of it is used: store 3 is down")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://user:s3cret@127.0.0.1:1", "could not be reached: Connection refused"),
        ("http://user:s3cret@name.invalid:9090", "could not be reached: "),
        ("https://user:s3cret@127.0.0.1:1", "could not be reached: Connection refused"),
    ],
)
async def test_m08_what_is_in_the_url_is_in_no_message(url: str, said: str) -> None:
    with closing(source_at(url)) as source:
        result = await source.query("up[5s]")
    assert isinstance(result, ProviderError)
    assert result.sentence.startswith(f"Metrics source `default` {said}")
    assert re.search("s3cret|127.0.0.1|name.invalid", result.sentence) is None


async def test_a_server_that_speaks_no_tls_is_said_so() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(response(EMPTY))
        await writer.drain()

    async with serving(plain) as (url, _):
        with closing(source_at(url.replace("http:", "https:"))) as source:
            result = await source.query("up[5s]")
    assert result == ProviderError("Metrics source `default` could not be reached: TLS failed.")


async def test_a_query_that_fails_does_not_hold_up_the_others() -> None:
    """Two policies that must be read back to different times are asked for apart."""
    new = live_policy(errors_objective(), since=None)
    old = replace(new, name="old", since=-90.0, state=AnalysisState(watermarks={"pod": -90.0}))
    labels = {"__name__": "backstop_served_total", "namespace": "shop", "policy": new.name, "revision": "canary"}
    result = [{"metric": labels, "values": [[5.0, "1"]]}]
    body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()

    async def answers_the_new_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"128s" in request:
            await reader.read()
        writer.write(response(body))
        await writer.drain()

    found = []
    async with serving(answers_the_new_one) as (url, _):
        with closing(source_at(url, deadline_seconds=0.5)) as source:
            async for batch in fetched_by_batch([old, new], source=source, now=10.0):
                found.append(batch)  # noqa: PERF401 - in the order in which they come
    first, second = found
    assert isinstance(first["shop", new.name], Sample)
    assert second == {("shop", "old"): ProviderError("Metrics source `default` did not answer within 0.5 s.")}
