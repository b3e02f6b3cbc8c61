"""What only the models can tell of a probe."""

import pytest

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.problems import InputError, parse_strictly


def spec(request: str) -> dict[str, object]:
    return {
        "promptVersion": "v1",
        "latencyBudgetMilliseconds": 400,
        "chain": [{"name": "primary", "model": {"baseURL": "http://model/v1", "name": "m"}}],
        "canary": {"probes": [{"name": "synthetic", "when": "DuringTraffic", "requestsPerSecond": 1, "request": request}]},
    }


@pytest.mark.parametrize("request_body", ["{'messages': []}", "[]", "{}", '{"messages": "Hello"}'])
def test_the_body_of_a_probes_requests_is_a_chat_in_json(request_body: str) -> None:
    with pytest.raises(InputError, match="`request` must be a JSON object with `messages`"):
        parse_strictly(FallbackPolicySpec, spec(request_body), prefix="spec")


def test_everything_else_of_the_body_is_the_authors() -> None:
    body = '{"messages": [], "metadata": {"shop": "x"}, "max_tokens": 5}'
    parsed = parse_strictly(FallbackPolicySpec, spec(body), prefix="spec")
    assert parsed.canary.probes[0].request == body
