"""Which ConfigMaps a policy refers to, read leniently: also of a spec that is not valid in other places. Pure."""

from dataclasses import dataclass
from typing import Any, Final

from .seen import Declared

_OF_TIERS: Final = (
    ("static", "knowledgeBaseRef"),
    ("ruleEngine", "rulesRef"),
    ("model", "caBundleRef"),
    ("cache", "warm", "redis", "caBundleRef"),
    ("human", "webhook", "caBundleRef"),
)
_OF_SCORERS: Final = ("http", "caBundleRef")
_OF_SERVING: Final = ("traces", "caBundleRef")
_FIELDS: Final = (b'"knowledgeBaseRef"', b'"rulesRef"', b'"caBundleRef"')


@dataclass(frozen=True, slots=True)
class MapName:
    """A ConfigMap by name."""

    namespace: str
    name: str


def maps_of(policy: Declared) -> frozenset[MapName]:
    """The ConfigMaps whose content is part of the revision that the policy asks for."""
    if not any(field in policy.packed_spec for field in _FIELDS):  # as in nearly all: not unpacked for nothing
        return frozenset()
    referring = [(tier, place) for tier in _list(policy.spec.get("chain")) for place in _OF_TIERS]
    referring += [(scorer, _OF_SCORERS) for scorer in _list(_map(policy.spec.get("quality")).get("scorers"))]
    referring.append((policy.spec.get("serving"), _OF_SERVING))
    names = (_name(within, place=place) for within, place in referring)
    return frozenset(MapName(policy.namespace, name) for name in names if name)


def _name(within: Any, *, place: tuple[str, ...]) -> str | None:
    for field in place:
        within = _map(within).get(field)
    found = _map(within).get("name")
    return found if isinstance(found, str) else None


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
