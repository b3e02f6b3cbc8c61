"""A tier of people, over real sockets: the caller gets a ticket's id at once, the webhook the ticket once, whatever happens between."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import socket
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from backstop.api.names import SYNTHETIC_HEADER
from backstop.api.record import RevisionRecord
from backstop.gateway.compilation import compile_revision
from backstop.gateway.listen import bind
from backstop.gateway.main import main
from backstop.gateway.revision import ConfigurationError
from backstop.gateway.ticket import LONGEST_RETRY_SECONDS, MOST_BYTES, Ticket, retry_seconds
from backstop.gateway.ticketstore import TicketStore

from .harness import NOBODY, Gateway, Gateways, Seen, TrafficApi, eventually, listening, make_record, model_tier, state, static_tier

SECRET = "whsec_" + base64.b64encode(b"a key of twenty-four byt").decode()
KEYS = {"BACKSTOP_WEBHOOK_SECRET_1": SECRET}


class Webhook:
    """Takes tickets, or answers with the statuses that it is told first."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.statuses: list[int] = []

    @property
    def taken(self) -> list[Any]:
        return [json.loads(seen.body) for seen in self.seen]

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/tickets", self._take)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        self.seen.append(Seen(request.path, dict(request.headers), await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)


@pytest.fixture
async def webhook() -> AsyncIterator[tuple[Webhook, str]]:
    """A webhook that listens, and its address."""
    hook = Webhook()
    async with listening(hook.application()) as address:
        yield hook, f"http://{address}/tickets"


def human_tier(url: str, **more: Any) -> dict[str, Any]:
    hook = {"url": url, "secretRef": {"name": "desk", "key": "secret"}}
    return {"name": "people", "human": {"webhook": hook, "acknowledgement": "A person answers {{ticket}} ({{ticket}})."} | more}


def peopled(url: str, *, prompt: str = "Plan: {{plan}}.", **more: Any) -> RevisionRecord:
    chain = [model_tier(NOBODY, firstTokenMilliseconds=2000), human_tier(url, **more), static_tier()]
    return make_record(chain, prompt=prompt, variables=[{"name": "plan", "default": "free"}])


async def waiting(gateway: Gateway, *, are: int) -> None:
    async def look() -> bool:
        return await gateway.total("backstop_tickets_waiting", tier="people") == are

    await eventually(look)


async def arrived(hook: Webhook, *, are: int) -> None:
    async def look() -> bool:
        return len(hook.seen) >= are

    await eventually(look)


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.sqlite3"))


def ticket_in(text: str) -> str:
    first, second = text.removeprefix("A person answers ").removesuffix(").").split(" (")
    assert first == second
    return first


@pytest.mark.parametrize("stream", [False, True])
async def test_w62_the_caller_gets_a_tickets_id_and_the_webhook_the_ticket(
    gateways: Gateways, webhook: tuple[Webhook, str], tmp_path: Path, stream: bool
) -> None:
    hook, url = webhook
    record = peopled(url)
    gateway = await gateways.start(record, keys=KEYS, tickets_folder=tmp_path)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Hélp 🙂"}]
    before = int(time.time())
    got = await gateway.chat(messages=messages, metadata={"plan": 'g"old'}, stream=stream, headers={"Accept-Language": "de"})
    assert (got.status, got.said("tier"), got.said("model"), got.said("reason")) == (200, "people", "backstop/human", "DependencyFailure")
    ticket = ticket_in(got.text)
    finishes = [c["finish_reason"] for e in (got.events if stream else [got.json]) for c in e["choices"]]
    assert finishes[-1] == "stop"
    await arrived(hook, are=1)
    seen = hook.seen[0]
    assert (seen.headers["webhook-id"], seen.headers["Idempotency-Key"]) == (ticket, ticket)
    sent_at = seen.headers["webhook-timestamp"]
    assert before <= int(sent_at) <= time.time()
    signed = hmac.new(b"a key of twenty-four byt", f"{ticket}.{sent_at}.".encode() + seen.body, hashlib.sha256).digest()
    assert seen.headers["webhook-signature"] == "v1," + base64.b64encode(signed).decode()
    (told,) = hook.taken
    assert told["type"] == "ticket.opened"
    assert told["data"] == {
        "ticket": ticket,
        "namespace": "default",
        "policy": "support",
        "revision": record.revision,
        "prompt_version": "support-1",
        "request_id": got.said("request-id"),
        "reason": "DependencyFailure",
        "languages": "de",
        "question": "Hélp 🙂",
        "messages": messages,
        "messages_left_out": 0,
        "variables": {"plan": 'g"old'},
        "variables_left_out": 0,
    }
    await waiting(gateway, are=0)
    assert await gateway.total("backstop_tickets_total", result="delivered") == 1
    assert len(hook.seen) == 1


async def test_w62_a_webhook_that_is_down_gets_the_ticket_once_later_also_after_a_restart(gateways: Gateways, tmp_path: Path) -> None:
    port = bind("127.0.0.1", port=0, option="--port")
    url = f"http://127.0.0.1:{port.getsockname()[1]}/tickets"
    port.close()
    first = await gateways.start(peopled(url), keys=KEYS, tickets_folder=tmp_path)
    ticket = ticket_in((await first.chat()).text)
    await waiting(first, are=1)
    await first.stop()
    hook = Webhook()
    again = socket.create_server(("127.0.0.1", port_of(url)))
    async with listening(hook.application(), at=again):
        second = await gateways.start(peopled(url), keys=KEYS, tickets_folder=tmp_path)
        await arrived(hook, are=1)
        await waiting(second, are=0)
    assert [told["data"]["ticket"] for told in hook.taken] == [ticket]


def port_of(url: str) -> int:
    return int(url.split(":")[2].split("/")[0])


async def test_w62_a_full_queue_hands_over_to_the_next_tier(gateways: Gateways, tmp_path: Path) -> None:
    gateway = await gateways.start(peopled(f"http://{NOBODY}/", queueLimit=2), keys=KEYS, tickets_folder=tmp_path)
    answers = [await gateway.chat() for _ in range(3)]
    assert [got.said("tier") for got in answers] == ["people", "people", "static"]
    assert await gateway.total("backstop_handoffs_total", **{"from": "people", "failure_mode": "ResourceExhaustion"}) == 1
    assert [await gateway.total("backstop_tickets_total", result=r) for r in ("queued", "refused")] == [2, 1]


@pytest.mark.parametrize("status", [503, 429, 403])
async def test_w62_a_ticket_that_was_refused_is_sent_again_under_the_same_id(
    gateways: Gateways, webhook: tuple[Webhook, str], tmp_path: Path, status: int
) -> None:
    hook, url = webhook
    hook.statuses = [status]
    gateway = await gateways.start(peopled(url), keys=KEYS, tickets_folder=tmp_path)
    ticket = ticket_in((await gateway.chat()).text)
    await arrived(hook, are=2)
    await waiting(gateway, are=0)
    assert [seen.headers["webhook-id"] for seen in hook.seen] == [ticket, ticket]
    assert hook.seen[0].body == hook.seen[1].body
    assert [await gateway.total("backstop_tickets_total", result=r) for r in ("failed", "delivered")] == [1, 1]


async def test_a_ticket_that_the_webhook_does_not_want_holds_no_other_up(
    gateways: Gateways, webhook: tuple[Webhook, str], tmp_path: Path
) -> None:
    hook, url = webhook
    hook.statuses = [422] * 2
    gateway = await gateways.start(peopled(url), keys=KEYS, tickets_folder=tmp_path)
    first = ticket_in((await gateway.chat()).text)
    await arrived(hook, are=2)
    second = ticket_in((await gateway.chat()).text)
    await arrived(hook, are=4)
    assert [seen.headers["webhook-id"] for seen in hook.seen] == [first, first, second, first]


async def test_where_no_ticket_can_be_kept_the_next_tier_answers(gateways: Gateways, webhook: tuple[Webhook, str], tmp_path: Path) -> None:
    hook, url = webhook
    no_folder = tmp_path / "file"
    no_folder.write_text("")
    got = await (await gateways.start(peopled(url), keys=KEYS, tickets_folder=no_folder)).chat()
    assert (got.said("tier"), got.text, hook.seen) == ("static", "Not now.", [])


async def test_w57_a_tenant_whose_requests_may_not_go_there_gets_no_ticket(
    gateways: Gateways, webhook: tuple[Webhook, str], tmp_path: Path
) -> None:
    hook, url = webhook
    chain = [model_tier(NOBODY), human_tier(url), static_tier()]
    chain[0]["model"]["jurisdiction"] = "EU"
    chain[1]["human"]["webhook"]["jurisdiction"] = "US"
    residency = {"allowedJurisdictions": ["EU", "US"], "tenants": [{"name": "home", "allowedJurisdictions": ["EU"]}]}
    record = make_record(chain, access={"tenantHeader": "x-tenant"}, residency=residency)
    gateway = await gateways.start(record, keys=KEYS, tickets_folder=tmp_path)
    assert (await gateway.chat(headers={"x-tenant": "home"})).said("tier") == "static"
    assert (await gateway.chat(headers={"x-tenant": "other"})).said("tier") == "people"
    await arrived(hook, are=1)
    assert await gateway.total("backstop_handoffs_total", **{"from": "people", "failure_mode": "PolicyViolation"}) == 1


async def test_the_last_messages_that_fit_are_told_and_the_others_counted(
    gateways: Gateways, webhook: tuple[Webhook, str], tmp_path: Path
) -> None:
    hook, url = webhook
    gateway = await gateways.start(peopled(url), keys=KEYS, tickets_folder=tmp_path)
    long = {"role": "user", "content": "x" * MOST_BYTES}
    await gateway.chat(messages=[{"role": "user", "content": "1"}, long, {"role": "user", "content": "2"}])
    await arrived(hook, are=1)
    told = hook.taken[0]["data"]
    assert (told["messages"], told["messages_left_out"]) == ([{"role": "user", "content": "2"}], 2)


async def test_a_probes_requests_open_no_ticket(gateways: Gateways, webhook: tuple[Webhook, str], api: TrafficApi, tmp_path: Path) -> None:
    hook, url = webhook
    stable, canary = peopled(url), peopled(url, prompt="Other: {{plan}}.")
    api.write(state(1, stable=stable.revision, canary=canary.revision, permille=1))
    folders = [tmp_path / name for name in ("stable", "canary")]
    for folder in folders:
        folder.mkdir()
    behind = await gateways.start(canary, api=api, keys=KEYS, tickets_folder=folders[1])
    entry = await gateways.start(stable, api=api, keys=KEYS, tickets_folder=folders[0])
    await entry.acts_on(1)
    await behind.acts_on(1)
    got = await entry.chat(headers={SYNTHETIC_HEADER: canary.revision})
    assert (got.said("track"), got.said("tier")) == ("canary", "static")
    assert (await entry.chat()).said("tier") == "people"
    await arrived(hook, are=1)
    assert [told["data"]["revision"] for told in hook.taken] == [stable.revision]


async def test_a_gateway_takes_over_what_one_that_is_gone_has_left(tmp_path: Path) -> None:
    gone, other, stays = (TicketStore(tmp_path, stem=stem, now=time.time) for stem in ("tickets-a", "tickets-b", "tickets-a"))
    for store, identity in ((gone, "1"), (other, "2")):
        assert await store.add(Ticket(identity, b"{}"), most=9)
    assert await stays.due() is None
    assert await stays.take_over() == 0, "it is still there"
    await gone.close()
    await other.close()
    assert await stays.take_over() == 1, "those of another policy are not ours"
    assert await stays.due() == Ticket("1", b"{}")
    assert await stays.take_over() == 0
    await stays.close()
    assert files(tmp_path) == ["tickets-a-1.sqlite3", "tickets-b-0.sqlite3"]


async def test_a_ticket_that_came_too_late_for_its_caller_is_forgotten(tmp_path: Path) -> None:
    store = TicketStore(tmp_path, stem="tickets", now=time.time)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await store.add(Ticket("1", b"{}"), most=9)
    assert await store.add(Ticket("2", b"{}"), most=9)
    assert await store.due() == Ticket("2", b"{}")
    assert store.waiting == 1
    await store.close()


async def test_a_damaged_file_is_put_aside_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tickets-0.sqlite3").write_bytes(b"no database" * 1000)
    store = TicketStore(tmp_path, stem="tickets", now=lambda: 7.0)
    assert await store.add(Ticket("1", b"{}"), most=9)
    await store.close()
    assert (tmp_path / "tickets-0.sqlite3.damaged-7").read_bytes().startswith(b"no database")
    assert "put aside" in caplog.text
    with contextlib.closing(sqlite3.connect(tmp_path / "tickets-0.sqlite3")) as database:
        assert database.execute("SELECT identity FROM tickets").fetchall() == [("1",)]


async def test_a_ticket_of_a_clock_that_was_ahead_is_not_kept_waiting(tmp_path: Path) -> None:
    ahead = TicketStore(tmp_path, stem="tickets", now=lambda: 1_000_000.0)
    assert await ahead.add(Ticket("1", b"{}"), most=9)
    await ahead.close()
    store = TicketStore(tmp_path, stem="tickets", now=lambda: 0.0)
    assert await store.due() == Ticket("1", b"{}")
    await store.close()


def test_tries_are_further_and_further_apart_up_to_a_bound() -> None:
    assert [retry_seconds(tries) for tries in (1, 2, 3, 10, 10_000)] == [1.0, 2.0, 4.0, LONGEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS]


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [
        ("", "it is empty; give the Secret `desk` with `secret`, or set `BACKSTOP_WEBHOOK_SECRET_1`"),
        ("short", "Secret `desk`, `secret`: it is shorter than 16 bytes; give another"),
        ("whsec_abc", "Secret `desk`, `secret`: what follows `whsec_` is not base64; give another"),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused_at_the_start(secret: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compile_revision(peopled("http://desk/"), environment={"BACKSTOP_WEBHOOK_SECRET_1": secret})
    assert str(refused.value) == f"`spec.chain[1].human.webhook.secretRef`: {sentence}"


def test_a_webhook_on_a_metadata_address_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"`spec\.chain\[1\]\.human\.webhook\.url` is a link-local or metadata address"):
        compile_revision(peopled("http://169.254.169.254/"), environment=KEYS)


def test_a_gateway_without_a_folder_for_tickets_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSTOP_WEBHOOK_SECRET_1", SECRET)
    file = tmp_path / "revision.json"
    file.write_text(peopled("http://desk/").model_dump_json(exclude_defaults=True))
    with pytest.raises(SystemExit):
        main(["--record", str(file), "--port", "0", "--metrics-port", "0"])
    assert "`human` of tier `people` needs a folder for its tickets; give one to `--tickets-folder`" in capsys.readouterr().err
