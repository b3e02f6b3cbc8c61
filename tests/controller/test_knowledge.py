"""What stands in a ConfigMap that a policy refers to, on a real API server: it is part of the revision, and what else changes is not."""

import json
from pathlib import Path
from typing import Any

import pytest

from backstop.api.names import RECORD_KEY
from backstop.kube.client import Client
from backstop.kube.connection import Connection, connect
from backstop.kube.errors import NotFound
from backstop.kube.resources import CONFIG_MAPS, Body
from e2e.cluster.apiserver import ApiServer
from tests.certificates import Authority

from .operators import running
from .proxy import GONE, Refusal, proxy
from .test_rights import grant
from .until import until
from .world import MANAGER, Behaviour, World, condition, policy_spec, small_world

pytestmark = pytest.mark.apiserver

QUICK = {"steps": [{"weight": 40, "holdSeconds": 1}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}
HELD = {"steps": [{"weight": 40, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 0}], "analysis": {"warmUpSeconds": 0}}
OLD = "entries:\n- {keywords: [refund], answer: Within 14 days.}\n"
NEW = "entries:\n- {keywords: [refund], answer: Within 30 days.}\n"


def chain(*, name: str = "kb", key: str = "answers.yaml") -> list[dict[str, Any]]:
    reference = {"name": name, "key": key}
    return [*policy_spec("v1")["chain"][:1], {"name": "static", "static": {"default": "Later.", "knowledgeBaseRef": reference}}]


async def put(world: World, text: str, *, name: str = "kb", key: str = "answers.yaml", **more: str) -> Body:
    metadata = {"name": name, "namespace": world.namespace}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {key: text, **more}}
    return await world.client.apply(CONFIG_MAPS, body=body, manager=MANAGER)


async def delete(world: World, name: str = "kb") -> None:
    body = await world.client.get(CONFIG_MAPS, namespace=world.namespace, name=name)
    await world.client.delete(CONFIG_MAPS, namespace=world.namespace, name=name, uid=body["metadata"]["uid"])


async def contents(world: World, revision: str) -> dict[str, str]:
    """What a revision's gateways run on, of what its policy refers to; waits for the record, which follows status."""

    async def look() -> dict[str, str] | None:
        try:
            record = await world.client.get(CONFIG_MAPS, namespace=world.namespace, name=f"{world.policy}-{revision}")
        except NotFound:
            return None
        found: dict[str, str] = json.loads(record["data"][RECORD_KEY])["contents"]
        return found

    return await until("the revision is recorded", look)


async def stable(world: World, *, knows: str, within: float = 30.0) -> str:
    """Wait until the stable revision was made of this text."""

    async def look() -> str | None:
        status = await world.status()
        revision = status.get("stable", {}).get("revision")
        is_ready = revision is not None and condition(status, "Ready")["status"] == "True"
        return str(revision) if is_ready and await contents(world, str(revision)) == {"static": knows} else None

    return await until("it is stable", look, within=within)


async def has(world: World, policy: str, *, part: str) -> bool:
    return part in await world.status(policy)


async def canary(world: World) -> str:
    status = await world.until_status("there is a canary", lambda s: "canary" in s)
    return str(status["canary"]["revision"])


async def test_c08_another_content_of_the_knowledge_base_is_a_new_revision_and_goes_through_a_canary(
    connection: Connection, world: World
) -> None:
    await world.prompt("v1")
    await put(world, OLD)
    await world.apply("v1", chain=chain(), canary=QUICK)
    async with running(connection, world):
        first = await stable(world, knows=OLD)
        await world.quiet()
        await put(world, NEW)
        second = await canary(world)
        assert await contents(world, second) == {"static": NEW}
        assert await contents(world, first) == {"static": OLD}, "a record is never changed"
        assert await stable(world, knows=NEW, within=60) == second != first
    assert await world.shares() == [0, 400, 1000, 0]


async def test_c08_what_else_changes_costs_no_write_and_is_not_even_read(connection: Connection, client: Client, world: World) -> None:
    async with small_world(client, namespace=f"{world.namespace}-b") as elsewhere:
        await world.prompt("v1")
        await put(world, OLD, notes="Of no use to anybody.")
        await world.apply("v1", chain=chain(), canary=QUICK)
        async with running(connection, world, sweep_seconds=0.5, everywhere=True) as operator:
            revision = await stable(world, knows=OLD)
            await world.quiet()

            def mine_of(paths: list[str]) -> list[str]:
                """Other tests have left policies on this API server."""
                return [path for path in paths if world.namespace in path]

            written, read = len(operator.writes), len(operator.reads)
            for text in ("a", "b"):
                await put(world, text, name="unrelated")
                await put(elsewhere, text)
                await put(elsewhere, text, name="unrelated")
            await delete(world, "unrelated")
            await operator.lists(2)
            await world.touch_status()  # a pass that has nothing to read
            await operator.lists(4)
            assert mine_of(operator.writes[written:]) == []
            assert [path for path in mine_of(operator.reads[read:]) if "/configmaps/" in path] == []
            await put(world, OLD, notes="Another note.")
            mine = f"api/v1/namespaces/{world.namespace}/configmaps/kb"

            async def looked() -> bool:
                return mine in operator.reads[read:]

            await until("it is looked at again", looked)
            await operator.lists(4)
            assert mine_of(operator.writes[written:]) == []
            assert operator.reads[read:].count(mine) == 1
            assert (await world.status())["stable"]["revision"] == revision


async def test_c08_the_same_content_under_another_name_is_the_same_revision(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await put(world, OLD)
    await put(world, OLD, name="kb-7f9c", key="kb.yaml")
    await world.apply("v1", chain=chain(), canary=QUICK)
    async with running(connection, world):
        revision = await stable(world, knows=OLD)
        applied = await world.apply("v1", chain=chain(name="kb-7f9c", key="kb.yaml"), canary=QUICK)
        generation = applied["metadata"]["generation"]
        status = await world.until_status("it is seen", lambda s: s.get("observedGeneration") == generation)
        assert (status["stable"]["revision"], "canary" in status) == (revision, False)
        assert condition(status, "Ready")["status"] == "True"


async def test_c08_a_knowledge_base_that_is_deleted_hurts_nothing_that_runs(connection: Connection, world: World, client: Client) -> None:
    await world.prompt("v1")
    await put(world, OLD)
    await world.apply("v1", chain=chain(), canary=HELD)
    async with running(connection, world):
        revision = await stable(world, knows=OLD)
        await put(world, NEW)
        held = await canary(world)
        await world.until_status("it has traffic", lambda s: s.get("canary", {}).get("weightVerifiedAt"))
        await delete(world)
        status = await world.until_status("it is missed", lambda s: condition(s, "ResolvedRefs")["status"] == "False")
        assert condition(status, "ResolvedRefs")["reason"] == "ConfigMapNotFound"
        assert condition(status, "ResolvedRefs")["message"] == (
            "`spec.chain[1].static.knowledgeBaseRef` names the ConfigMap `kb`, which does not exist in namespace "
            f"`{world.namespace}`; create it"
        )
        assert condition(status, "Accepted")["status"] == "True"
        await world.quiet()
        status = await world.status()
        assert (status["stable"]["revision"], status["canary"]["revision"]) == (revision, held)
        assert (await world.route()).permille == 400
        # Made anew from its record, although what that was made of is gone.
        await world.delete_deployment(f"support-{revision}")

        async def is_back() -> bool:
            try:
                return bool(await world.deployment(f"support-{revision}"))
            except NotFound:
                return False

        await until("stable has its Deployment", is_back)
        await put(world, OLD)
        status = await world.until_status("stable is asked for again", lambda s: "canary" not in s)
        assert (status["stable"]["revision"], status["lastRollout"]["outcome"]) == (revision, "Superseded")


async def test_c08_a_knowledge_base_that_comes_later_is_taken_up_and_a_missing_key_is_named(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await world.apply("v1", chain=chain(), canary=QUICK)
    async with running(connection, world):
        await world.until_status("it is missed", lambda s: condition(s, "ResolvedRefs")["reason"] == "ConfigMapNotFound")
        await put(world, OLD, key="other.yaml")
        said = await world.until_status("the key is missed", lambda s: "the key" in condition(s, "ResolvedRefs")["message"])
        assert condition(said, "ResolvedRefs")["message"] == (
            "`spec.chain[1].static.knowledgeBaseRef` names the key `answers.yaml`, which ConfigMap `kb` has no text under; "
            "correct one of them"
        )
        assert "stable" not in said
        await put(world, OLD)
        await stable(world, knows=OLD)
        assert "ConfigMapNotFound" in await world.events()


async def test_c08_a_bad_knowledge_base_is_one_sentence_and_never_a_rollout(connection: Connection, world: World) -> None:
    await world.prompt("v1")
    await put(world, OLD)
    await world.apply("v1", chain=chain(), canary=QUICK)
    async with running(connection, world):
        revision = await stable(world, knows=OLD)
        await put(world, OLD + "- {keywords: [hours], answers: {de: Um neun.}}\n")
        status = await world.until_status("it is said", lambda s: condition(s, "Accepted")["status"] == "False")
        assert condition(status, "Accepted")["reason"] == "KnowledgeBaseInvalid"
        assert condition(status, "Accepted")["message"] == (
            "ConfigMap `kb`, `answers.yaml`, cannot be used as a knowledge base: `entries[1].answers` is by locale, and `locale` does not "
            "say which of them is for everybody else; set it"
        )
        await world.quiet()
        status = await world.status()
        assert (status["stable"]["revision"], "canary" in status) == (revision, False)
        assert len([name for name in await world.names(CONFIG_MAPS) if name.startswith("support-")]) == len({"traffic", "record"})
        await put(world, NEW)
        await stable(world, knows=NEW, within=60)


async def test_other_authorities_are_a_new_revision_and_what_is_no_bundle_is_never_one(connection: Connection, world: World) -> None:
    old, new = Authority("old"), Authority("new")
    (first,) = policy_spec("v1")["chain"][:1]
    bundle = {"caBundleRef": {"name": "authorities", "key": "ca.crt"}}
    secured = first["model"] | bundle | {"baseURL": "https://llm.models.svc/v1"}
    tiers = [first | {"model": secured}, {"name": "static", "static": {"default": "Later."}}]
    await world.prompt("v1")
    await put(world, old.pem, name="authorities", key="ca.crt")
    await world.apply("v1", chain=tiers, canary=QUICK, serving=policy_spec("v1").get("serving", {}) | {"traces": bundle})
    async with running(connection, world):
        revision = (await world.stable_on("v1"))["stable"]["revision"]
        assert await contents(world, revision) == {first["name"]: old.pem, "serving/traces": old.pem}
        await put(world, new.pem + new.private_key, name="authorities", key="ca.crt")
        status = await world.until_status("it is said", lambda s: condition(s, "Accepted")["status"] == "False")
        assert condition(status, "Accepted")["reason"] == "CABundleInvalid"
        assert condition(status, "Accepted")["message"] == (
            "ConfigMap `authorities`, `ca.crt`, cannot be used as a CA bundle: it holds a private key, which many can read here; take it "
            "out, and use another key in its place"
        )
        assert "canary" not in status
        await put(world, old.pem + new.pem, name="authorities", key="ca.crt")
        another = await canary(world)
        both = old.pem + new.pem
        assert (another != revision, await contents(world, another)) == (True, {first["name"]: both, "serving/traces": both})


async def test_rules_that_cannot_be_compiled_are_not_accepted(connection: Connection, world: World) -> None:
    tiers = [*policy_spec("v1")["chain"][:1], {"name": "rules", "ruleEngine": {"rulesRef": {"name": "kb", "key": "answers.yaml"}}}]
    await world.prompt("v1")
    await put(world, "entries: [{when: request.txt == '', answer: a}]")
    await world.apply("v1", chain=tiers, canary=QUICK)
    async with running(connection, world):
        status = await world.until_status("it is said", lambda s: condition(s, "Accepted")["status"] == "False")
        said = condition(status, "Accepted")
        assert said["reason"] == "RulesInvalid"
        assert said["message"] == (
            "ConfigMap `kb`, `answers.yaml`, cannot be used as rules: "
            "`entries[0].when`: line 1, column 8: undeclared reference to 'request.txt'"
        )
        await put(world, "entries: [{when: request.text == '', answer: a}]")
        await world.until_status("it is accepted", lambda s: condition(s, "Accepted")["status"] == "True")


async def test_c08_what_changes_while_it_is_read_is_read_again(connection: Connection, world: World) -> None:
    """The answer to a read that began before a change may come after the watch has told of the change."""
    await world.prompt("v1")
    for name in ("kb", "kb-2"):
        await put(world, OLD, name=name)
    await world.apply("v1", chain=chain(), canary=HELD)
    await world.apply("v1", name="second", chain=chain(name="kb-2"), canary=HELD)
    async with running(connection, world) as operator:
        first = await stable(world, knows=OLD)
        await until("the second is stable too", lambda: has(world, "second", part="stable"))
        await world.quiet()
        release, begun = operator.hold_read(f"/namespaces/{world.namespace}/configmaps/kb")
        await put(world, OLD, notes="So that it is read again.")
        await begun.wait()
        await put(world, NEW)
        # A watch tells in order: who has heard of the second has heard of the first.
        await put(world, NEW, name="kb-2")
        await until("the second is known of", lambda: has(world, "second", part="canary"))
        release.set()
        assert await canary(world) != first
        assert await contents(world, await canary(world)) == {"static": NEW}


async def test_c08_what_changed_across_a_410_or_a_silent_watch_is_seen(api_server: ApiServer, world: World, tmp_path: Path) -> None:
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig):
        await world.prompt("v1")
        await put(world, OLD)
        await world.apply("v1", chain=chain(), canary=HELD)
        async with running(await connect(kubeconfig), world) as operator:
            first = await stable(world, knows=OLD)
            await world.quiet()
            maps = f"/api/v1/namespaces/{world.namespace}/configmaps"
            between.freeze_watches()
            await put(world, NEW)

            async def is_held() -> bool:
                return maps in between.held

            await until("the change is on its way", is_held)
            read = len(operator.reads)
            between.end_watches(GONE)
            assert await canary(world) != first
            # From where it is to watch on, and the watch.
            assert operator.reads[read:].count(maps[1:]) == 2


async def test_a_knowledge_base_that_cannot_be_read_keeps_no_canary_from_being_taken_back(
    api_server: ApiServer, world: World, tmp_path: Path
) -> None:
    async with proxy(api_server, folder=tmp_path) as (between, kubeconfig):
        await world.prompt("v1")
        await world.prompt("v2")
        await put(world, OLD)
        await world.apply("v1", chain=chain(), canary=HELD)
        async with running(await connect(kubeconfig), world):
            first = await stable(world, knows=OLD)
            await world.apply("v2", chain=chain(), canary=HELD)
            await world.until_status("it has traffic", lambda s: s.get("canary", {}).get("weightVerifiedAt"))
            between.refusal = Refusal(500, fits=lambda request: request.path.endswith("/configmaps/kb"))
            await put(world, OLD, notes="So that it is read again.")
            said = await world.until_status("it is said", lambda s: condition(s, "ResolvedRefs")["status"] == "False")
            assert "which cannot be read (GET /api/v1/" in condition(said, "ResolvedRefs")["message"]
            assert "it is tried again" in condition(said, "ResolvedRefs")["message"]
            world.behaviour["v2"] = Behaviour(bad=0.5)
            status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack")
            assert status["stable"]["revision"] == first
            assert (await world.route()).permille == 0
            between.refusal = None
            # Read again by itself: what is wanted is known, and was rejected.
            await world.until_status("it is read", lambda s: condition(s, "Stalled")["reason"] == "RolledBack", within=60)


async def test_b01_a_knowledge_base_that_is_slow_to_read_does_not_delay_the_write_that_takes_traffic_away(
    connection: Connection, world: World
) -> None:
    await world.prompt("v1")
    await world.prompt("v2")
    await put(world, OLD)
    await world.apply("v1", chain=chain(), canary=HELD)
    async with running(connection, world) as operator:
        first = await stable(world, knows=OLD)
        await world.apply("v2", chain=chain(), canary=HELD)
        await world.until_status("it has traffic", lambda s: s.get("canary", {}).get("weightVerifiedAt"))
        release, asked = operator.hold_read("/configmaps/kb")
        await put(world, OLD, notes="So that it is read again.")
        await asked.wait()
        world.behaviour["v2"] = Behaviour(bad=0.5)

        async def away() -> bool:
            return (await world.route()).permille == 0

        waited = []

        async def note() -> None:
            waited.append(operator.gave_up.is_set())

        operator.interfere("/configmaps/support-traffic", note)
        await until("its traffic is away", away)
        assert waited == [False], "the read was still waited for"
        release.set()
        status = await world.until_status("v2 is rolled back", lambda s: s.get("lastRollout", {}).get("outcome") == "RolledBack")
        assert status["stable"]["revision"] == first
        assert status["lastRollout"]["reason"] == "LatencyBreach"


async def test_c08_the_shipped_rights_are_enough_in_one_namespace(api_server: ApiServer, client: Client, world: World) -> None:
    user = f"operator-of-{world.namespace}"
    await grant(client, user=user, namespace=world.namespace)
    await world.prompt("v1")
    await put(world, OLD)
    await world.apply("v1", chain=chain(), canary=HELD)
    async with running(await connect(api_server.identity_kubeconfig(user)), world):
        await stable(world, knows=OLD)
        await put(world, NEW)
        assert await contents(world, await canary(world)) == {"static": NEW}
