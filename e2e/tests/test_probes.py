"""Probes on a whole cluster: Jobs that really call a canary to which no caller is sent yet."""

from typing import Any

import pytest

from backstop.kube.resources import JOBS, PODS
from e2e.platform import IMAGE, TAG
from e2e.tests.scenario import ALSO_GOOD, GOOD, POLICY, Scenario, condition, name_of, policy, prompt

pytestmark = pytest.mark.cluster

# Asks the canary, a few times over until its address is known everywhere, and compares what it says of itself.
ASK = """
import json, os, sys, time, urllib.error, urllib.request
body = json.dumps({"model": "any", "messages": [{"role": "user", "content": "Hello"}]}).encode()
headers = {"Content-Type": "application/json", os.environ["BACKSTOP_HEADER"]: os.environ["BACKSTOP_HEADER_VALUE"]}
request = urllib.request.Request(os.environ["BACKSTOP_BASE_URL"] + "/chat/completions", data=body, headers=headers)
for attempt in range(20):
    try:
        answer = urllib.request.urlopen(request, timeout=5)
        break
    except urllib.error.HTTPError:
        raise
    except OSError as error:
        time.sleep(0.5)
said = {name: answer.headers["x-backstop-" + name] for name in ("revision", "track", "tier", "prompt-version")}
print("asked", said, json.load(answer)["choices"][0]["message"]["content"], flush=True)
expected = {"revision": os.environ["BACKSTOP_REVISION"], "track": said["track"], "tier": "primary"}
expected["prompt-version"] = os.environ["BACKSTOP_PROMPT_VERSION"]
assert said == expected, (said, expected)
"""


def probe(name: str, *, script: str, seconds: int = 60) -> dict[str, Any]:
    job = {"image": f"{IMAGE}:{TAG}", "command": ["python3", "-c", script], "timeoutSeconds": seconds}
    return {"name": name, "when": "BeforeTraffic", "job": job}


def probed(*probes: dict[str, Any]) -> dict[str, Any]:
    canary = {
        "steps": [{"weight": 50, "holdSeconds": 600}, {"weight": 100, "holdSeconds": 10}],
        "analysis": {"warmUpSeconds": 0},
        "traffic": {"pinHeader": "x-backstop-track"},
        "probes": list(probes),
    }
    return policy("1.0.0", steps=[], canary=canary)


async def test_a02_no_weight_before_a_probe_has_asked_the_canary_itself(scenario: Scenario) -> None:
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), probed(probe("ask", script=ASK)))
    await scenario.until_stable("1.0.0")
    assert "ProbePassed" in await scenario.reasons(), "the first revision has passed it too"
    await scenario.until_nothing(JOBS)
    async with scenario.load() as load:
        await scenario.want("2.0.0")
        while True:
            # What callers see is read before status: a probe that has not passed by then had not passed when they did.
            before = await scenario.traffic(), {answer.track for answer in load.answers}
            if (canary := (await scenario.status()).get("canary", {})).get("probesPassed"):
                break
            assert before[0].permille == 0
            assert before[1] <= {"stable"}, "a probe shows to nobody"
        weighted = await scenario.until_weight(50)
        assert weighted["revision"] == canary["revision"]
        (job,), _ = await scenario.client.list(JOBS, namespace=scenario.namespace)
        assert job["metadata"]["name"] == f"{POLICY}-{canary['revision']}-ask"
        (pod,), _ = await scenario.client.list(PODS, namespace=scenario.namespace, labels="backstop.dev/probe=ask")
        log = await scenario.client.log(
            namespace=scenario.namespace, pod=pod["metadata"]["name"], container="probe", lines=10, most_bytes=10_000
        )
        assert f"asked {{'revision': '{canary['revision']}', 'track': 'canary', 'tier': 'primary'".encode() in log
        await scenario.want("1.0.0")
        await scenario.until_stable("1.0.0")
        await scenario.until_nothing(JOBS)
        await scenario.until_nothing(PODS, labels="backstop.dev/probe=ask")
    assert "ProbePassed" in await scenario.reasons()


FAIL = "import sys; print('asked 20 questions'); print('only 3 of 20 answers were right'); sys.exit(3)"
HANG = "import time; print('waiting for an answer', flush=True); time.sleep(600)"


@pytest.mark.parametrize(
    ("script", "seconds", "how"),
    [
        (FAIL, 60, "probe `ask` exited with code 3; its last lines: asked 20 questions ⏎ only 3 of 20 answers were right"),
        (HANG, 6, "probe `ask` did not end within 6 s (`timeoutSeconds`); its last lines: waiting for an answer"),
    ],
    ids=["fails", "hangs"],
)
async def test_a02_a_probe_that_does_not_pass_rolls_the_canary_back_with_its_last_lines(
    scenario: Scenario, script: str, seconds: int, how: str
) -> None:
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), probed())
    await scenario.until_stable("1.0.0")
    await scenario.apply(probed(probe("ask", script=script, seconds=seconds)))
    async with scenario.load() as load:
        await scenario.want("2.0.0")
        status = await scenario.until(
            lambda status: status if condition(status, "RolledBack") == "True" else None, within=90, what="the rollback"
        )
    (said,) = (c for c in status["conditions"] if c["type"] == "RolledBack")
    assert said["reason"] == "ProbeFailed"
    assert how in said["message"]
    assert status["lastRollout"]["promptVersion"] == name_of("2.0.0")
    assert {answer.track for answer in load.answers} == {"stable"}


async def test_requests_beside_callers_let_a_version_through_that_nobody_calls(scenario: Scenario) -> None:
    """Without callers there is nothing to judge: a trickle of marked requests supplies it, to the canary alone."""
    synthetic = {"name": "synthetic", "when": "DuringTraffic", "requestsPerSecond": 10}
    canary = {
        "steps": [{"weight": 50, "holdSeconds": 5}, {"weight": 100, "holdSeconds": 5}],
        "analysis": {"warmUpSeconds": 0},
        "probes": [synthetic],
    }
    await scenario.apply(prompt("1.0.0", text=GOOD), prompt("2.0.0", text=ALSO_GOOD), policy("1.0.0", steps=[], canary=canary))
    await scenario.until_stable("1.0.0")
    await scenario.want("2.0.0")
    weighted = await scenario.until_weight(50)
    status = await scenario.until_stable("2.0.0", within=120)
    counted = {slo["name"]: slo["canary"]["total"] for slo in status["slos"]}
    assert status["stable"]["revision"] == weighted["revision"]
    assert min(counted.values()) >= 20, counted
    await scenario.until_nothing(JOBS)
