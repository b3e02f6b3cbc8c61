"""What is read by its name, and what a watch tells while it is read: over real sockets, in the order in which it goes wrong."""

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from backstop.controller.keys import Key, PolicyKey, PromptKey
from backstop.controller.seen import Declared, declared
from backstop.controller.store import Store
from backstop.controller.writes import Writes
from backstop.kube.resources import PROMPT_VERSIONS
from tests.kube.test_failures import client_of

POLICY, PROMPT = PolicyKey("shop", "support"), PromptKey("shop", "v2")


def prompt(uid: str, *, version: int) -> Declared:
    body: dict[str, Any] = {"metadata": {"name": "v2", "namespace": "shop", "uid": uid, "resourceVersion": str(version)}}
    return declared(body | {"spec": {"prompt": "support", "version": uid}}, resource=PROMPT_VERSIONS)


@pytest.mark.parametrize("before", [None, prompt("old", version=10)], ids=["nothing", "an older one"])
async def test_what_was_made_while_it_was_looked_for_stays_known(tmp_path: Path, before: Declared | None) -> None:
    store, made = Store(), prompt("new", version=12)
    if before is not None:
        store.put(before)

    async def answer(_: web.Request) -> web.Response:
        store.put(made)  # the watch is ahead of the answer, which was true when it was given
        return web.json_response({"kind": "Status", "code": 404, "reason": "NotFound"}, status=404)

    async with client_of(tmp_path, answer) as client:
        writes = Writes(client, store=store, instance="test", wake=lambda _: None)
        await writes.refresh(PROMPT_VERSIONS, namespace="shop", name="v2", by=POLICY)
    assert store.prompt(PROMPT) == made


async def test_what_is_not_there_any_more_is_forgotten(tmp_path: Path) -> None:
    store = Store()
    store.put(prompt("old", version=10))
    woken: list[Key] = []

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "code": 404, "reason": "NotFound"}, status=404)

    async with client_of(tmp_path, answer) as client:
        writes = Writes(client, store=store, instance="test", wake=woken.append)
        await writes.refresh(PROMPT_VERSIONS, namespace="shop", name="v2", by=POLICY)
    assert (store.prompt(PROMPT), woken) == (None, [PROMPT])
