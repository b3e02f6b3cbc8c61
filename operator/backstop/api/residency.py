"""Where requests may be processed. Knows names of jurisdictions as their author declares them, and nothing of where anything is."""

from typing import Annotated, Any, Final

from pydantic import Field
from pydantic.config import JsonDict

from .model import ApiModel, Rule

Jurisdiction = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$")]

_SET: Final[JsonDict] = {"x-kubernetes-list-type": "set"}
_BY_NAME: Final[JsonDict] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class TenantResidency(ApiModel):
    """Where requests for one tenant may be processed."""

    name: str = Field(min_length=1, max_length=256, description="The tenant, as `spec.access.tenantHeader` names it.")
    allowedJurisdictions: list[Jurisdiction] = Field(
        min_length=1, max_length=8, description="Some of `spec.residency.allowedJurisdictions`.", json_schema_extra=_SET
    )


class Residency(ApiModel):
    """Where requests may be processed: nobody in another jurisdiction gets anything of them. Part of the revision."""

    allowedJurisdictions: list[Jurisdiction] = Field(
        min_length=1,
        max_length=8,
        description="Jurisdictions, such as `EU`. Each `model`, each `cache.warm` and the `human.webhook` of the chain declares one of "
        "them as its own.",
        json_schema_extra=_SET,
    )
    tenants: list[TenantResidency] = Field(
        default_factory=list,
        max_length=32,
        description="Tenants whose requests may be processed in some of them only: other tiers are passed over. A request of which it is "
        "not known which tenant it is for goes only where those of each of these may.",
        json_schema_extra=_BY_NAME,
    )
    rules = (
        Rule(
            cel="!has(self.tenants) || self.tenants.all(t, t.allowedJurisdictions.all(j, j in self.allowedJurisdictions))",
            message="`spec.residency.tenants`: `allowedJurisdictions` of a tenant are some of `spec.residency.allowedJurisdictions`",
            holds=lambda r: all(set(t.allowedJurisdictions) <= set(r.allowedJurisdictions) for t in r.tenants),
        ),
    )


def _places(spec: Any) -> list[str | None]:
    """Of everything in the chain that requests go to."""
    models = [t.model.jurisdiction for t in spec.chain if t.model is not None]
    models += [t.human.webhook.jurisdiction for t in spec.chain if t.human is not None]
    return models + [t.cache.warm.jurisdiction for t in spec.chain if t.cache is not None and t.cache.warm is not None]


def _scorers(spec: Any) -> list[str | None]:
    """Of everything that answers go to."""
    return [] if spec.quality is None else [s.http.jurisdiction for s in spec.quality.scorers if s.http is not None]


def _has_a_tier(spec: Any, *, allowed: list[str]) -> bool:
    return any(t.static is not None or (t.model is not None and t.model.jurisdiction in allowed) for t in spec.chain)


# Rules over the whole spec of a policy.
RESIDENCY_RULES = (
    Rule(
        cel="!has(self.residency) || !has(self.chain) || self.chain.all(t,"
        " (!has(t.model) || (has(t.model.jurisdiction) && t.model.jurisdiction in self.residency.allowedJurisdictions))"
        " && (!has(t.cache) || !has(t.cache.warm)"
        " || (has(t.cache.warm.jurisdiction) && t.cache.warm.jurisdiction in self.residency.allowedJurisdictions))"
        " && (!has(t.human) || (has(t.human.webhook.jurisdiction)"
        " && t.human.webhook.jurisdiction in self.residency.allowedJurisdictions)))",
        message="`spec.chain`: with `spec.residency` each `model`, each `cache.warm` and the `human.webhook` has a `jurisdiction`, one of "
        "`spec.residency.allowedJurisdictions`",
        holds=lambda s: s.residency is None or all(place in s.residency.allowedJurisdictions for place in _places(s)),
    ),
    Rule(
        cel="!has(self.residency) || !has(self.residency.tenants) || (has(self.access) && has(self.access.tenantHeader))",
        message="`spec.residency.tenants`: needs `spec.access.tenantHeader`, by which a request says which tenant it is for",
        holds=lambda s: s.residency is None or not s.residency.tenants or (s.access is not None and s.access.tenantHeader is not None),
    ),
    Rule(
        cel="!has(self.residency) || !has(self.residency.tenants) || !has(self.chain) || self.chain.exists(t, has(t.static))"
        " || self.residency.tenants.all(a, self.chain.exists(t, has(t.model) && has(t.model.jurisdiction)"
        " && t.model.jurisdiction in a.allowedJurisdictions))",
        message="`spec.residency.tenants`: for each tenant the chain has a `model` in a jurisdiction that it allows, or a `static` tier",
        holds=lambda s: s.residency is None or all(_has_a_tier(s, allowed=t.allowedJurisdictions) for t in s.residency.tenants),
    ),
    Rule(
        cel="!has(self.residency) || !has(self.quality) || self.quality.scorers.all(c, !has(c.http)"
        " || (has(c.http.jurisdiction) && c.http.jurisdiction in self.residency.allowedJurisdictions))",
        message="`spec.quality.scorers`: with `spec.residency` each `http` has a `jurisdiction`, one of "
        "`spec.residency.allowedJurisdictions`",
        holds=lambda s: s.residency is None or all(place in s.residency.allowedJurisdictions for place in _scorers(s)),
    ),
    Rule(
        cel="!has(self.serving.workload) || !has(self.residency)",
        message="`spec.residency`: with `spec.serving.workload` no gateway decides where requests go; take it out",
        holds=lambda s: s.serving.workload is None or s.residency is None,
    ),
)
