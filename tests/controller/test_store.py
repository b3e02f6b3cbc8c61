"""The store: the newest version wins, whatever the order in which it comes in."""

from typing import Any

from backstop.api.names import LABEL_POLICY, LABEL_REVISION
from backstop.controller.keys import PolicyKey, PromptKey
from backstop.controller.seen import Declared, PodSeen, declared, pod
from backstop.controller.store import GONE_KEPT, Listing, Store
from backstop.kube.resources import PODS, POLICIES, PROMPT_VERSIONS

POLICY = PolicyKey("shop", "support")


def body(name: str, *, version: int, uid: str = "u1", **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", "uid": uid, "resourceVersion": str(version), **rest.pop("metadata", {})}
    return {"metadata": metadata, **rest}


def policy(version: int, *, prompt: str = "v1", uid: str = "u1") -> Declared:
    return declared(body("support", version=version, uid=uid, spec={"promptVersion": prompt}), resource=POLICIES)


def gateway_pod(name: str, *, version: int) -> PodSeen:
    labels = {LABEL_POLICY: "support", LABEL_REVISION: "r1"}
    return pod(body(name, version=version, uid=name, metadata={"labels": labels}))


def test_an_older_version_never_replaces_a_newer_one() -> None:
    store = Store()
    store.put(policy(10, prompt="v2"))
    assert store.put(policy(9, prompt="v1")) == frozenset()
    known = store.policy(POLICY)
    assert known is not None
    assert known.spec["promptVersion"] == "v2"


def test_versions_are_numbers_not_text() -> None:
    store = Store()
    store.put(policy(9))
    assert store.put(policy(10)) == {POLICY}


def test_our_own_write_coming_back_concerns_nobody() -> None:
    store = Store()
    store.put(policy(10))
    assert store.put(policy(10)) == frozenset()


def test_a_deletion_of_an_object_that_was_made_anew_is_no_news() -> None:
    store = Store()
    store.put(policy(20, uid="new"))
    assert store.remove(policy(15, uid="old")) == frozenset()
    assert store.policy(POLICY) is not None


def test_a_list_that_was_read_before_a_deletion_brings_nothing_back() -> None:
    store = Store()
    store.put(policy(10))
    store.remove(policy(12))
    assert store.put(policy(11)) == frozenset()
    assert store.retire(Listing(POLICIES, None, "11", frozenset({("shop", "support")}))) == frozenset()
    assert store.policy(POLICY) is None
    assert store.put(policy(11)) == frozenset(), "nor does a late answer to a write"


def test_an_object_of_the_same_name_that_is_made_anew_is_seen() -> None:
    store = Store()
    store.put(policy(10))
    store.remove(policy(12))
    assert store.put(policy(13, uid="u2")) == {POLICY}


def test_an_object_that_is_labelled_ours_again_is_seen_again() -> None:
    store = Store()
    store.put(policy(10))
    store.remove(policy(12))
    assert store.put(policy(13)) == {POLICY}


def test_what_has_gone_is_remembered_within_bounds() -> None:
    store = Store()
    for number in range(GONE_KEPT + 10):
        store.remove(policy(number + 1, uid=f"u{number}"))
    assert store.put(policy(1, uid=f"u{GONE_KEPT + 9}")) == frozenset()
    assert store.put(policy(1, uid="u0")) == {POLICY}


def test_a_prompt_version_concerns_the_policies_that_name_it_now() -> None:
    store = Store()
    store.put(policy(1, prompt="v1"))
    prompt = declared(body("v1", version=2, uid="p1"), resource=PROMPT_VERSIONS)
    assert store.put(prompt) == {PromptKey("shop", "v1"), POLICY}
    store.put(policy(3, prompt="v2"))
    assert store.remove(prompt) == {PromptKey("shop", "v1")}


def test_a_fresh_list_takes_away_what_a_watch_missed_and_keeps_what_is_newer() -> None:
    store = Store()
    store.put(gateway_pod("gone", version=5))
    store.put(gateway_pod("younger-than-the-list", version=50))
    store.put(gateway_pod("there", version=6))
    assert store.retire(Listing(PODS, None, "40", frozenset({("shop", "there")}))) == {POLICY}
    assert {p.name for p in store.pods(POLICY)} == {"there", "younger-than-the-list"}


def test_a_list_of_one_namespace_says_nothing_of_another() -> None:
    store = Store()
    store.put(policy(1))
    store.retire(Listing(POLICIES, "elsewhere", "40", frozenset()))
    assert store.policy(POLICY) is not None
