"""Callers and tenants over real sockets: who is let in, what is kept apart, and what of it goes on to whom."""

import asyncio
import logging
import time
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import openai
import pytest

from backstop.api.record import RevisionRecord
from backstop.gateway.access import CallerKeys, KeysError
from backstop.gateway.trickle import Trickle

from .harness import USER, Gateway, Gateways, Model, TrafficApi, eventually, make_record, model_tier, state
from .test_cache import cache_tier, told
from .test_warm_cache import ADDRESS, shared_tier, written
from .valkey import valkey

ALICE, BOB = "alice-key-0123456789", "bob-key-0123456789ab"
TENANTS = {"tenantHeader": "X-Tenant"}
KEYED = {"callerKeysRef": {"name": "callers"}}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def callers(tmp_path: Path) -> Path:
    """As a kubelet mounts a Secret: files that are links into a folder which is replaced as a whole."""
    folder = tmp_path / "callers"
    give(folder, alice=f"{ALICE}\n", bob=f"an-older-key-of-bob\n{BOB}")
    return folder


def give(folder: Path, **keys: str) -> None:
    held = folder / f"..held-{len(list(folder.glob('..held-*')))}"
    held.mkdir(parents=True)
    for old in folder.glob("[!.]*"):
        old.unlink()
    for name, text in keys.items():
        (held / name).write_text(text)
        (folder / name).symlink_to(held / name)


def record_with(model: str, **access: Any) -> RevisionRecord:
    return make_record([model_tier(model), cache_tier()], access=access)


async def said(gateway: Gateway, *, headers: dict[str, str] | None = None, **fields: Any) -> str | None:
    return (await gateway.chat(headers=headers, **fields)).said("cache")


async def test_w34_two_tenants_never_share_an_answer(model: Model, gateways: Gateways) -> None:
    gateway = await gateways.start(record_with(model.url, **TENANTS))
    for tenant in ("acme", "globex", "ACME", "acm", "acme1"):
        assert [await said(gateway, headers={"X-Tenant": tenant}) for _ in range(2)] == ["miss", "hit"]
    assert model.fake.total == 5
    assert "X-Tenant" not in model.fake.requests[-1]["headers"], "no model is told"


async def test_w34_two_tenants_never_share_an_answer_in_a_redis_and_none_that_is_on_its_way(
    model: Model, gateways: Gateways, tmp_path: Path
) -> None:
    async with valkey(tmp_path) as server:
        chain = [model_tier(model.url), shared_tier()]
        first, second = [await gateways.start(make_record(chain, access=TENANTS), keys={ADDRESS: server.url}) for _ in range(2)]
        await first.chat(headers={"x-tenant": "acme"})
        await written(first, 1)
        assert [await said(second, headers={"x-tenant": tenant}) for tenant in ("globex", "acme")] == ["miss", "hit"]
        assert model.fake.total == 2


async def test_w34_a_request_of_no_tenant_or_of_two_shares_with_nobody(
    model: Model, gateways: Gateways, http: aiohttp.ClientSession
) -> None:
    gateway = await gateways.start(record_with(model.url, **TENANTS))
    url = f"http://{gateway.address}/v1/chat/completions"
    unknown: list[list[tuple[str, str]]] = [
        [],
        [("X-Tenant", "")],
        [("X-Tenant", "acme"), ("X-Tenant", "globex")],
        [("X-Tenant", "x" * 257)],
        [("X-Tenant", "ümlaut")],
    ]
    for headers in unknown:
        for _ in range(2):
            async with http.post(url, json={"messages": [USER]}, headers=headers) as response:
                assert (response.status, response.headers["x-backstop-cache"]) == (200, "bypass")
    assert model.fake.total == 10
    assert await gateway.total("backstop_cache_bytes") == 0


async def test_a_caller_needs_a_key_and_shares_no_answer_with_another_caller(
    model: Model, gateways: Gateways, callers: Path, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gateway = await gateways.start(record_with(model.url, **KEYED), callers=callers)
    wrong: list[dict[str, str]] = [
        {},
        bearer(ALICE + "x"),
        bearer(ALICE[:-1]),
        {"Authorization": f"Basic {ALICE}"},
        {"Authorization": ALICE},
        bearer(""),
    ]
    for headers in wrong:
        got = await gateway.chat(headers=headers)
        assert (got.status, got.json["error"]["code"], got.json["error"]["type"]) == (401, "invalid_api_key", "authentication_error")
        assert got.headers["WWW-Authenticate"] == "Bearer"
        assert not headers.get("Authorization") or ALICE[:-1] not in got.body.decode() + str(got.headers)
    for path in ("/v1/models", "/v1/models/m1", "/v1/models/no-model"):
        async with http.get(f"http://{gateway.address}{path}") as response:
            assert response.status == 401
    assert model.fake.total == 0
    assert await gateway.total("backstop_unauthorized_total") == len(wrong) + 3
    assert await gateway.total("backstop_served_total") == 0
    assert [await said(gateway, headers=bearer(key)) for key in (ALICE, ALICE, BOB, BOB)] == ["miss", "hit", "miss", "hit"]
    assert await said(gateway, headers=bearer("an-older-key-of-bob")) == "hit", "the same caller"
    assert await said(gateway, headers={"Authorization": f"bearer  {ALICE} "}) == "hit"
    assert model.fake.total == 2
    assert model.fake.requests[-1]["headers"].get("Authorization") is None, "w46: the caller's is for nobody else"
    client = openai.AsyncOpenAI(base_url=f"http://{gateway.address}/v1", api_key="no-key-of-anybody", max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="the caller's key is not known; send `Authorization: Bearer KEY`"):
        await client.chat.completions.create(model="any", messages=[USER])
    assert (await client.with_options(api_key=ALICE).chat.completions.create(model="any", messages=[USER])).choices
    await client.close()
    async with http.get(f"http://{gateway.metrics_address}/metrics") as metrics:
        seen = await metrics.text() + caplog.text + str(await gateway.status())
    assert not [secret for secret in (ALICE, BOB, "alice") if secret in seen]


async def test_tenants_of_one_caller_share_nothing_either_nor_does_one_caller_pass_for_a_tenant(
    model: Model, gateways: Gateways, callers: Path
) -> None:
    gateway = await gateways.start(record_with(model.url, **KEYED, **TENANTS), callers=callers)
    pairs = [(ALICE, "acme"), (ALICE, "globex"), (BOB, "acme")]
    assert [await said(gateway, headers=bearer(key) | {"x-tenant": tenant}) for key, tenant in pairs * 2] == ["miss"] * 3 + ["hit"] * 3
    assert await said(gateway, headers=bearer(ALICE)) == "bypass"


async def test_a_key_that_is_taken_away_holds_no_longer_and_keys_that_cannot_be_read_change_nothing(
    model: Model, gateways: Gateways, callers: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await gateways.start(record_with(model.url, **KEYED), callers=callers)

    async def status(key: str) -> int:
        return (await gateway.chat(headers=bearer(key))).status

    give(callers, alice=ALICE, carol="carol-key-0123456789")

    async def carol() -> bool:
        return await status("carol-key-0123456789") == 200

    await eventually(carol)
    assert [await status(key) for key in (ALICE, BOB)] == [200, 401]
    give(callers, alice="too-short")

    async def is_told() -> bool:
        return "a key of caller `alice` has fewer than 16 characters" in caplog.text

    await eventually(is_told)
    assert [await status(key) for key in (ALICE, "too-short")] == [200, 401]
    assert "too-short" not in caplog.text


async def test_a_canary_knows_the_caller_and_the_tenant_of_a_request_that_is_forwarded_to_it(
    model: Model, gateways: Gateways, api: TrafficApi, callers: Path
) -> None:
    access = KEYED | TENANTS
    stable = make_record([model_tier(model.url)], access=access)
    canary = make_record([model_tier(model.url), cache_tier()], prompt="You are new.", access=access)
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry, behind = [await gateways.start(record, api=api, callers=callers) for record in (stable, canary)]
    await entry.acts_on(3)
    await behind.acts_on(3)
    pairs = [(ALICE, "acme"), (ALICE, "acme"), (BOB, "acme"), (ALICE, "globex")]
    answers = [await entry.chat(headers=bearer(key) | {"X-Tenant": tenant}) for key, tenant in pairs]
    assert [told(got)[1] for got in answers] == ["miss", "hit", "miss", "miss"]
    assert {got.said("revision") for got in answers} == {canary.revision}
    refused = await entry.chat()
    assert (refused.status, refused.said("revision")) == (401, stable.revision)


async def test_a_probe_beside_callers_is_let_in_with_the_key_that_it_is_given(
    model: Model, gateways: Gateways, api: TrafficApi, callers: Path
) -> None:
    stable, canary = make_record([model_tier(model.url)], access=KEYED), make_record([model_tier(model.url)], prompt="New.", access=KEYED)
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=50))
    entry, behind = [await gateways.start(record, api=api, callers=callers) for record in (stable, canary)]
    await entry.acts_on(3)
    await behind.acts_on(3)
    url, body, stop = (
        f"http://{entry.address}/v1/chat/completions",
        b'{"messages": [{"role": "user", "content": "Hello"}]}',
        asyncio.Event(),
    )
    keyed, keyless = [
        Trickle(url=url, canary=canary.revision, body=body, per_second=50, clock=time.monotonic, jitter=Random(1), key=key)
        for key in (BOB, "")
    ]
    sending = [asyncio.create_task(trickle.run(stop)) for trickle in (keyed, keyless)]

    async def sent() -> bool:
        return keyed.answers.total() > 3 and keyless.answers.total() > 3

    try:
        await eventually(sent)
    finally:
        stop.set()
        await asyncio.gather(*sending)
    assert (set(keyed.answers), set(keyless.answers)) == ({"200"}, {"401"})


async def test_a_canary_that_refuses_whom_stable_lets_in_has_failed_them(
    model: Model, gateways: Gateways, api: TrafficApi, callers: Path
) -> None:
    stable, canary = make_record([model_tier(model.url)]), make_record([model_tier(model.url)], access=KEYED)
    api.write(state(3, stable=stable.revision, canary=canary.revision, permille=1000))
    entry, behind = await gateways.start(stable, api=api), await gateways.start(canary, api=api, callers=callers)
    await entry.acts_on(3)
    await behind.acts_on(3)
    assert [(await entry.chat(headers=headers)).status for headers in ({}, bearer(ALICE))] == [401, 200]
    assert await entry.total("backstop_served_total", revision=canary.revision, outcome="error") == 1
    assert await entry.total("backstop_served_total", revision=canary.revision, outcome="success") == 1


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        ({}, "there is no key of any caller; add one"),
        ({"a": " \n"}, "there is no key of any caller; add one"),
        ({"a": ALICE, "b": f"{BOB}\n{ALICE}"}, "callers `a` and `b` have the same key; make another for one"),
        ({"a": "fifteen-letters"}, "a key of caller `a` has fewer than 16 characters"),
        ({"a": "sixteen letters or more"}, "or some that no header carries"),
        ({"a": "sixteen-lettérs-or-more"}, "or some that no header carries"),
    ],
)
def test_keys_that_cannot_be_used_are_refused_without_repeating_them(texts: dict[str, str], why: str) -> None:
    with pytest.raises(KeysError) as refused:
        CallerKeys(texts)
    assert why in str(refused.value)
    assert not [key for text in texts.values() for key in text.splitlines() if key.strip() and key in str(refused.value)]
