"""What only the operator can tell of a probe: the API server takes any text for the body of its requests."""

import pytest

from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.probe import Probe
from backstop.api.problems import parse_strictly


def probe(request: str) -> Probe:
    declared = {"name": "synthetic", "when": "DuringTraffic", "requestsPerSecond": 1, "request": request}
    spec = {
        "promptVersion": "v1",
        "latencyBudgetMilliseconds": 400,
        "chain": [{"name": "primary", "model": {"baseURL": "http://model/v1", "name": "m"}}],
        "canary": {"probes": [declared]},
    }
    return parse_strictly(FallbackPolicySpec, spec, prefix="spec").canary.probes[0]


@pytest.mark.parametrize("request_body", ["{'messages': []}", "[]", "{}", '{"messages": "Hello"}', "Hello", '{"messages": ' + "[" * 10_000])
def test_a_spec_can_be_read_whose_probe_has_no_chat_in_json_to_send(request_body: str) -> None:
    assert not probe(request_body).can_be_sent


def test_everything_else_of_the_body_is_the_authors() -> None:
    assert probe('{"messages": [], "metadata": {"shop": "x"}, "max_tokens": 5}').can_be_sent
