"""Pinned and sticky callers over real gateways: who serves them, and what is counted of them."""

import pytest

from backstop.api.record import RevisionRecord
from backstop.api.traffic import Steering

from .harness import Gateways, Model, TrafficApi, eventually, state

PIN = "x-backstop-track"
REVISION_PIN = "x-backstop-pin"
HEADERS = Steering(sticky="x-user-id", pin=PIN)


async def test_t03_a_pin_reaches_a_ready_canary_at_weight_0_and_is_not_judged(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord, model: Model
) -> None:
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=0, steering=HEADERS))
    entry, behind = await gateways.start(stable, api=api), await gateways.start(canary, api=api)
    got = await entry.chat(headers={PIN: "canary", "x-user-id": "somebody"})
    assert (got.status, got.said("track"), got.said("revision")) == (200, "canary", canary.revision)
    assert model.sent()["messages"][0]["content"] == "You are the canary prompt."
    assert (await entry.chat()).said("track") == "stable"
    assert await entry.total("backstop_split_total", to="canary", reason="pinned") == 1
    assert await entry.total("backstop_sent_total", revision=canary.revision) == 0
    assert await entry.total("backstop_served_total", revision=canary.revision) == 0
    assert await entry.total("backstop_served_total", revision=stable.revision) == 1
    assert await behind.total("backstop_requests_total", track="canary", outcome="success") == 1
    assert await behind.total("backstop_served_total") == 0


async def test_t03_a_pin_never_reaches_a_rejected_canary(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord, model: Model
) -> None:
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=0, aborted=canary.revision, steering=HEADERS))
    entry, behind = await gateways.start(stable, api=api), await gateways.start(canary, api=api)
    assert (await entry.chat(headers={PIN: "canary"})).said("track") == "stable"
    assert (await behind.chat(headers={REVISION_PIN: canary.revision})).status == 421
    assert await behind.total("backstop_requests_total") == 0


async def test_t03_a_canary_that_is_rejected_meanwhile_declines_a_pin_and_stable_serves(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord, model: Model
) -> None:
    """The entry has an old view: the canary's own view decides, pinned or not."""
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=0, steering=HEADERS))
    entry = await gateways.start(stable, api=api, reread_seconds=3600)

    async def watching() -> bool:
        return api.watches == 1

    await eventually(watching)
    api.mute = True
    api.write(state(2, stable=stable.revision, canary=canary.revision, permille=0, aborted=canary.revision, steering=HEADERS))
    behind = await gateways.start(canary, api=api)
    assert (await entry.status())["generation"] == 1
    got = await entry.chat(headers={PIN: "canary"})
    assert (got.status, got.said("track")) == (200, "stable")
    assert await entry.total("backstop_split_total", to="self", reason="declined") == 1
    assert await behind.total("backstop_requests_total") == 0
    assert model.fake.total == 1


async def test_t03_a_pin_to_a_canary_without_a_pod_is_served_by_stable(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=0, steering=HEADERS))
    entry = await gateways.start(stable, api=api)
    got = await entry.chat(headers={PIN: "canary"})
    assert (got.status, got.said("track")) == (200, "stable")
    assert await entry.total("backstop_split_total", to="self", reason="connect_failed") == 1


async def test_a_pin_to_stable_stays_there_whatever_the_share(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=1000, steering=HEADERS))
    entry = await gateways.start(stable, api=api)
    await gateways.start(canary, api=api)
    assert (await entry.chat(headers={PIN: "stable"})).said("track") == "stable"
    assert (await entry.chat()).said("track") == "canary"
    assert await entry.total("backstop_served_total", revision=stable.revision) == 0


async def test_nobody_pins_where_no_header_is_declared(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=0))
    entry = await gateways.start(stable, api=api)
    await gateways.start(canary, api=api)
    assert (await entry.chat(headers={PIN: "canary"})).said("track") == "stable"


@pytest.mark.parametrize(("pod", "named", "status"), [("canary", "canary", 200), ("canary", "stable", 421), ("stable", "canary", 421)])
async def test_a_request_that_names_its_revision_is_served_by_that_revision_or_by_nobody(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord, pod: str, named: str, status: int
) -> None:
    """What a probe relies on: an answer is the canary's, or there is none."""
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=0))
    records = {"canary": canary, "stable": stable}
    asked = await gateways.start(records[pod], api=api)
    got = await asked.chat(headers={REVISION_PIN: records[named].revision})
    assert got.status == status
    assert await asked.total("backstop_served_total") == 0
    assert await asked.total("backstop_sent_total") == 0


async def test_what_reaches_the_pod_of_a_canary_without_a_share_is_not_judged(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=0))
    behind = await gateways.start(canary, api=api)
    assert (await behind.chat()).status == 200
    assert await behind.total("backstop_served_total") == 0
    api.write(state(2, stable=stable.revision, canary=canary.revision, permille=50))
    await behind.acts_on(2)
    assert (await behind.chat()).status == 200
    assert await behind.total("backstop_served_total", revision=canary.revision) == 1


@pytest.mark.long
async def test_t04_the_same_key_is_on_the_same_track_at_every_gateway_and_everyone_on_stable_after_a_rollback(
    gateways: Gateways, api: TrafficApi, stable: RevisionRecord, canary: RevisionRecord
) -> None:
    users = [f"user-{number}" for number in range(60)]
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=250, steering=HEADERS))
    one = await gateways.start(stable, api=api, seed=1)
    other = await gateways.start(stable, api=api, seed=2)
    behind = await gateways.start(canary, api=api)

    async def on_canary(gateway_number: int) -> set[str]:
        gateway = (one, other)[gateway_number]
        tracks = {user: (await gateway.chat(headers={"X-User-Id": user})).said("track") for user in users}
        return {user for user, track in tracks.items() if track == "canary"}

    first = await on_canary(0)
    assert 4 < len(first) < 29
    assert await on_canary(1) == first
    assert await on_canary(0) == first
    api.write(state(2, stable=stable.revision, canary=canary.revision, permille=500, steering=HEADERS))
    for gateway in (one, other, behind):
        await gateway.acts_on(2)
    assert first < await on_canary(1)
    api.write(state(3, stable=stable.revision, permille=0, aborted=canary.revision, steering=HEADERS))
    for gateway in (one, other, behind):
        await gateway.acts_on(3)
    assert await on_canary(0) == set()
    assert await one.total("backstop_split_total", reason="pinned") == 0
