"""Which policy of the manifests a gateway runs, and what it refuses to guess."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from backstop.gateway.manifests import record_from_manifests
from backstop.gateway.revision import ConfigurationError

VERSION = "backstop.dev/v1alpha1"


def prompt(namespace: str, *, text: str) -> dict[str, Any]:
    spec = {"prompt": "answer", "version": "1.0.0", "messages": [{"role": "system", "content": text}]}
    return {"apiVersion": VERSION, "kind": "PromptVersion", "metadata": {"name": "answer-1", "namespace": namespace}, "spec": spec}


def policy(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    chain = [{"name": "static", "static": {"default": "Later."}}]
    least = {"promptVersion": "answer-1", "latencyBudgetMilliseconds": 400, "chain": chain}
    return {"apiVersion": VERSION, "kind": "FallbackPolicy", "metadata": {"name": name, "namespace": namespace}, "spec": least | spec}


def written(folder: Path, *objects: Mapping[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "m.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    return file


def test_policies_of_one_name_in_two_namespaces_do_not_hinder_the_choice_of_another(tmp_path: Path) -> None:
    file = written(tmp_path, policy("support", "shop"), policy("support", "desk"), policy("sales", "desk"), prompt("desk", text="Desk."))
    record, _, _ = record_from_manifests([file], policy="sales")
    assert (record.namespace, record.policy, record.prompt.messages[0].content) == ("desk", "sales", "Desk.")


def test_a_choice_between_two_namespaces_is_refused_with_both(tmp_path: Path) -> None:
    file = written(tmp_path, policy("support", "shop"), policy("support", "desk"), prompt("desk", text="Desk."))
    for chosen in (None, "support"):
        with pytest.raises(ConfigurationError) as refused:
            record_from_manifests([file], policy=chosen)
        assert str(refused.value) == (
            f"FallbackPolicy `support` is given in several namespaces: `shop` ({file}), `desk` ({file}); leave out all but one"
        )


def test_one_policy_twice_in_one_namespace_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, policy("support", "shop"), policy("support", "shop"))
    with pytest.raises(ConfigurationError, match="FallbackPolicy `support` is given twice, also in"):
        record_from_manifests([file], policy=None)


def test_the_address_of_a_shared_cache_comes_from_the_secret_that_is_given_too(tmp_path: Path) -> None:
    chain = [
        {"name": "primary", "model": {"baseURL": "http://models/v1", "name": "m1"}},
        {"name": "kept", "cache": {"hot": {}, "warm": {"redis": {"addressRef": {"name": "answers", "key": "url"}}}}},
    ]
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "answers", "namespace": "shop"},
        "stringData": {"url": "redis://r"},
    }
    file = written(tmp_path, policy("support", "shop", chain=chain), prompt("shop", text="Shop."), secret)
    assert record_from_manifests([file], policy=None)[1] == {"BACKSTOP_REDIS_ADDRESS_1": "redis://r"}


def test_a_field_that_is_null_is_a_field_that_is_not_set(tmp_path: Path) -> None:
    file = written(tmp_path, policy("support", "shop", slos=None, canary={"steps": None}, serving=None), prompt("shop", text="Shop."))
    plain = written(tmp_path / "plain", policy("support", "shop"), prompt("shop", text="Shop."))
    assert record_from_manifests([file], policy=None) == record_from_manifests([plain], policy=None)
