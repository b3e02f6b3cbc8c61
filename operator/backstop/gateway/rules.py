"""What a tier with a rule engine answers: the first rule whose condition holds. PURE.

A condition that cannot be evaluated holds for nobody, and is counted. No rule that holds is no answer, and no failure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ..api.ruleset import RuleSet, facts
from .body import ChatRequest
from .jsontext import parse_scalar
from .locales import wanted_locales


@dataclass(frozen=True)
class Decision:
    """What the rules come to. `failed`: how many conditions before the one that holds could not be evaluated."""

    answer: str | None
    failed: int


class RuleEngine:
    """Asks rules. `headers`: names of those that conditions may read, in small letters."""

    def __init__(self, rules: RuleSet, *, headers: frozenset[str]) -> None:
        self._rules = rules.rules
        self._conditions = rules.conditions
        self._headers = headers

    def decide(self, request: ChatRequest) -> Decision:
        """The answer to a request."""
        about = self._conditions.Activation(
            facts(
                text=request.question,
                locale=next(iter(wanted_locales(request.languages)), ""),
                variables=plain_values(request.values),
                headers={name: request.headers.get(name, "") for name in self._headers},
            )
        )
        failed = 0
        for rule in self._rules:
            held = rule.when.eval(about).value()
            if held is True:
                return Decision(rule.answer, failed)
            failed += held is not False  # what is no truth value tells of an error
        return Decision(None, failed)


def plain_values(values: Mapping[str, bytes]) -> dict[str, str]:
    """Values of variables, out of JSON strings without their quotes."""
    return {name: str(parse_scalar(b'"' + value + b'"')) for name, value in values.items()}
