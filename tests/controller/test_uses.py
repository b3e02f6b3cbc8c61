"""Which of several prompt versions is the one that a name and a version mean, and who uses it."""

from typing import Any

import pytest

from backstop.api.reasons import Reason
from backstop.controller.keys import PolicyKey, PromptKey
from backstop.controller.prompts import USES_SHOWN, judged_status
from backstop.controller.seen import Declared, declared
from backstop.controller.store import Store
from backstop.controller.wanted import Wish, conflict_of, unambiguous, wish_of
from backstop.kube.resources import POLICIES, PROMPT_VERSIONS, Body
from backstop.rollout.observed import Known, Unresolved

from .world import policy_spec

OTHER_TEXT = "Be short."
BROKEN = "Hello {{who}}"


def prompt(
    name: str, *, text: str = "Be kind.", created: int = 1, version: str = "1.0.0", status: Body | None = None, **meta: Any
) -> Declared:
    metadata = {"name": name, "namespace": "shop", "uid": name, "resourceVersion": str(meta.pop("at", 1)), "generation": 1}
    metadata |= {"creationTimestamp": f"2026-01-01T00:00:{created:02}Z", **meta}
    spec = {"prompt": "support", "version": version, "messages": [{"role": "system", "content": text}]}
    return declared({"metadata": metadata, "spec": spec, "status": status or {}}, resource=PROMPT_VERSIONS)


def policy(name: str, *, wants: str, at: int = 1, **status: Any) -> Declared:
    metadata = {"name": name, "namespace": "shop", "uid": name, "resourceVersion": str(at), "generation": 1}
    return declared({"metadata": metadata, "spec": policy_spec(wants), "status": status}, resource=POLICIES)


def running(name: str, *, digest: str | None = None) -> Body:
    return {"revision": "abc", "promptVersion": name, "promptDigest": digest, "until": "", "since": ""}


def store_of(*seen: Declared) -> Store:
    store = Store()
    for one in seen:
        store.put(one)
    return store


def conflicting(store: Store) -> dict[str, str]:
    """Every version that conflicts, and what is said of it."""
    found = {}
    for key in store.prompts():
        version = store.prompt(key)
        assert version is not None
        if (conflict := conflict_of(version, older=store.older(version))) is not None:
            assert conflict.reason is Reason.VERSION_CONFLICT
            found[version.name] = conflict.message
    return found


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_texts_under_one_version_the_older_stays_whatever_came_in_first(turned: bool) -> None:
    versions = [prompt("first", created=1), prompt("later", text=OTHER_TEXT, created=2)]
    store = store_of(*reversed(versions) if turned else versions)
    assert conflicting(store) == {
        "later": "version 1.0.0 of prompt `support` is PromptVersion `first`, which says something else; "
        "create this one anew with another `spec.version`"
    }


def test_of_two_texts_of_one_second_the_name_decides() -> None:
    assert set(conflicting(store_of(prompt("b", text=OTHER_TEXT), prompt("a")))) == {"b"}


def test_the_same_text_under_two_names_is_no_conflict_and_neither_is_another_version() -> None:
    store = store_of(prompt("a"), prompt("b", created=2), prompt("c", text=OTHER_TEXT, version="1.0.1", created=3))
    assert conflicting(store) == {}


def test_what_cannot_be_used_or_is_going_away_takes_no_version_from_others() -> None:
    store = store_of(
        prompt("broken", text=BROKEN, created=1),
        prompt("going", text=OTHER_TEXT, created=2, deletionTimestamp="2026-01-01T00:01:00Z"),
        prompt("good", created=3),
    )
    assert conflicting(store) == {}


def test_when_the_older_goes_the_younger_and_those_who_want_it_are_looked_at_again() -> None:
    older, younger = prompt("first"), prompt("later", text=OTHER_TEXT, created=2)
    store = store_of(older, younger, policy("support", wants="later"))
    assert set(conflicting(store)) == {"later"}
    concerned = store.remove(older)
    assert {PromptKey("shop", "later"), PolicyKey("shop", "support")} <= concerned
    assert conflicting(store) == {}


def test_a_younger_one_concerns_nobody_but_itself() -> None:
    store = store_of(prompt("first"), policy("support", wants="first"))
    assert store.put(prompt("later", text=OTHER_TEXT, created=2)) == {PromptKey("shop", "later")}


def test_a_policy_that_names_a_conflicting_version_is_told_unless_it_runs_it_as_stable() -> None:
    store = store_of(prompt("first"), younger := prompt("later", text=OTHER_TEXT, created=2))
    wish = wish_of(policy("support", wants="later"), prompt=younger, sources=frozenset({"default"}))
    assert isinstance(wish, Wish)
    assert isinstance(wish.revision, Known)
    conflict = conflict_of(younger, older=store.older(younger))
    refused = unambiguous(wish, conflict=conflict, stable="another").revision
    assert isinstance(refused, Unresolved)
    assert refused.reason is Reason.VERSION_CONFLICT
    assert "PromptVersion `later` cannot be used: version 1.0.0 of prompt `support` is PromptVersion `first`" in refused.message
    assert unambiguous(wish, conflict=conflict, stable=wish.revision.value.name) == wish


def status_of(store: Store, name: str) -> Body:
    version = store.prompt(PromptKey("shop", name))
    assert version is not None
    return judged_status(version, older=store.older(version), users=store.users(PromptKey("shop", name)), now=1000.0)


def test_a_conflict_stands_in_the_status_for_people_and_for_kstatus() -> None:
    status = status_of(store_of(prompt("first"), prompt("later", text=OTHER_TEXT, created=2)), "later")
    assert {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]} == {
        "Accepted": ("False", "VersionConflict"),
        "Stalled": ("True", "VersionConflict"),
    }


def test_a_conflict_that_is_over_leaves_no_condition() -> None:
    before = status_of(store_of(prompt("first"), prompt("later", text=OTHER_TEXT, created=2)), "later")
    status = judged_status(prompt("later", text=OTHER_TEXT, created=2, status=before), older=(), users=(), now=2000.0)
    assert {c["type"]: c["status"] for c in status["conditions"]} == {"Accepted": "True"}


def test_it_is_told_which_policies_use_a_version_and_as_what() -> None:
    store = store_of(
        prompt("v1"),
        policy("b", wants="v1", canary=running("v1"), stable=running("v0")),
        policy("a", wants="v2", previous=running("v1"), stable=running("v2")),
        policy("c", wants="v1", stable=running("v1")),
        policy("d", wants="v2"),
    )
    status = status_of(store, "v1")
    assert [(use["policy"], use["role"]) for use in status["usedBy"]] == [
        ("a", "Previous"),
        ("b", "Canary"),
        ("b", "Wanted"),
        ("c", "Stable"),
        ("c", "Wanted"),
    ]
    assert status["users"] == 3


def test_a_revision_made_of_another_text_under_the_same_name_does_not_use_this_one() -> None:
    digest = status_of(store_of(prompt("v1")), "v1")["digest"]
    old = policy("a", wants="v2", stable=running("v1", digest="sha256:old"))
    new = policy("b", wants="v2", stable=running("v1", digest=digest))
    assert [use["policy"] for use in status_of(store_of(prompt("v1"), old, new), "v1")["usedBy"]] == ["b"]


def test_the_list_of_users_is_bounded_and_the_number_is_not() -> None:
    store = store_of(prompt("v1"), *(policy(f"p{number:03}", wants="v1") for number in range(USES_SHOWN + 8)))
    status = status_of(store, "v1")
    assert [use["policy"] for use in status["usedBy"]] == [f"p{number:03}" for number in range(USES_SHOWN)]
    assert status["users"] == USES_SHOWN + 8


def test_a_policy_that_changes_what_it_uses_concerns_these_versions_and_no_others() -> None:
    store = store_of(prompt("v1"), prompt("v2", version="2.0.0"), prompt("v3", version="3.0.0"))
    mine = PolicyKey("shop", "support")
    assert store.put(policy("support", wants="v1", at=1)) == {mine, PromptKey("shop", "v1")}
    assert store.put(policy("support", wants="v1", at=2, stable=running("v1"))) == {mine, PromptKey("shop", "v1")}
    assert store.put(policy("support", wants="v2", at=3, stable=running("v1"))) == {mine, PromptKey("shop", "v1"), PromptKey("shop", "v2")}
    assert store.put(policy("support", wants="v2", at=4, stable=running("v1"), phase="Idle")) == {mine}
    gone = policy("support", wants="v2", at=5, stable=running("v1"))
    assert store.remove(gone) == {mine, PromptKey("shop", "v1"), PromptKey("shop", "v2")}
    assert store.users(PromptKey("shop", "v1")) == []
