"""The cold level over real sockets and real files: what outlives a gateway, for how long, how large it gets, and what harm to it does."""

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest

from backstop.api.record import RevisionRecord
from backstop.gateway.coldcache import LOG_BYTES, SQLiteStore
from backstop.gateway.main import main
from e2e.fakemodel.script import Rule

from .harness import Gateway, Gateways, Model, eventually, make_record, model_tier, static_tier
from .test_cache import told
from .test_warm_cache import ADDRESS, Time, looked
from .valkey import valkey

MIB = 1 << 20


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A caller that leaves no idle connections, for which a gateway that stops would wait."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        yield session


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory, where the machine has a place for that: a disk that others keep busy may answer later than the level waits for it."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path, prefix="backstop-") as place:
        folder = Path(place) / "answers"
        folder.mkdir()
        yield folder


def record_with(model: str, *, stale: int = 60, warm: int = 0, **cold: Any) -> RevisionRecord:
    """Its lookups may take long, so that a busy machine is no slow disk."""
    cache: dict[str, Any] = {"hot": {"ttlSeconds": 60}, "cold": {"timeoutMilliseconds": 1000, **cold}, "staleIfErrorSeconds": stale}
    if warm:
        address = {"name": "cache", "key": "url"}
        cache["warm"] = {"redis": {"addressRef": address}, "ttlSeconds": warm, "timeoutMilliseconds": 1000}
    return make_record([model_tier(model), {"name": "cache", "cache": cache}, static_tier()])


def sizes(folder: Path) -> dict[str, int]:
    """In bytes, of every file by its name, while no gateway removes any."""
    return {file.name: file.stat().st_size for file in folder.iterdir()}


def databases(folder: Path) -> list[str]:
    """Their names alone: a gateway may remove one at any time."""
    return sorted(file.name for file in folder.iterdir() if file.suffix == ".sqlite3")


async def written(gateway: Gateway, times: int, *, level: str = "cold", result: str = "written") -> None:
    async def look() -> bool:
        return await gateway.total("backstop_cache_writes_total", level=level, result=result) == times

    await eventually(look)


async def test_an_answer_outlives_its_gateway(model: Model, gateways: Gateways, folder: Path) -> None:
    record = record_with(model.url)
    first = await gateways.start(record, cache_folder=folder)
    asked = await first.chat()
    await written(first, 1)
    assert await first.total("backstop_cache_bytes", level="cold") == 4 * 4096
    await first.stop()
    second = await gateways.start(record, cache_folder=folder)
    answers = [await second.chat() for _ in range(2)]
    assert {(got.body, *told(got)) for got in answers} == {(asked.body, "All is well.", "hit", "cache", "skipped", "0")}
    assert model.fake.total == 1
    assert [await looked(second, result, level="cold") for result in ("hit", "miss", "failed")] == [1, 0, 0]
    assert (await second.status())["caches"]["cold"] == {"state": "closed", "failure": None, "queued": 0}


async def test_w37_an_answer_that_rises_through_every_level_keeps_the_time_it_has_left(
    model: Model, gateways: Gateways, folder: Path, tmp_path: Path
) -> None:
    passed = Time()
    async with valkey(tmp_path) as server:
        start = {"keys": {ADDRESS: server.url}, "cache_folder": folder, **passed.clocks()}
        record = record_with(model.url, warm=600, ttlSeconds=1000, stale=50)
        first = await gateways.start(record, **start)
        await first.chat()
        await written(first, 1)
        await first.stop()
        await server.redis.flushall()
        passed.later = 900.0
        second = await gateways.start(record, **start)
        assert (await second.chat()).said("cache") == "hit"
        await written(second, 1, level="warm")
        (key,) = await server.redis.keys()
        assert 100 < await server.redis.ttl(key) <= 150, "100 seconds that are left of 1000, and 50 for when the model fails"
        assert [await looked(second, "miss", level="warm"), await looked(second, "hit", level="cold")] == [1, 1]
        passed.later = 990.0
        got = await second.chat()
        assert (got.said("cache"), 990 <= int(got.said("cache-age") or "nan") < 1000) == ("hit", True)
        assert await looked(second, "hit", level="warm") == 1
        passed.later = 1001.0
        model.script(Rule(error_percent=100, error_status=500))
        assert told(await second.chat())[:3] == ("All is well.", "stale", "cache")
        passed.later = 1051.0
        assert told(await second.chat())[:3] == ("Not now.", "miss", "static")


async def test_gateways_that_share_a_folder_have_a_file_each_and_a_new_one_takes_over_what_is_left(
    model: Model, gateways: Gateways, folder: Path
) -> None:
    record = record_with(model.url)
    first, second = [await gateways.start(record, cache_folder=folder) for _ in range(2)]
    for gateway in (first, second):
        await gateway.chat(seed=1)
        await written(gateway, 1)
    assert model.fake.total == 2
    assert databases(folder) == ["answers-0.sqlite3", "answers-1.sqlite3"]
    await second.stop()
    third = await gateways.start(record, cache_folder=folder)
    assert (await third.chat(seed=1)).said("cache") == "hit"
    assert databases(folder) == ["answers-0.sqlite3", "answers-1.sqlite3"]


async def only_file(folder: Path) -> None:
    """Until the gateways' answers are in one file."""

    async def look() -> bool:
        return databases(folder) == ["answers-0.sqlite3"]

    await eventually(look)


async def left_by(gateways: Gateways, record: RevisionRecord, *, folder: Path, seeds: Sequence[Sequence[int]]) -> None:
    """Gateways, one for each of `seeds`, that have run at the same time; each has kept the answers to its own, in files in this order."""
    running = []
    for asked in seeds:
        running.append(gateway := await gateways.start(record, cache_folder=folder))
        for seed in asked:
            await gateway.chat(seed=seed)
        await written(gateway, len(asked))
    for gateway in running:
        await gateway.stop()


async def test_all_that_gateways_have_left_is_taken_into_one_file(model: Model, gateways: Gateways, folder: Path) -> None:
    record = record_with(model.url)
    await left_by(gateways, record, folder=folder, seeds=[(1,), (2, 3), (4,)])
    gateway = await gateways.start(record, cache_folder=folder)
    await only_file(folder)
    assert [(await gateway.chat(seed=seed)).said("cache") for seed in (1, 2, 3, 4, 5)] == ["hit", "hit", "hit", "hit", "miss"]


async def test_what_a_gateway_leaves_once_its_successor_runs_is_taken_over_and_counts_as_older(folder: Path) -> None:
    old, new = [SQLiteStore(folder, capacity=MIB, now=lambda: 0.0, look=0.01) for _ in range(2)]
    long = bytes(200_000)
    await old.write(b"both", value=b"of the old one", seconds=60)
    await old.write(b"old", value=long, seconds=60)
    await old.write(b"expired", value=b"!", seconds=0)
    await new.write(b"both", value=b"of the new one", seconds=60)
    taking = asyncio.create_task(new.take_over())
    try:
        await old.close()

        async def taken() -> bool:
            return (await new.read([b"old"]))[0] is not None

        await eventually(taken)
        assert await new.read([b"both", b"old", b"expired"]) == [b"of the new one", long, None]
        for number in range(4):  # until the file is full
            await new.write(b"%d" % number, value=long, seconds=60)
        await new.write(b"one more", value=long, seconds=60)
        assert await new.read([b"old"]) == [None]
        assert await new.read([b"both", b"0"]) == [b"of the new one", long]
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        await new.close()


async def test_a_file_for_which_there_is_no_room_is_left_to_the_next_gateway(model: Model, gateways: Gateways, folder: Path) -> None:
    model.script(Rule(text="x" * 100_000))
    record = record_with(model.url, maxMebibytes=1)
    await left_by(gateways, record, folder=folder, seeds=[range(6), range(6, 12), (12,)])
    first = await gateways.start(record, cache_folder=folder)

    async def last_one_taken() -> bool:
        return databases(folder) == ["answers-0.sqlite3", "answers-1.sqlite3"]

    await eventually(last_one_taken)
    second = await gateways.start(record, cache_folder=folder)
    assert [(await first.chat(seed=seed)).said("cache") for seed in (0, 5, 12)] == ["hit", "hit", "hit"]
    assert [(await second.chat(seed=seed)).said("cache") for seed in (6, 11)] == ["hit", "hit"]


def as_garbage(file: Path) -> None:
    file.write_bytes(b"This is no database. " * 1000)


def as_cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def as_spoilt_inside(file: Path) -> None:
    """The head and the schema stay; what they lead to is noise."""
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + bytes(range(256)) * ((len(whole) - 4096) // 256))


def as_of_another_version(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 7")
    database.close()


def as_another_database(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE answers (question TEXT)")
    database.close()


def as_larger_than_allowed(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE more AS SELECT zeroblob(2097152)")
    database.close()


@pytest.mark.parametrize("harm", [as_garbage, as_cut, as_spoilt_inside, as_of_another_version, as_another_database])
async def test_a_left_file_that_is_damaged_is_said_and_removed(
    model: Model, gateways: Gateways, folder: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    record = record_with(model.url)
    await left_by(gateways, record, folder=folder, seeds=[(1,), (2,)])
    harm(folder / "answers-1.sqlite3")
    gateway = await gateways.start(record, cache_folder=folder)
    await only_file(folder)
    assert "answers-1.sqlite3, which a gateway has left, is damaged" in caplog.text
    assert [(await gateway.chat(seed=seed)).said("cache") for seed in (1, 2)] == ["hit", "miss"]


HARM = [as_garbage, as_cut, as_spoilt_inside, as_of_another_version, as_another_database, as_larger_than_allowed]


@pytest.mark.parametrize("harm", HARM)
async def test_a_file_that_is_damaged_is_said_and_made_anew_and_hinders_no_start(
    model: Model, gateways: Gateways, folder: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    record = record_with(model.url, maxMebibytes=1)
    first = await gateways.start(record, cache_folder=folder)
    await first.chat(seed=1)
    await written(first, 1)
    await first.stop()
    harm(folder / "answers-0.sqlite3")
    caplog.set_level(logging.WARNING)
    second = await gateways.start(record, cache_folder=folder)
    assert told(await second.chat(seed=1))[:4] == ("All is well.", "miss", "primary", "answered")
    assert caplog.text.count("the file of the cold level is damaged, or of another version; it is made anew") == 1
    await written(second, 1)
    assert await looked(second, "failed", level="cold") == 0
    await second.stop()
    third = await gateways.start(record, cache_folder=folder)
    assert (await third.chat(seed=1)).said("cache") == "hit"


async def test_w40_a_full_file_stays_within_its_bound_and_forgets_what_was_written_first(
    model: Model, gateways: Gateways, folder: Path
) -> None:
    model.script(Rule(text="x" * 100_000))
    record = record_with(model.url, maxMebibytes=1)
    first = await gateways.start(record, cache_folder=folder)
    for seed in range(30):
        await first.chat(seed=seed)
        await written(first, seed + 1)
        held = sizes(folder)
        assert held["answers-0.sqlite3"] <= MIB
        assert sum(held.values()) <= MIB + 2 * LOG_BYTES
    await first.stop()
    second = await gateways.start(record, cache_folder=folder)
    assert [(await second.chat(seed=seed)).said("cache") for seed in (29, 24, 0)] == ["hit", "hit", "miss"]


async def test_w54_a_folder_that_is_not_there_costs_no_caller_an_answer_and_is_used_once_it_is(
    model: Model, gateways: Gateways, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    passed, folder = Time(), tmp_path / "later"
    gateway = await gateways.start(record_with(model.url), cache_folder=folder, **passed.clocks())
    for seed in range(6):
        assert told(await gateway.chat(seed=seed))[:4] == ("All is well.", "miss", "primary", "answered")
    assert await gateway.ready()
    assert "the cold level of the cache is not there: its folder cannot be written" in caplog.text
    status = (await gateway.status())["caches"]["cold"]
    assert (status["state"], status["failure"]) == ("open", "its folder cannot be written")
    folder.mkdir()
    seeds = iter(range(100, 200))

    async def kept() -> bool:
        passed.later += 5.0
        await gateway.chat(seed=next(seeds))
        return await gateway.total("backstop_cache_writes_total", level="cold", result="written") > 0

    await eventually(kept)


async def test_what_has_expired_makes_room_without_being_asked_for(model: Model, gateways: Gateways, folder: Path) -> None:
    passed = Time()
    gateway = await gateways.start(record_with(model.url, ttlSeconds=60, stale=0), cache_folder=folder, **passed.clocks())
    for seed in range(20):
        await gateway.chat(seed=seed)
    await written(gateway, 20)
    passed.later = 61.0
    for seed in range(100, 103):
        await gateway.chat(seed=seed)
    await written(gateway, 23)
    await gateway.stop()
    with sqlite3.connect(folder / "answers-0.sqlite3") as database:
        (held,) = database.execute("SELECT count(*) FROM answers").fetchone()
    database.close()
    assert held == 3


async def test_a_gateway_that_is_given_no_folder_does_not_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "revision.json"
    file.write_text(record_with("models:1").model_dump_json(exclude_defaults=True))
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(main, ["--record", str(file), "--port", "0", "--metrics-port", "0"])
    assert ended.value.code == 2
    assert "`cache.cold` of tier `cache` needs a folder for its file; give one to `--cache-folder`" in capsys.readouterr().err
