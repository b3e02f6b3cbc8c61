"""The warm level over real sockets, with a real Valkey: what gateways share, for how long, and that no trouble of it is a caller's."""

import asyncio
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from backstop.api.record import RevisionRecord
from backstop.gateway.compilation import compile_revision
from backstop.gateway.dial import dial
from backstop.gateway.exchange import DEADLINE_HEADER
from backstop.gateway.redisaddress import read_redis_address
from backstop.gateway.resolution import Addresses, Resolution
from backstop.gateway.revision import ConfigurationError
from backstop.gateway.storedentry import Entry, encode
from backstop.gateway.warmcache import RedisStore
from e2e.fakemodel.script import Rule
from tests.certificates import make_certificate

from .harness import NOBODY, ROOT, Gateway, Gateways, Model, eventually, make_record, model_tier, static_tier
from .test_cache import told
from .valkey import PASSWORD, Valkey, line_to, saying, valkey

ADDRESS = "BACKSTOP_REDIS_ADDRESS_1"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Valkey]:
    async with valkey(tmp_path) as server:
        yield server


class Time:
    """Both clocks of a gateway, which can be put forward."""

    def __init__(self) -> None:
        self.later = 0.0

    def clocks(self) -> dict[str, Any]:
        return {"clock": lambda: time.monotonic() + self.later, "now": lambda: time.time() + self.later}


def shared_tier(*, hot: int = 60, warm: int = 600, stale: int = 60, timeout: int = 1000, ca: bool = False) -> dict[str, Any]:
    """A cache tier. Its lookups may take long, so that a busy machine is no slow Redis."""
    redis: dict[str, Any] = {"addressRef": {"name": "cache", "key": "url"}}
    if ca:
        redis["caBundleRef"] = {"name": "authorities", "key": "ca.pem"}
    warm_level = {"redis": redis, "ttlSeconds": warm, "timeoutMilliseconds": timeout}
    return {"name": "cache", "cache": {"hot": {"ttlSeconds": hot}, "warm": warm_level, "staleIfErrorSeconds": stale}}


def record_with(model: str, *, ca: str | None = None, **options: Any) -> RevisionRecord:
    chain = [model_tier(model), shared_tier(ca=ca is not None, **options), static_tier()]
    return make_record(chain, contents=None if ca is None else {"cache": ca})


async def looked(gateway: Gateway, result: str, *, level: str = "warm") -> float:
    return await gateway.total("backstop_cache_lookups_total", level=level, result=result)


async def written(gateway: Gateway, times: int, *, result: str = "written") -> None:
    """Wait until so many answers were written: that happens behind the callers' backs."""

    async def look() -> bool:
        return await gateway.total("backstop_cache_writes_total", level="warm", result=result) == times

    await eventually(look)


async def test_an_answer_of_one_gateway_is_given_by_another_which_then_has_it_in_memory(
    model: Model, gateways: Gateways, server: Valkey
) -> None:
    url = server.url.replace("127.0.0.1", "localhost")
    first, second = [await gateways.start(record_with(model.url), keys={ADDRESS: url}) for _ in range(2)]
    asked = await first.chat()
    await written(first, 1)
    answers = [await second.chat() for _ in range(2)]
    assert told(asked) == ("All is well.", "miss", "primary", "answered", "1")
    assert {told(got) for got in answers} == {("All is well.", "hit", "cache", "skipped", "0")}
    assert {got.body for got in answers} == {asked.body}
    assert model.fake.total == 1
    assert [await looked(second, result) for result in ("hit", "miss", "stale", "failed")] == [1, 0, 0, 0]
    assert [await looked(second, result, level="hot") for result in ("hit", "miss")] == [1, 1]
    assert await second.total("backstop_served_total", cache="hit", first_tier="skipped") == 2
    streamed = await first.chat(seed=1, stream=True)
    await written(first, 2)
    assert (streamed.text, (await second.chat(seed=1, stream=True)).said("cache")) == ("All is well.", "hit")
    assert (await second.status())["caches"]["warm"] == {"state": "closed", "failure": None, "queued": 0}
    names = [name.decode() for name in await server.redis.keys()]
    assert len(names) == 2
    assert {name.rpartition(":")[0] for name in names} == {"backstop:default:support"}
    assert 650 < await server.redis.ttl(names[0]) <= 660, "the time of the level, and for when the model fails"


async def test_w37_what_is_promoted_keeps_the_time_it_has_left(model: Model, gateways: Gateways, server: Valkey) -> None:
    passed = Time()
    record = record_with(model.url, hot=60, warm=600)
    start = {"keys": {ADDRESS: server.url}, **passed.clocks()}
    first, second = await gateways.start(record, **start), await gateways.start(record, **start)
    await first.chat()
    await written(first, 1)
    passed.later = 300.0
    assert [(await first.chat()).said("cache") for _ in range(2)] == ["hit", "hit"], "memory forgot it, and got it back"
    assert await looked(first, "hit") == 1
    passed.later = 550.0
    promoted = await second.chat()
    assert (promoted.said("cache"), 550 <= int(promoted.said("cache-age") or "nan") < 600) == ("hit", True)
    passed.later = 590.0
    assert (await second.chat()).said("cache") == "hit"
    assert await looked(second, "hit") == 1, "the second one was out of memory"
    passed.later = 605.0
    assert (await second.chat()).said("cache") == "miss", "memory would have held it until 610"
    assert model.fake.total == 2


async def test_w39_a_stale_answer_of_another_gateway_stands_in_for_a_model_that_fails(
    model: Model, gateways: Gateways, server: Valkey
) -> None:
    passed = Time()
    record = record_with(model.url, warm=100, stale=600)
    start = {"keys": {ADDRESS: server.url}, **passed.clocks()}
    first, second = await gateways.start(record, **start), await gateways.start(record, **start)
    await first.chat()
    await written(first, 1)
    model.script(Rule(error_percent=100, error_status=500))
    passed.later = 101.0
    got = await second.chat()
    assert told(got) == ("All is well.", "stale", "cache", "failed", "1")
    assert 101 <= int(got.said("cache-age") or "nan") < 600
    assert [await looked(second, result) for result in ("hit", "miss", "stale")] == [0, 1, 1]
    assert told(await second.chat(headers={"cache-control": "max-age=60"}))[1:3] == ("miss", "static")
    passed.later = 701.0
    assert told(await second.chat())[:3] == ("Not now.", "miss", "static")


async def test_w36_what_lies_under_a_key_and_is_no_answer_to_it_is_a_miss(model: Model, gateways: Gateways, server: Valkey) -> None:
    record = record_with(model.url)
    first = await gateways.start(record, keys={ADDRESS: server.url})
    await first.chat(seed=1)
    await first.chat(seed=2)
    await written(first, 2)
    one, other = await server.redis.keys()
    raw = await server.redis.get(one)
    assert isinstance(raw, bytes)
    key = bytes.fromhex(one.decode().rpartition(":")[2])
    spoilt = {
        "of another key": await server.redis.get(other),
        "cut": raw[:-1],
        "with a changed byte": raw[:40] + bytes([raw[40] ^ 1]) + raw[41:],
        "of another format": raw[:16] + b"\x02" + raw[17:],
        "longer than any answer": raw + b" " * (1 << 20),
        "empty": b"",
        "something else": b"{}",
        "sealed, and no answer": encode(
            Entry(b'{"choices": 1}', has_usage=True, kept_at=time.time(), fresh_until=time.time() + 60), key=key
        ),
    }
    model.script(Rule(text="New."))
    for number, (name, value) in enumerate(spoilt.items(), start=1):
        await server.redis.set(one, value)
        second = await gateways.start(record, keys={ADDRESS: server.url})
        answers = [await second.chat(seed=seed) for seed in (1, 2)]
        assert sorted(got.said("cache") or "" for got in answers) == ["hit", "miss"], name
        assert model.fake.total == 2 + number
        await written(second, 1)
    await server.redis.delete(one)
    await server.redis.rpush(one, "a list")
    last = await gateways.start(record, keys={ADDRESS: server.url})
    assert sorted([(await last.chat(seed=seed)).said("cache") or "" for seed in (1, 2)]) == ["hit", "miss"]
    assert await looked(last, "failed") == 0


LATE = "it takes longer than 20 ms"
STRANGE = "it does not speak Redis"
GARBAGE = {
    "silence": (b"", LATE),
    "half of an answer": (b"$100\r\nabc", LATE),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", STRANGE),
    "random bytes": (bytes(range(256)), "it cannot be reached"),
    "a number that is none": (b":one\r\n", STRANGE),
    "a length below zero": (b"$-7\r\n", "it refuses"),
    "lists in lists": (b"*1\r\n" * 5000, STRANGE),
    "too few answers": (b"+OK\r\n", LATE),
    "errors": (b"-LOADING the dataset " + PASSWORD.encode() + b"\r\n", "it cannot be reached"),
    "other errors": (b"-OOM " + PASSWORD.encode() + b"\r\n", "it refuses"),
}


@pytest.mark.parametrize(("raw", "failure"), GARBAGE.values(), ids=GARBAGE)
async def test_w38_a_redis_that_answers_garbage_or_nothing_costs_no_caller_an_answer(
    model: Model, gateways: Gateways, raw: bytes, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with saying(raw) as url:
        record = record_with(model.url, timeout=20 if failure == LATE else 1000)
        gateway = await gateways.start(record, keys={ADDRESS: url.replace("//", "//:secret-of-ours@")})
        answers = [await gateway.chat(seed=seed) for seed in range(8)]
        assert {told(got) for got in answers} == {("All is well.", "miss", "primary", "answered", "1")}
        assert (await gateway.chat(seed=0)).said("cache") == "hit", "memory does its part"
        assert await looked(gateway, "failed") == 8
        assert await gateway.ready()
        assert await gateway.total("backstop_breaker_state", tier="cache/warm") == 2
        said = json.dumps((await gateway.status())["caches"]) + caplog.text
        assert f"the warm level of the cache is left alone: {failure}" in caplog.text
        assert not [secret for secret in ("secret-of-ours", PASSWORD) if secret in said]


async def test_w38_a_redis_that_is_down_or_slow_is_left_alone_and_used_again_when_it_is_back(
    model: Model, gateways: Gateways, server: Valkey
) -> None:
    passed = Time()
    async with line_to(server.port) as line:
        record = record_with(model.url, timeout=20)
        gateway = await gateways.start(record, keys={ADDRESS: line.url}, **passed.clocks())
        seeds = iter(range(1000))

        async def state() -> float:
            return await gateway.total("backstop_breaker_state", tier="cache/warm")

        async def ask_until(wanted: float) -> None:
            """Until the breaker is so. Each request is five seconds after the last: an open breaker lets one through."""
            for _ in range(50):
                got = await gateway.chat(seed=next(seeds))
                assert told(got) == ("All is well.", "miss", "primary", "answered", "1")
                if await state() == wanted:
                    return
                passed.later += 0.0 if wanted == 2 else 5.0
            raise AssertionError(f"not {wanted} after 50 requests")

        await ask_until(0)
        line.open.clear()
        await ask_until(2)
        before = await looked(gateway, "failed")
        assert before >= 3
        line.open.set()
        await ask_until(0)
        await server.stop()
        await ask_until(2)
        assert (await gateway.status())["caches"]["warm"]["state"] == "open"
        assert await gateway.ready()
        await server.start()
        await ask_until(0)
        await gateway.chat(seed=-1)

        async def shared() -> bool:
            passed.later += 5.0
            await gateway.chat(seed=next(seeds))
            return bool(await server.redis.keys())

        await eventually(shared)
        assert await gateway.total("backstop_budget_exceeded_total") == 0


async def test_a_redis_that_has_changed_places_with_its_replica_is_asked_where_it_is_now(
    model: Model, gateways: Gateways, server: Valkey, tmp_path: Path
) -> None:
    async with valkey(tmp_path) as replica, line_to(server.port) as line:
        gateway = await gateways.start(record_with(model.url), keys={ADDRESS: line.url})
        await gateway.chat(seed=1)
        await written(gateway, 1)
        line.to = replica.port
        await server.redis.replicaof("127.0.0.1", "1")
        await gateway.chat(seed=2)
        await written(gateway, 1, result="failed")
        await gateway.chat(seed=3)
        await written(gateway, 2)
        assert (len(await server.redis.keys()), len(await replica.redis.keys())) == (1, 1)


async def test_w54_a_gateway_starts_without_redis_and_model_and_uses_both_once_they_are_there(
    model: Model, gateways: Gateways, server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await server.stop()
    alone = await gateways.start(record_with(NOBODY), keys={ADDRESS: server.url})
    assert told(await alone.chat())[:4] == ("Not now.", "miss", "static", "failed")
    gateway = await gateways.start(record_with(model.url), keys={ADDRESS: server.url})
    assert "the warm level of the cache is not there: it cannot be reached" in caplog.text
    await server.start()
    await gateway.chat()
    await written(gateway, 1)
    assert len(await server.redis.keys()) == 1


async def test_what_waits_for_a_redis_that_hangs_is_bounded_and_delays_nobody(model: Model, gateways: Gateways) -> None:
    model.script(Rule(text="x" * 200_000))
    async with saying(b"") as url:
        gateway = await gateways.start(record_with(model.url, timeout=1), keys={ADDRESS: url})
        for seed in range(30):
            assert told(await gateway.chat(seed=seed))[1:] == ("miss", "primary", "answered", "1")
        dropped = await gateway.total("backstop_cache_writes_total", level="warm", result="dropped")
        failed = await gateway.total("backstop_cache_writes_total", level="warm", result="failed")
        queued = (await gateway.status())["caches"]["warm"]["queued"]
        assert queued <= (4 << 20) // 200_000
        assert dropped > 0
        assert 28 <= dropped + failed + queued <= 30, "one may be on its way, and one come back meanwhile"


async def test_w08_a_caller_in_a_hurry_waits_for_no_redis_and_teaches_nothing_about_it(model: Model, gateways: Gateways) -> None:
    async with saying(b"") as url:
        gateway = await gateways.start(record_with(model.url, timeout=1000), keys={ADDRESS: url})
        for seed in range(6):
            got = await gateway.chat(seed=seed, headers={DEADLINE_HEADER: "30"})
            assert told(got) == ("Not now.", "miss", "static", "skipped", "0")
        assert await looked(gateway, "failed") == 6
        assert await gateway.total("backstop_breaker_state", tier="cache/warm") == 0


async def test_a_redis_whose_name_hangs_takes_no_thread_that_others_need(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*_: Any, flags: int = 0, **__: Any) -> Addresses:
        if not flags & socket.AI_NUMERICHOST:
            over.wait(20)
        raise socket.gaierror(socket.EAI_NONAME, "no name")

    monkeypatch.setattr(socket, "getaddrinfo", hang)  # also for whoever would ask on another way
    address = read_redis_address("redis://cache:6379", authorities=None)
    store = RedisStore(address, prefix="", dial=partial(dial, names=Resolution(ask=hang), socket_factory=None))
    try:
        for _ in range(40):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await store.open()
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(threading.active_count) > 1
        assert [thread.name for thread in threading.enumerate()].count("resolution") == 1
    finally:
        over.set()
        await store.close()


async def test_w32_200_identical_misses_are_one_upstream_call_and_few_questions(model: Model, gateways: Gateways, server: Valkey) -> None:
    gateway = await gateways.start(record_with(model.url), keys={ADDRESS: server.url})
    answers = await asyncio.gather(*(gateway.chat() for _ in range(200)))
    assert {got.text for got in answers} == {"All is well."}
    assert model.fake.total == 1
    asked = (await server.redis.info("commandstats"))["cmdstat_getrange"]["calls"]
    assert 1 <= asked <= 20


async def test_the_password_comes_from_a_secret_and_tls_is_verified_by_the_authorities_of_a_config_map(
    model: Model, gateways: Gateways, http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificate(tmp_path, names=["server", "other"])
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server"))  # the system's authorities vouch for it, too
    (tmp_path / "elsewhere").mkdir()
    make_certificate(tmp_path / "elsewhere", names=["server"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server", tmp_path / "server.key")
    async with valkey(tmp_path, password=PASSWORD) as server, line_to(server.port, tls=context) as line:
        url = line.url.replace("//", "//:p%40ss%2Fw%3Ard-5ecret@") + "/3"
        trusted, strange = ((tmp_path / file).read_text() for file in ("server", "elsewhere/server"))
        record = record_with(model.url, ca=trusted)
        gateway = await gateways.start(record, keys={ADDRESS: url})
        await gateway.chat()
        await written(gateway, 1)
        assert (await server.redis.info("keyspace"))["db3"]["keys"] == 1
        wrong = url.replace("5ecret", "guess")
        for address, bundle, failure in ((url, strange, "it cannot be reached"), (wrong, trusted, "it refuses")):
            distrusting = await gateways.start(record_with(model.url, ca=bundle), keys={ADDRESS: address})
            for _ in range(5):
                assert (await distrusting.chat(headers={"cache-control": "max-age=1000"})).status == 200
                await distrusting.chat(seed=_)
            status = (await distrusting.status())["caches"]["warm"]
            assert (status["state"], status["failure"]) == ("open", failure)
            async with http.get(f"http://{distrusting.metrics_address}/metrics") as response:
                assert "5ecret" not in await response.text()


async def test_an_account_needs_no_more_rights_than_the_how_to_gives_it(model: Model, gateways: Gateways, server: Valkey) -> None:
    page = (ROOT / "docs" / "how-to" / "shared-cache.md").read_text(encoding="utf-8")
    (rule,) = (line for line in page.splitlines() if line.startswith("ACL SETUSER support"))
    await server.redis.execute_command(*rule.split())
    url = server.url.replace("//", "//support:the-password@") + "/1"
    first, second = [await gateways.start(record_with(model.url), keys={ADDRESS: url}) for _ in range(2)]
    await first.chat()
    await written(first, 1)
    assert (await second.chat()).said("cache") == "hit"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "",
            "`spec.chain[1].cache.warm.redis.addressRef`: it is empty; give the Secret `cache` with `url`, or set",
        ),
        ("http://:5ecret@cache:6379", "Secret `cache`, `url`: the address is not `redis://[user:password@]host[:port][/database]`"),
        ("redis://:5ecret@cache:port", "Secret `cache`, `url`: the address is not `redis://"),
        ("redis://:5ecret@cache/first", "Secret `cache`, `url`: the address is not `redis://"),
        ("rediss://:5ecret@cache?ssl_cert_reqs=none", "Secret `cache`, `url`: the address is not `redis://"),
        ("redis://:5ecret@[::ffff:169.254.169.254]", "a link-local or metadata address is never called"),
    ],
)
def test_an_address_that_cannot_be_used_ends_the_start_with_a_sentence_that_keeps_its_secret(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compile_revision(record_with("models:1"), environment={ADDRESS: text})
    assert said in str(refused.value)
    assert "5ecret" not in str(refused.value)


def test_a_ca_bundle_without_tls_is_refused(tmp_path: Path) -> None:
    make_certificate(tmp_path, names=["ca.pem"])
    with pytest.raises(ConfigurationError, match="a CA bundle is for TLS, and the address begins with `redis://`"):
        compile_revision(record_with("models:1", ca=(tmp_path / "ca.pem").read_text()), environment={ADDRESS: "redis://cache"})
