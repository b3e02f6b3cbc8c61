"""What the operator has seen of the cluster: the newest version of each object, and which policy each belongs to.

Watch events, fresh lists and answers to our own writes all come in here, in any order; an older version never replaces a newer one,
so that a pass after a write sees that write, and nothing comes back that was seen to go. Knows no queue and does no I/O.
"""

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from ..crdgen.filled import Filled
from ..kube.resources import POLICIES, PROMPT_VERSIONS, Resource
from .keys import Key, PolicyKey, PromptKey
from .references import MapName, maps_of
from .seen import Child, Declared, DeploymentSeen, JobSeen, PodSeen, Seen
from .uses import changed_uses, uses_of

S = TypeVar("S", bound=Seen)
_Id = tuple[str, str, str]  # plural, namespace, name
_Pair = tuple[str, str, str]  # namespace, prompt, version

# A list or an answer that is older than a deletion is on its way for seconds: far fewer objects go in that time.
GONE_KEPT: Final = 16384


@dataclass(frozen=True)
class Listing:
    """What a fresh list of one resource, read at `version`, had: (namespace, name) of each object. `namespace`: None for all."""

    resource: Resource
    namespace: str | None
    version: str
    present: frozenset[tuple[str, str]]


class Store:
    """One process's view."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], Seen]] = {}  # plural → (namespace, name) → object
        self._of_policy: dict[PolicyKey, dict[_Id, Child | PodSeen]] = {}
        self._by_prompt: dict[PromptKey, set[PolicyKey]] = {}
        self._by_map: dict[MapName, set[PolicyKey]] = {}
        # The prompt versions that say to be the same version of the same prompt: (creation, name), oldest first.
        self._by_pair: dict[_Pair, list[tuple[str, str]]] = {}
        # What has gone: uid → the version up to which it is known to be gone, oldest first.
        self._gone: dict[str, str] = {}
        # By kind, what the API server fills into specs that nobody here knows.
        self._filled: Mapping[str, tuple[Filled, ...]] = {}

    def put(self, seen: Seen, *, read: bool = False) -> frozenset[Key]:
        """A version of an object. Returns whom it concerns; nobody when it is not news.

        `read`: it was just asked for by its name. To a watch by labels an object is gone when it has lost them.
        """
        objects = self._objects.setdefault(seen.resource.plural, {})
        known = objects.get((seen.namespace, seen.name))
        if known is not None and not _newer(seen.version, than=known.version):
            return frozenset()
        gone = self._gone.get(seen.uid)
        if gone is not None and not _newer(seen.version, than=gone) and not (read and seen.version == gone):
            return frozenset()
        if isinstance(known, Declared) and isinstance(seen, Declared) and _rank(known) == _rank(seen):
            concerned: frozenset[Key] = frozenset()  # the same version of the same prompt as before
        else:
            concerned = self._leave(known) | self._join(seen)
        concerned |= self._drop(known) if known is not None else frozenset()
        objects[seen.namespace, seen.name] = seen
        return concerned | self._index(seen) | _changed(known, after=seen)

    def remove(self, seen: Seen) -> frozenset[Key]:
        """The object is gone. Returns whom it concerns; nobody when another object has its name by now."""
        self._remember_gone(seen)
        known = self.known(seen.resource, namespace=seen.namespace, name=seen.name)
        if known is None or known.uid != seen.uid:
            return frozenset()
        self._remember_gone(known)
        del self._objects[seen.resource.plural][seen.namespace, seen.name]
        return self._leave(known) | self._drop(known) | _changed(known, after=None)

    def known(self, resource: Resource, *, namespace: str, name: str) -> Seen | None:
        """The object of this kind and name."""
        return self._objects.get(resource.plural, {}).get((namespace, name))

    def has(self, resource: Resource, *, namespace: str, name: str, version: str) -> bool:
        """Whether exactly this version of the object is known."""
        known = self.known(resource, namespace=namespace, name=name)
        return known is not None and known.version == version

    def retire(self, listing: Listing) -> frozenset[Key]:
        """What is older than a fresh list and not in it is gone. Returns whom that concerns."""
        concerned: set[Key] = set()
        known = self._objects.get(listing.resource.plural, {})
        for place in known.keys() - listing.present:
            seen = known[place]
            if listing.namespace in (None, seen.namespace) and not _newer(seen.version, than=listing.version):
                concerned |= self.remove(seen)
        return frozenset(concerned)

    def fill(self, filled: Mapping[str, tuple[Filled, ...]]) -> frozenset[Key]:
        """What the API server fills into specs and this operator does not know, by kind: they are given without it from now on.

        Returns whom that concerns.
        """
        before, self._filled = self._filled, filled
        if before == filled:
            return frozenset()
        declared = [s for resource in (POLICIES, PROMPT_VERSIONS) for s in self._objects.get(resource.plural, {}).values()]
        changed = [s for s in declared if isinstance(s, Declared) and _as_written(s, before) != _as_written(s, filled)]
        return frozenset(key for seen in changed for key in self._index(seen))

    def policy(self, key: PolicyKey) -> Declared | None:
        """The policy, if it exists."""
        found = self._get(POLICIES, namespace=key.namespace, name=key.name, kind=Declared)
        return _as_written(found, self._filled) if found is not None else None

    def prompt(self, key: PromptKey) -> Declared | None:
        """The prompt version, if it exists."""
        found = self._get(PROMPT_VERSIONS, namespace=key.namespace, name=key.name, kind=Declared)
        return _as_written(found, self._filled) if found is not None else None

    def users(self, key: PromptKey) -> list[Declared]:
        """The policies that name the prompt version, in their spec or in their status."""
        return [policy for user in self._by_prompt.get(key, ()) if (policy := self.policy(user)) is not None]

    def referring(self, of: MapName) -> frozenset[PolicyKey]:
        """The policies that refer to the ConfigMap."""
        return frozenset(self._by_map.get(of, ()))

    def referring_in(self, namespace: str | None) -> frozenset[PolicyKey]:
        """The policies of the namespace that refer to any ConfigMap; None: of all namespaces."""
        return frozenset(key for of, keys in self._by_map.items() if namespace in (None, of.namespace) for key in keys)

    def refers(self, namespace: str | None) -> bool:
        """Whether there are any."""
        return any(namespace in (None, of.namespace) for of in self._by_map)

    def older(self, prompt: Declared) -> Iterable[Declared]:
        """The prompt versions of the same prompt and version that were there before this one, oldest first."""
        pair, rank = _rank(prompt)
        for _, name in self._by_pair.get(pair, ())[: self._place(pair, rank)] if pair is not None else ():
            if (other := self.prompt(PromptKey(prompt.namespace, name))) is not None:
                yield other

    def policies(self) -> list[PolicyKey]:
        """Every policy."""
        return [PolicyKey(namespace, name) for namespace, name in self._objects.get(POLICIES.plural, ())]

    def prompts(self) -> list[PromptKey]:
        """Every prompt version."""
        return [PromptKey(namespace, name) for namespace, name in self._objects.get(PROMPT_VERSIONS.plural, ())]

    def prompts_in(self, namespace: str) -> list[Declared]:
        """Every prompt version of a namespace."""
        found = self._objects.get(PROMPT_VERSIONS.plural, {}).values()
        return [prompt for prompt in found if isinstance(prompt, Declared) and prompt.namespace == namespace]

    def child(self, resource: Resource, *, namespace: str, name: str) -> Child | None:
        """A policy's child by its name."""
        return self._get(resource, namespace=namespace, name=name, kind=Child)

    def children(self, key: PolicyKey, *, resource: Resource) -> list[Child]:
        """The policy's children of one resource, by label."""
        return [c for c in self._of_policy.get(key, {}).values() if isinstance(c, Child) and c.resource is resource]

    def deployments(self, key: PolicyKey) -> list[DeploymentSeen]:
        """The policy's gateway Deployments."""
        return [c for c in self._of_policy.get(key, {}).values() if isinstance(c, DeploymentSeen)]

    def jobs(self, key: PolicyKey) -> list[JobSeen]:
        """The Jobs of the policy's probes."""
        return [c for c in self._of_policy.get(key, {}).values() if isinstance(c, JobSeen)]

    def pods(self, key: PolicyKey) -> list[PodSeen]:
        """The policy's gateway pods."""
        return [c for c in self._of_policy.get(key, {}).values() if isinstance(c, PodSeen)]

    def _join(self, seen: Seen) -> frozenset[Key]:
        """Among those of the same prompt and version. Returns the younger ones: whether they conflict may be another matter now."""
        pair, rank = _rank(seen)
        if pair is None:
            return frozenset()
        members = self._by_pair.setdefault(pair, [])
        place = self._place(pair, rank)
        members.insert(place, rank)
        return self._concerned(pair, members[place + 1 :])

    def _leave(self, seen: Seen | None) -> frozenset[Key]:
        pair, rank = _rank(seen)
        if pair is None:
            return frozenset()
        members = self._by_pair[pair]
        place = self._place(pair, rank)
        del members[place]
        if not members:
            del self._by_pair[pair]
        return self._concerned(pair, members[place:])

    def _place(self, pair: _Pair, rank: tuple[str, str]) -> int:
        return bisect.bisect_left(self._by_pair.get(pair, []), rank)

    def _concerned(self, pair: _Pair, members: Iterable[tuple[str, str]]) -> frozenset[Key]:
        prompts = [PromptKey(pair[0], name) for _, name in members]
        return frozenset(key for prompt in prompts for key in (prompt, *self._by_prompt.get(prompt, ())))

    def _remember_gone(self, seen: Seen) -> None:
        before = self._gone.pop(seen.uid, None)
        self._gone[seen.uid] = seen.version if before is None or _newer(seen.version, than=before) else before
        if len(self._gone) > GONE_KEPT:
            del self._gone[next(iter(self._gone))]

    def _get(self, resource: Resource, *, namespace: str, name: str, kind: type[S]) -> S | None:
        found = self.known(resource, namespace=namespace, name=name)
        return found if isinstance(found, kind) else None

    def _index(self, seen: Seen) -> frozenset[Key]:
        if isinstance(seen, Child | PodSeen):
            if not seen.policy:
                return frozenset()
            owner = PolicyKey(seen.namespace, seen.policy)
            self._of_policy.setdefault(owner, {})[_id(seen)] = seen
            return frozenset({owner})
        if seen.resource is PROMPT_VERSIONS:
            prompt = PromptKey(seen.namespace, seen.name)
            return frozenset({prompt, *self._by_prompt.get(prompt, ())})
        key = PolicyKey(seen.namespace, seen.name)
        for named in _prompts_of(seen):
            self._by_prompt.setdefault(named, set()).add(key)
        for of in _maps_of(seen):
            self._by_map.setdefault(of, set()).add(key)
        return frozenset({key})

    def _drop(self, seen: Seen) -> frozenset[Key]:
        """Take an object out of the indices. Returns whom it concerned."""
        if isinstance(seen, Child | PodSeen):
            owner = PolicyKey(seen.namespace, seen.policy)
            mine = self._of_policy.get(owner, {})
            mine.pop(_id(seen), None)
            if not mine:
                self._of_policy.pop(owner, None)
            return frozenset({owner}) if seen.policy else frozenset()
        if seen.resource is PROMPT_VERSIONS:
            prompt = PromptKey(seen.namespace, seen.name)
            return frozenset({prompt, *self._by_prompt.get(prompt, ())})
        key = PolicyKey(seen.namespace, seen.name)
        for named in _prompts_of(seen):
            users = self._by_prompt.get(named, set())
            users.discard(key)
            if not users:
                self._by_prompt.pop(named, None)
        for of in _maps_of(seen):
            referring = self._by_map.get(of, set())
            referring.discard(key)
            if not referring:
                self._by_map.pop(of, None)
        return frozenset({key})


def _as_written(seen: Declared, filled: Mapping[str, tuple[Filled, ...]]) -> Declared:
    mine = filled.get(seen.resource.kind)
    return seen.without(mine) if mine else seen


def _id(seen: Seen) -> _Id:
    return seen.resource.plural, seen.namespace, seen.name


def _newer(version: str, *, than: str) -> bool:
    # Versions of one resource are ordered numbers, by the API's own word.
    return int(version) > int(than)


def _prompts_of(seen: Seen) -> frozenset[PromptKey]:
    """The prompt versions that a policy names."""
    return frozenset(use.prompt for use in uses_of(seen)) if isinstance(seen, Declared) else frozenset()


def _maps_of(seen: Seen) -> frozenset[MapName]:
    """The ConfigMaps that a policy refers to."""
    return maps_of(seen) if isinstance(seen, Declared) else frozenset()


def _changed(before: Seen | None, *, after: Seen | None) -> frozenset[Key]:
    """The prompt versions that a policy uses in another way than before."""
    known, news = (seen if isinstance(seen, Declared) and seen.resource is POLICIES else None for seen in (before, after))
    return changed_uses(known, after=news)


def _rank(seen: Seen | None) -> tuple[_Pair, tuple[str, str]] | tuple[None, tuple[str, str]]:
    """Which version of which prompt an object says to be, and how old it is. One that is going away says so no more."""
    if not isinstance(seen, Declared) or seen.resource is not PROMPT_VERSIONS or seen.deleting:
        return None, ("", "")
    prompt, version = seen.spec.get("prompt"), seen.spec.get("version")
    if not isinstance(prompt, str) or not isinstance(version, str):
        return None, ("", "")
    return (seen.namespace, prompt, version), (seen.created, seen.name)


def newest_first(children: Iterable[Child]) -> list[Child]:
    """By creation, newest first; ties by name, so that the order is always the same."""
    return sorted(children, key=lambda c: (c.created, c.name), reverse=True)
