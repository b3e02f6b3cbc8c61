"""The traffic object, read and watched over real HTTP: changes, silence, and what cannot be read."""

import ssl
from pathlib import Path

from tests.certificates import Authority, make_certificate

from .harness import Gateways, TrafficApi, eventually, listening, make_record, model_tier, state, static_tier

RECORD = make_record([model_tier("127.0.0.1:1"), static_tier()])
MINE = RECORD.revision


async def test_a_change_is_acted_on_through_the_watch(gateways: Gateways, api: TrafficApi) -> None:
    api.write(state(1, stable=MINE))
    gateway = await gateways.start(RECORD, api=api, reread_seconds=3600)

    async def watching() -> bool:
        return api.watches == 1

    await eventually(watching)
    assert (await gateway.status())["generation"] == 1, "the first look is over before the pod is ready"
    api.write(state(2, stable=MINE, canary="c", permille=50))
    await gateway.acts_on(2)
    found = await gateway.status()
    assert {
        key: found[key] for key in ("revision", "role", "generation", "stable", "canary", "permille", "aborted", "draining", "inFlight")
    } == {
        "revision": MINE,
        "role": "stable",
        "generation": 2,
        "stable": MINE,
        "canary": "c",
        "permille": 50,
        "aborted": None,
        "draining": False,
        "inFlight": 0,
    }
    assert found["trafficReadAt"].endswith("Z")


async def test_a_silently_dead_watch_is_made_up_for_by_reading_again(gateways: Gateways, api: TrafficApi) -> None:
    api.write(state(1, stable=MINE))
    api.mute = True
    gateway = await gateways.start(RECORD, api=api, reread_seconds=0.3)

    async def watching() -> bool:
        return api.watches == 1

    await eventually(watching)
    api.write(state(2, stable=MINE, canary="c", permille=50))
    await gateway.acts_on(2)


async def test_an_older_generation_is_never_acted_on(gateways: Gateways, api: TrafficApi) -> None:
    api.write(state(5, stable=MINE, canary="c", permille=0, aborted="c"))
    gateway = await gateways.start(RECORD, api=api, reread_seconds=0.2)
    api.write(state(4, stable=MINE, canary="c", permille=500))
    reads = api.reads

    async def read_again() -> bool:
        return api.reads >= reads + 2

    await eventually(read_again)
    found = await gateway.status()
    assert (found["generation"], found["permille"]) == (5, 0)


async def test_unreadable_at_the_start_means_stable_without_a_share_and_heals(gateways: Gateways, api: TrafficApi) -> None:
    api.broken = True
    gateway = await gateways.start(RECORD, api=api, reread_seconds=0.3)
    found = await gateway.status()
    assert (found["role"], found["generation"], found["permille"], found["trafficReadAt"]) == ("stable", None, 0, None)
    assert (await gateway.chat()).text == "Not now."
    api.broken = False
    api.write(state(7, stable=MINE))
    await gateway.acts_on(7)


async def test_unreadable_later_means_going_on_with_what_is_known(gateways: Gateways, api: TrafficApi) -> None:
    api.write(state(3, stable=MINE, canary="c", permille=50))
    gateway = await gateways.start(RECORD, api=api, reread_seconds=0.2)
    for garbage in (None, {}, {"generation": "x", "stable": "s", "canary": "", "permille": "5", "aborted": ""}, {"permille": "2000"}):
        reads = api.reads
        api.write_raw(garbage)

        async def read_again(before: int = reads) -> bool:
            return api.reads >= before + 2

        await eventually(read_again)
        found = await gateway.status()
        assert (found["generation"], found["permille"]) == (3, 50)
        assert await gateway.ready()
    api.write(state(4, stable=MINE))
    await gateway.acts_on(4)


async def test_the_api_server_is_trusted_by_the_accounts_authority_alone(gateways: Gateways, api: TrafficApi, account: Path) -> None:
    api.write(state(1, stable=MINE))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    make_certificate(account, names=["server", "ca.crt"])
    context.load_cert_chain(account / "server", account / "server.key")
    async with listening(api.application(), tls=context) as address:
        api.url = f"https://{address}"
        make_certificate(account, names=["other", "ca.crt"])  # of somebody else
        gateway = await gateways.start(RECORD, api=api, reread_seconds=0.2)
        assert (await gateway.status())["generation"] is None
        (account / "ca.crt").write_bytes((account / "server").read_bytes())  # the authority was replaced
        await gateway.acts_on(1)


async def test_the_accounts_authority_may_be_one_in_the_middle_and_lack_what_python_asks_of_authorities(
    gateways: Gateways, api: TrafficApi, account: Path, tmp_path: Path
) -> None:
    api.write(state(1, stable=MINE))
    below = Authority("below", above=Authority("above"))
    async with listening(api.application(), tls=below.server(tmp_path)) as address:
        api.url = f"https://{address}"
        (account / "ca.crt").write_text(below.pem)
        gateway = await gateways.start(RECORD, api=api, reread_seconds=0.2)
        await gateway.acts_on(1)


async def test_a_replaced_token_is_used_from_the_next_read_on(gateways: Gateways, api: TrafficApi, account: Path) -> None:
    api.write(state(1, stable=MINE))
    await gateways.start(RECORD, api=api, reread_seconds=0.2)
    assert api.tokens[0] == "Bearer first-token"
    (account / "token").write_text("second-token\n")

    async def replaced() -> bool:
        return api.tokens[-1] == "Bearer second-token"

    await eventually(replaced)
