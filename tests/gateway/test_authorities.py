"""Whom a gateway takes a server's word from: real TLS, with authorities of the test's own."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from backstop.gateway.compilation import compile_revision
from backstop.gateway.main import main
from backstop.gateway.revision import ConfigurationError
from e2e.fakemodel.app import FakeModel
from e2e.fakemodel.script import Rule
from tests.certificates import Authority

from .harness import Gateways, Model, eventually, gateway_process, listening, make_record, model_tier, static_tier
from .test_human_tier import KEYS, Webhook, arrived, human_tier
from .test_manifests import policy, prompt, written
from .test_quality import Judge, answers_judged

OURS, THEIRS = Authority("ours"), Authority("theirs")
TRACES: dict[str, Any] = {"traces": {"caBundleRef": {"name": "authorities", "key": "ca.pem"}}}


@asynccontextmanager
async def secured(folder: Path, *, by: Authority = OURS, address: str = "127.0.0.1", chain: str = "") -> AsyncIterator[Model]:
    """A model that speaks TLS, by a certificate for `address`."""
    fake = FakeModel(random=Random(1))
    async with listening(fake.application(), tls=by.server(folder, address=address, chain=chain)) as at:
        yield Model(fake, at)


def secured_tier(url: str, *, name: str = "primary", bundle: bool = True) -> dict[str, Any]:
    """A model tier over TLS. `bundle`: whether it has authorities of its own, in the record's contents."""
    tier = model_tier(url, name=name, firstTokenMilliseconds=2000)
    tier["model"]["baseURL"] = f"https://{url}/v1"
    if bundle:
        tier["model"]["caBundleRef"] = {"name": "authorities", "key": "ca.pem"}
    return tier


async def test_a_server_is_asked_whom_the_authorities_of_its_bundle_vouch_for(gateways: Gateways, tmp_path: Path) -> None:
    async with secured(tmp_path) as model:
        record = make_record([secured_tier(model.url)], contents={"primary": f"{THEIRS.pem}# and\n{OURS.pem}"})
        gateway = await gateways.start(record)
        for stream in (False, True):
            assert (await gateway.chat(stream=stream)).text == "All is well."
        assert await gateway.total("backstop_attempts_total", target="primary", outcome="success") == 2


async def test_an_authority_in_the_middle_is_trusted_without_the_one_above_it(gateways: Gateways, tmp_path: Path) -> None:
    below = Authority("below", above=OURS)
    async with secured(tmp_path, by=below) as model:
        gateway = await gateways.start(make_record([secured_tier(model.url)], contents={"primary": below.pem}))
        assert (await gateway.chat()).text == "All is well."


@pytest.mark.parametrize(
    ("by", "address", "why"),
    [
        (THEIRS, "127.0.0.1", "unable to get local issuer certificate"),
        (OURS, "127.0.0.2", "it is made out to another address"),
    ],
    ids=["another authority", "another server"],
)
async def test_a_server_that_is_not_who_it_should_be_is_never_sent_anything(
    gateways: Gateways, tmp_path: Path, caplog: pytest.LogCaptureFixture, by: Authority, address: str, why: str
) -> None:
    async with secured(tmp_path, by=by, address=address) as model:
        bundle = {"primary": OURS.pem}
        said = f"the certificate of tier `primary` is not to be trusted: {why}"
        gateway = await gateways.start(make_record([secured_tier(model.url), static_tier()], contents=bundle))
        with caplog.at_level(logging.WARNING, logger="backstop.gateway"):
            answers = [await gateway.chat() for _ in range(3)]
        assert {(got.status, got.said("tier"), got.said("reason")) for got in answers} == {(200, "static", "DependencyFailure")}
        assert await gateway.total("backstop_attempts_total", target="primary", outcome="DependencyFailure") == 1, "then it is left alone"
        assert await gateway.total("backstop_handoffs_total", to="static", failure_mode="DependencyFailure") == 3
        assert await gateway.total("backstop_target_up", target="primary") == 0
        assert caplog.messages == [f"{said}; it is tried again every 30 s"]
        alone = await gateways.start(make_record([secured_tier(model.url)], contents=bundle))
        refusal = await alone.chat()
        assert (refusal.status, refusal.json["error"]["message"]) == (502, f"no tier of the chain answered: {said}")
        assert model.fake.total == 0


@pytest.mark.long
async def test_a_gateway_of_its_own_says_so_too(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """As in a pod, on uvloop, which speaks TLS by code of its own."""
    async with secured(tmp_path) as model:
        for bundle, answered in ((OURS, "All is well."), (THEIRS, "not to be trusted: unable to get local issuer certificate")):
            record = make_record([secured_tier(model.url)], contents={"primary": bundle.pem})
            async with gateway_process(record, http=http, folder=tmp_path) as process:
                got = await process.gateway.chat()
                assert answered in (got.text if got.status == 200 else got.json["error"]["message"])
        assert model.fake.total == 1


async def test_a_server_under_another_name_is_refused_and_its_name_is_not_told(gateways: Gateways, tmp_path: Path) -> None:
    async with secured(tmp_path) as model:
        tier = secured_tier(model.url.replace("127.0.0.1", "localhost"))
        gateway = await gateways.start(make_record([tier], contents={"primary": OURS.pem}))
        message = (await gateway.chat()).json["error"]["message"]
        assert message.endswith("the certificate of tier `primary` is not to be trusted: it is made out to another host")
        assert model.fake.total == 0


async def test_a_bundle_stands_for_its_own_target_alone_and_in_place_of_the_systems_authorities(
    gateways: Gateways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Authority("known", by_the_book=True)
    (tmp_path / "system.pem").write_text(known.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    async with secured(tmp_path) as ours, secured(tmp_path, by=known) as theirs:
        chain = [secured_tier(theirs.url, name="known", bundle=False), secured_tier(ours.url, name="private")]
        gateway = await gateways.start(make_record(chain, contents={"private": OURS.pem}))
        assert (await gateway.chat()).said("tier") == "known"
        theirs.script(Rule(error_percent=100))
        assert (await gateway.chat()).said("tier") == "private"
        theirs.script()
        refusing = await gateways.start(make_record([secured_tier(theirs.url)], contents={"primary": OURS.pem}))
        refusal = await refusing.chat()
        assert "is not to be trusted" in refusal.json["error"]["message"], "the system trusts it, and its bundle does not"
        unknown = await gateways.start(make_record([secured_tier(ours.url, bundle=False)]))
        assert (await unknown.chat()).status == 502


async def test_a_connection_is_not_lent_to_a_target_that_trusts_others(gateways: Gateways, tmp_path: Path) -> None:
    async with secured(tmp_path) as model:
        chain = [secured_tier(model.url, name="trusting"), secured_tier(model.url, name="distrusting")]
        gateway = await gateways.start(make_record(chain, contents={"trusting": OURS.pem, "distrusting": THEIRS.pem}))
        model.script(Rule(latency_milliseconds=100))
        assert {got.said("tier") for got in await asyncio.gather(gateway.chat(), gateway.chat())} == {"trusting"}
        model.script(Rule(error_percent=100))
        assert (await gateway.chat()).status == 502
        assert await gateway.total("backstop_attempts_total", target="distrusting") == 1
        assert model.fake.total == 3, "none of them by the second tier, while a connection of the first was free"


async def test_a_scorer_is_asked_whom_its_bundle_vouches_for(gateways: Gateways, model: Model, tmp_path: Path) -> None:
    judge = Judge()
    async with listening(judge.application(), tls=OURS.server(tmp_path)) as address:
        http = {"url": f"https://{address}/score", "timeoutMilliseconds": 20_000, "caBundleRef": {"name": "authorities", "key": "ca.pem"}}
        quality = {"samplePercent": 100, "scorers": [{"name": "judge", "type": "HTTP", "http": http}]}
        for bundle, label in ((OURS, "pass"), (THEIRS, "error")):
            record = make_record([model_tier(model.url)], quality=quality, contents={"scorers/judge": bundle.pem})
            gateway = await gateways.start(record)
            await gateway.chat()
            assert await answers_judged(gateway, 1) == {("judge", label): 1}
        assert len(judge.asked) == 1
        failure = (await gateway.status())["quality"]["scorers"]["judge"]["failure"]
        assert failure == "its certificate is not to be trusted: unable to get local issuer certificate"


async def test_a_ticket_is_sent_to_whom_its_bundle_vouches_for(
    gateways: Gateways, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook = Webhook()
    async with listening(hook.application(), tls=OURS.server(tmp_path)) as address:
        tier = human_tier(f"https://{address}/tickets")
        tier["human"]["webhook"]["caBundleRef"] = {"name": "authorities", "key": "ca.pem"}
        for bundle in (THEIRS, OURS):
            folder = tmp_path / ("theirs" if bundle is THEIRS else "ours")
            folder.mkdir()
            record = make_record([model_tier("127.0.0.1:1"), tier, static_tier()], contents={"people": bundle.pem})
            gateway = await gateways.start(record, keys=KEYS, tickets_folder=folder)
            assert (await gateway.chat()).said("tier") == "people"
            if bundle is THEIRS:

                async def told() -> bool:
                    return any("has a certificate that is not to be trusted" in message for message in caplog.messages)

                await eventually(told)
                assert hook.seen == []
        await arrived(hook, are=1)


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ({}, "is not in the record's `contents`; let the operator write the record"),
        ({"primary": "ca"}, "cannot be used: it holds no certificate; give those of the authorities as PEM, each of which begins with"),
    ],
)
def test_a_record_without_its_bundle_is_refused_at_the_start(contents: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compile_revision(make_record([secured_tier("llm.example")], contents=contents), environment={})
    assert str(refused.value).startswith(f"the CA bundle `ca.pem` of ConfigMap `authorities` {sentence}")


def test_a_bundle_for_traces_that_cannot_be_used_is_refused_at_the_start() -> None:
    record = make_record([static_tier()], serving=TRACES, contents={"serving/traces": "ca"})
    with pytest.raises(ConfigurationError) as refused:
        compile_revision(record, environment={})
    assert str(refused.value).startswith("the CA bundle of `spec.serving.traces.caBundleRef` cannot be used: it holds no certificate")
    record = make_record([static_tier()], serving=TRACES, contents={"serving/traces": OURS.pem})
    assert (compile_revision(record, environment={}).trace_authorities or "").strip() == OURS.pem.strip()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (OURS.pem, ""),
        ("", "ConfigMap `authorities`: `data`, `ca.pem`: it is empty; give the certificates of the authorities as PEM"),
        (OURS.pem + OURS.private_key, "`data`, `ca.pem`: it holds a private key, which many can read here; take it out, and use another"),
        (None, "`spec.chain[0].model.caBundleRef` names the ConfigMap `authorities`, which no file has in namespace `shop`"),
    ],
)
def test_a_check_says_of_a_bundle_what_a_start_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str | None, sentence: str
) -> None:
    objects = [policy("support", "shop", chain=[secured_tier("llm.example")], latencyBudgetMilliseconds=2000), prompt("shop", text="Shop.")]
    if data is not None:
        metadata = {"name": "authorities", "namespace": "shop"}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.pem": data}})
    file = written(tmp_path, *objects)
    if not sentence:
        main(["--manifests", str(file), "--check"])
        assert "primary" in capsys.readouterr().out
        return
    with pytest.raises(SystemExit) as ended:
        main(["--manifests", str(file), "--check"])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
