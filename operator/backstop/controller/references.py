"""Which ConfigMaps a policy refers to, read leniently: also of a spec that is not valid in other places. Pure."""

from dataclasses import dataclass
from typing import Any

from .seen import Declared


@dataclass(frozen=True, slots=True)
class MapName:
    """A ConfigMap by name."""

    namespace: str
    name: str


def maps_of(policy: Declared) -> frozenset[MapName]:
    """The ConfigMaps whose content is part of the revision that the policy asks for."""
    if not any(name in policy.packed_spec for name in (b'"knowledgeBaseRef"', b'"rulesRef"')):  # as in nearly all: not unpacked for nothing
        return frozenset()
    places = (("static", "knowledgeBaseRef"), ("ruleEngine", "rulesRef"))
    names = (_name(tier, kind=kind, field=field) for tier in _list(policy.spec.get("chain")) for kind, field in places)
    return frozenset(MapName(policy.namespace, name) for name in names if name)


def _name(tier: Any, *, kind: str, field: str) -> str | None:
    found = _map(_map(_map(tier).get(kind)).get(field)).get("name")
    return found if isinstance(found, str) else None


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
