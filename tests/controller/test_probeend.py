"""How a probe failed, in one sentence that fits into a condition."""

from typing import Any

import pytest

from backstop.controller.probeend import MOST_CHARACTERS, how_failed, last_lines
from backstop.controller.seen import JobSeen, child
from backstop.kube.resources import JOBS
from backstop.rollout.observed import ProbeState


def job(*conditions: tuple[str, str]) -> JobSeen:
    found = child(
        {
            "metadata": {
                "name": "support-r2-golden",
                "namespace": "shop",
                "uid": "u",
                "resourceVersion": "1",
                "labels": {"backstop.dev/policy": "support", "backstop.dev/revision": "r2", "backstop.dev/probe": "golden"},
                "annotations": {"backstop.dev/rollout": "2026-01-31T09:30:00.000Z"},
            },
            "status": {"conditions": [{"type": kind, "status": "True", "reason": reason} for kind, reason in conditions]},
        },
        resource=JOBS,
    )
    assert isinstance(found, JobSeen)
    return found


def pod(*, reason: str | None = None, state: dict[str, Any] | None = None) -> dict[str, Any]:
    container = {"name": "probe", "image": "prober:1", "restartCount": 0, "state": state or {}}
    return {
        "metadata": {"name": "a", "namespace": "shop", "uid": "p", "resourceVersion": "1"},
        "spec": {"activeDeadlineSeconds": 30},
        "status": {"phase": "Failed", "reason": reason, "containerStatuses": [container]},
    }


FAILED = job(("FailureTarget", "BackoffLimitExceeded"), ("Failed", "BackoffLimitExceeded"))
PULLING = {"waiting": {"reason": "ImagePullBackOff"}}


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ((), ProbeState.RUNNING),
        ((("FailureTarget", "BackoffLimitExceeded"),), ProbeState.RUNNING),
        ((("SuccessCriteriaMet", ""),), ProbeState.RUNNING),
        ((("SuccessCriteriaMet", ""), ("Complete", "")), ProbeState.PASSED),
        ((("FailureTarget", "x"), ("Failed", "x")), ProbeState.FAILED),
    ],
)
def test_a_job_has_ended_when_its_pods_have(conditions: tuple[tuple[str, str], ...], state: ProbeState) -> None:
    assert job(*conditions).state is state


@pytest.mark.parametrize(
    ("failed", "ran", "says"),
    [
        (FAILED, pod(state={"terminated": {"exitCode": 3, "reason": "Error"}}), "exited with code 3"),
        (FAILED, pod(state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), "was killed because it used more memory than its"),
        (
            FAILED,
            pod(reason="DeadlineExceeded", state={"terminated": {"exitCode": 137}}),
            "did not end within 30 s (`timeoutSeconds`); it said",
        ),
        (FAILED, pod(reason="DeadlineExceeded", state=PULLING), "30 s (`timeoutSeconds`), image `prober:1` cannot be pulled; it said"),
        (job(("Failed", "DeadlineExceeded")), None, "did not end in time (`timeoutSeconds`), nor did a node take its pod"),
        (job(("Failed", "PodFailurePolicy")), None, "failed (PodFailurePolicy)"),
    ],
)
def test_the_end_of_a_probe_is_told_in_words(failed: JobSeen, ran: dict[str, Any] | None, says: str) -> None:
    assert says in how_failed(failed, ran=ran, log="it said")


def test_the_last_lines_are_printable_and_bounded() -> None:
    raw = b"one\r\n\n" + b"two \x1b[31mred\x1b[0m \x00\xff \xe2\x9c\x93\n" + b"three\n"
    assert last_lines(raw) == "its last lines: one ⏎ two red  \N{REPLACEMENT CHARACTER} ✓ ⏎ three"
    assert last_lines(b"".join(b"%d\n" % n for n in range(100))).startswith("its last lines: 92 ⏎ 93")
    assert len(last_lines(b"x" * 100_000)) < MOST_CHARACTERS + 50
    assert last_lines(b"\n \n") == "it wrote nothing to its log"
