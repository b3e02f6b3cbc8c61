"""What the operator's metrics show of a policy: where it is, how its last rollout ended, and what it says that tokens cost. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..api.fallbackpolicy import Tier
from ..api.metricnames import target_label
from ..api.policystatus import FallbackPolicyStatus, Phase
from ..rollout.place import Place
from ..telemetry.metrics import PolicyShown, PriceShown


def shown_of(place: Place, *, phase: Phase, chain: Sequence[Tier] = ()) -> PolicyShown:
    """What is shown of a policy at this place. `chain`: what it declares; empty where that cannot be read."""
    last, weight = place.last, place.canary.given if place.canary is not None else 0
    shown = PolicyShown(phase, weight=weight, prices=tuple(_prices(chain)))
    return shown if last is None else replace(shown, outcome=last.outcome, decided_at=last.detected_at, shifted_at=last.shifted_at)


def phase_in(status: FallbackPolicyStatus, *, otherwise: Phase) -> Phase:
    """The phase that status says; `otherwise` where it says none, or the word of another version."""
    return next((phase for phase in Phase if phase == status.phase), otherwise)


def _prices(chain: Sequence[Tier]) -> Iterator[PriceShown]:
    for tier in chain:
        if tier.model is not None and tier.price is not None:
            target = target_label(tier.name, base_url=tier.model.baseURL, model=tier.model.name)
            given = tier.price
            yield PriceShown(target, given.currency, float(given.inputPerMillionTokens), float(given.outputPerMillionTokens))
