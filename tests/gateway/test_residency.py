"""Where requests may go, over real sockets: what is abroad gets nothing of them, whatever happens at home."""

from pathlib import Path
from typing import Any

import pytest

from backstop.gateway.compilation import compile_revision
from backstop.gateway.revision import ConfigurationError
from e2e.fakemodel.script import Fault, Rule

from .harness import Gateways, Model, guarded_tier, make_record, static_tier
from .test_warm_cache import ADDRESS, shared_tier, written
from .valkey import valkey

BOTH = {"allowedJurisdictions": ["EU", "US"], "tenants": [{"name": "acme", "allowedJurisdictions": ["EU"]}]}
ACCESS = {"tenantHeader": "x-tenant"}
ACME, GLOBEX = {"x-tenant": "acme"}, {"x-tenant": "globex"}


def tier(url: str, place: str, *, name: str = "primary", time: int = 4000, **fields: Any) -> dict[str, Any]:
    """A model tier in a jurisdiction, asked for embeddings too."""
    made = guarded_tier(url, name=name, first_token=time) | fields
    made["model"] |= {"jurisdiction": place, "embeddingModel": "e"}
    return made


@pytest.mark.long
async def test_w57_no_request_reaches_a_target_outside_whatever_those_inside_do(
    model: Model, other_model: Model, gateways: Gateways
) -> None:
    quick = {"windowSeconds": 600, "minRequests": 10_000, "failurePercent": 100, "openSeconds": 600}
    home, abroad = tier(model.url, "EU", time=120, circuitBreaker=quick), tier(other_model.url, "US", name="abroad")
    faults = [
        Rule(),
        Rule(latency_milliseconds=60),
        Rule(error_percent=100, error_status=500),
        Rule(error_percent=100, error_status=400, error_body='{"error":{"code":"context_length_exceeded"}}'),
        Rule(fault=Fault.RESET),
        Rule(fault=Fault.HANG),
    ]
    chains = [
        [home | {"retries": 2, "hedgeAfterMilliseconds": 20}, abroad, static_tier()],
        [abroad | {"hedgeAfterMilliseconds": 20}, home, abroad | {"name": "again"}],
        [home | {"model": home["model"] | {"contextTokens": 10}}, abroad | {"model": abroad["model"] | {"contextTokens": 20}}],
    ]
    for chain in chains:
        gateway = await gateways.start(make_record(chain, budget=20_000, residency=BOTH, access=ACCESS))
        for rule in faults:
            model.script(rule)
            for fields in ({"stream": False}, {"stream": True}):
                got = await gateway.chat(headers=ACME, **fields)
                assert got.said("tier") in ("primary", "static", None)
            await gateway.post(b'{"input":"x"}', path="/v1/embeddings", headers=ACME)
    assert other_model.fake.total == 0
    assert model.fake.total > 30
    assert (await gateway.chat(headers=GLOBEX)).said("reason") == "LatencyBreach", "for others it is there"
    assert other_model.fake.total == 1


async def test_a_request_of_an_unknown_tenant_goes_where_each_of_them_may(model: Model, other_model: Model, gateways: Gateways) -> None:
    tenants = [{"name": "acme", "allowedJurisdictions": ["EU"]}, {"name": "zeta", "allowedJurisdictions": ["US"]}]
    residency = BOTH | {"tenants": tenants}
    chain = [tier(model.url, "EU"), tier(other_model.url, "US", name="second")]
    gateway = await gateways.start(make_record(chain, budget=20_000, residency=residency, access=ACCESS))
    got = await gateway.chat()
    assert (got.status, got.json["error"]["code"], got.headers["x-should-retry"]) == (403, "PolicyViolation", "false")
    assert (got.said("first-tier"), got.said("attempts"), got.said("hand-offs")) == ("skipped", "0", "1")
    assert (model.fake.total, other_model.fake.total) == (0, 0)
    answered = [(await gateway.chat(headers={"x-tenant": tenant})).said("tier") for tenant in ("acme", "zeta", "globex")]
    assert answered == ["primary", "second", "primary"]
    assert await gateway.total("backstop_handoffs_total", failure_mode="PolicyViolation", to="second") == 2


@pytest.mark.long
async def test_w57_a_redis_abroad_neither_keeps_nor_is_asked_for_what_may_not_go_there(
    model: Model, gateways: Gateways, tmp_path: Path
) -> None:
    kept = shared_tier()
    kept["cache"]["warm"]["jurisdiction"] = "US"
    record = make_record([tier(model.url, "EU"), kept], residency=BOTH, access=ACCESS)
    async with valkey(tmp_path) as server:
        gateway = await gateways.start(record, keys={ADDRESS: server.url})
        assert [(await gateway.chat(headers=ACME)).said("cache") for _ in range(2)] == ["miss", "hit"], "it is kept in memory"
        await gateway.chat(headers=GLOBEX)
        await written(gateway, 1)
        assert await server.redis.dbsize() == 1
        another = await gateways.start(record, keys={ADDRESS: server.url})
        assert [(await another.chat(headers=tenant)).said("cache") for tenant in (ACME, GLOBEX)] == ["miss", "hit"]
        assert await another.total("backstop_cache_lookups_total", level="warm") == 1


def test_a_record_that_leads_abroad_is_not_served() -> None:
    home = make_record([tier("models:80", "EU")], residency={"allowedJurisdictions": ["EU"]})
    for place in ("US", None):
        target = home.chain[0].model
        assert target is not None
        chain = [home.chain[0].model_copy(update={"model": target.model_copy(update={"jurisdiction": place})})]
        with pytest.raises(ConfigurationError, match=r"`spec.chain\[0\].model.jurisdiction` is not one of"):
            compile_revision(home.model_copy(update={"chain": chain}), environment={})
