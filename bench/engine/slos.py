"""The SLOs that the bench's policies have, and what gateways count for these. Knows names of fields and of metrics; no figures."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from backstop.api import metricnames
from backstop.api.quality import Quality, grounding_digest

PRIMARY: Final[dict[str, Any]] = {"name": "primary", "model": {"baseURL": "http://model.test/v1", "name": "m"}}
QUALITY: Final[dict[str, Any]] = {"scorers": [{"name": "figures", "type": "NumbersAndLinks"}]}
# One of each kind that needs nothing of its author's own; a policy has the first so many of them.
SLOS: Final[tuple[dict[str, Any], ...]] = (
    {"name": "latency", "indicator": "Latency", "quantilePercent": 95, "maxMilliseconds": 150, "minRequests": 20},
    {"name": "errors", "indicator": "ErrorRate", "maxPercent": "1", "minRequests": 20},
    {"name": "fallbacks", "indicator": "FallbackRate", "maxIncreasePercent": "1", "minRequests": 20},
    {"name": "tokens", "indicator": "TokensPerRequest", "maxTokensPerRequest": 1500, "minRequests": 20},
    {"name": "invented", "indicator": "HallucinationRate", "maxPercent": "5", "minRequests": 20},
    {"name": "tail", "indicator": "Latency", "quantilePercent": 99, "maxMilliseconds": 300, "minRequests": 20},
)
FEW: Final = 2


def fields_of(slos: int) -> dict[str, Any]:
    """What of a policy's spec comes with so many SLOs."""
    chosen = [dict(slo) for slo in SLOS[:slos]]
    return {"slos": chosen} | ({"quality": QUALITY} if "HallucinationRate" in indicators(slos) else {})


def indicators(slos: int) -> set[str]:
    """What so many SLOs look at."""
    return {slo["indicator"] for slo in SLOS[:slos]}


def limits_of(slos: int) -> list[float]:
    """Their latency limits, in seconds."""
    return [slo["maxMilliseconds"] / 1000 for slo in SLOS[:slos] if "maxMilliseconds" in slo]


def series_of(of: tuple[str, str], *, revision: str, slos: int) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Metric and labels of each series that an entry pod of this policy has for a revision, as far as the SLOs need them."""
    base = {metricnames.NAMESPACE: of[0], metricnames.POLICY: of[1], metricnames.REVISION: revision}
    answered = base | {"cache": metricnames.CacheUse.MISS, "first_tier": metricnames.FirstTier.ANSWERED}
    yield metricnames.SERVED_TOTAL, answered | {"outcome": metricnames.Outcome.SUCCESS}
    yield metricnames.SENT_TOTAL, base
    yield f"{metricnames.SERVED_SECONDS}_count", answered
    for bound in (*map(metricnames.bound_label, metricnames.latency_bounds(limits_of(slos))), "+Inf"):
        yield f"{metricnames.SERVED_SECONDS}_bucket", answered | {"le": bound}
    if "TokensPerRequest" in indicators(slos):
        target = base | {"target": metricnames.target_label("primary", base_url="http://model.test/v1", model="m")}
        yield metricnames.SERVED_USAGE, target | {"type": metricnames.UsageType.KNOWN}
        for kind in metricnames.TokenType:
            yield metricnames.SERVED_TOKENS, target | {"type": kind}
    if "HallucinationRate" in indicators(slos):
        scorers = grounding_digest(Quality.model_validate(QUALITY))
        yield metricnames.GROUNDED_TOTAL, base | {"scorers": scorers, "label": metricnames.QualityLabel.PASS}


def spelled(metric: str, labels: Mapping[str, str]) -> str:
    """A series' name and labels as an exposition spells them."""
    inside = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{inside}}}"
