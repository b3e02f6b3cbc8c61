"""The client against a real API server: preconditions, ownership of fields, pages, status."""

from uuid import uuid4

import pytest

from backstop.kube.client import PAGE, Client
from backstop.kube.errors import Conflict, NotFound, Rejected
from backstop.kube.events import event
from backstop.kube.resources import CONFIG_MAPS, EVENTS, PROMPT_VERSIONS, Body

pytestmark = pytest.mark.apiserver

ME = "me"


def config_map(name: str, **data: str) -> Body:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def fresh(prefix: str = "c") -> str:
    return f"{prefix}-{uuid4().hex[:8]}"


async def test_a_second_creation_is_a_conflict(client: Client) -> None:
    name = fresh()
    await client.create(CONFIG_MAPS, body=config_map(name), manager=ME)
    with pytest.raises(Conflict):
        await client.create(CONFIG_MAPS, body=config_map(name), manager=ME)


async def test_a_replacement_of_what_has_changed_since_is_a_conflict_and_changes_nothing(client: Client) -> None:
    read = await client.create(CONFIG_MAPS, body=config_map(fresh(), turn="first"), manager=ME)
    await client.replace(CONFIG_MAPS, body=read | {"data": {"turn": "second"}}, manager="other")
    with pytest.raises(Conflict):
        await client.replace(CONFIG_MAPS, body=read | {"data": {"turn": "third"}}, manager=ME)
    after = await client.get(CONFIG_MAPS, namespace="default", name=read["metadata"]["name"])
    assert after["data"] == {"turn": "second"}


async def test_a_replacement_needs_the_version_that_was_read(client: Client) -> None:
    with pytest.raises(ValueError, match="resourceVersion"):
        await client.replace(CONFIG_MAPS, body=config_map(fresh()), manager=ME)


async def test_apply_takes_away_what_it_had_set_and_leaves_what_others_set(client: Client) -> None:
    name = fresh()
    await client.apply(CONFIG_MAPS, body=config_map(name, mine="1", dropped="1"), manager=ME)
    await client.apply(CONFIG_MAPS, body=config_map(name, theirs="1"), manager="other")
    after = await client.apply(CONFIG_MAPS, body=config_map(name, mine="2"), manager=ME)
    assert after["data"] == {"mine": "2", "theirs": "1"}


async def test_apply_to_an_object_that_is_another_by_now_is_refused(client: Client) -> None:
    body = config_map(fresh())
    await client.create(CONFIG_MAPS, body=body, manager=ME)
    body["metadata"] |= {"uid": str(uuid4())}
    with pytest.raises((Conflict, Rejected)):
        await client.apply(CONFIG_MAPS, body=body, manager=ME)


async def test_a_deletion_of_an_object_that_is_another_by_now_is_a_conflict(client: Client) -> None:
    made = await client.create(CONFIG_MAPS, body=config_map(fresh()), manager=ME)
    name, uid = made["metadata"]["name"], made["metadata"]["uid"]
    with pytest.raises(Conflict):
        await client.delete(CONFIG_MAPS, namespace="default", name=name, uid=str(uuid4()))
    await client.delete(CONFIG_MAPS, namespace="default", name=name, uid=uid)
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAPS, namespace="default", name=name)


async def test_a_status_patch_is_fenced_and_leaves_the_spec(client: Client) -> None:
    name = fresh("p")
    spec = {"prompt": "p", "version": "1.0.0", "messages": [{"role": "system", "content": "Hello."}]}
    body = {
        "apiVersion": PROMPT_VERSIONS.api_version,
        "kind": PROMPT_VERSIONS.kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }
    made = await client.create(PROMPT_VERSIONS, body=body, manager=ME)
    version = made["metadata"]["resourceVersion"]
    written = await client.patch_status(
        PROMPT_VERSIONS, namespace="default", name=name, patch={"digest": "d"}, resource_version=version, manager=ME
    )
    assert (written["status"]["digest"], written["spec"]) == ("d", made["spec"])
    with pytest.raises(Conflict):
        await client.patch_status(
            PROMPT_VERSIONS, namespace="default", name=name, patch={"digest": "e"}, resource_version=version, manager=ME
        )


async def test_a_list_of_more_than_a_page_is_whole(client: Client) -> None:
    mark = fresh("m")
    for number in range(PAGE + 1):
        body = config_map(f"{mark}-{number}")
        body["metadata"]["labels"] = {"mark": mark}
        await client.create(CONFIG_MAPS, body=body, manager=ME)
    found, version = await client.list(CONFIG_MAPS, namespace="default", labels=f"mark={mark}")
    assert len({item["metadata"]["name"] for item in found}) == PAGE + 1
    assert int(version) >= max(int(item["metadata"]["resourceVersion"]) for item in found)


async def test_an_event_is_told_once(client: Client) -> None:
    made = await client.create(CONFIG_MAPS, body=config_map(fresh()), manager=ME)
    metadata = made["metadata"]
    told = event(
        CONFIG_MAPS,
        namespace="default",
        name=metadata["name"],
        uid=metadata["uid"],
        reason="StepStarted",
        message="é" * 3000,
        event_type="Normal",
        component="backstop-operator",
        instance="test",
        now=1_700_000_000.123,
    )
    await client.create(EVENTS, body=told, manager=ME)
    with pytest.raises(Conflict):
        await client.create(EVENTS, body=told, manager=ME)
