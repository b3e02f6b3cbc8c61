"""Which ConfigMaps a policy refers to, by a reading of its own that forgives: it must know of every place that the strict one does."""

from pathlib import Path
from typing import Any

import yaml

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.record import references_of
from backstop.controller.references import MapName, maps_of
from backstop.controller.seen import declared
from backstop.kube.resources import POLICIES

EVERY = Path(__file__).parents[1] / "crds" / "valid" / "policy-authorities.yaml"


def maps(spec: dict[str, Any]) -> frozenset[MapName]:
    metadata = {"name": "support", "namespace": "shop", "uid": "u", "resourceVersion": "1"}
    return maps_of(declared({"metadata": metadata, "spec": spec}, resource=POLICIES))


def test_whatever_a_policy_can_refer_to_is_watched() -> None:
    spec = yaml.safe_load(EVERY.read_text(encoding="utf-8"))["spec"]
    strict = references_of(FallbackPolicySpec.model_validate(spec))
    assert list(strict) == ["primary", "kept", "people", "rules", "static", "scorers/judge", "serving/traces"]
    assert maps(spec) == {MapName("shop", reference.key.name) for reference in strict.values()}
    assert maps({"chain": [{"name": "primary", "model": {}}]}) == frozenset()


def test_a_spec_of_any_shape_is_read() -> None:
    odd = [5, {"model": "x"}, {"model": {"caBundleRef": []}}, {"human": {"webhook": None}}, {"cache": {"warm": {"redis": 1}}}]
    assert maps({"chain": odd, "quality": {"scorers": {"http": {}}}}) == frozenset()
    assert maps({"chain": {"caBundleRef": 1}, "quality": [1], "serving": "x"}) == frozenset()
    assert maps({"serving": {"traces": {"caBundleRef": "x"}}}) == frozenset()
