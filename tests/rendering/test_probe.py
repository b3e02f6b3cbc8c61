"""The Job of a probe: what it is told, what it may, and what it is called."""

import pytest

from backstop.api.names import probe_job
from backstop.api.probe import Probe
from backstop.rendering.owner import pod_selector
from backstop.rendering.probe import probe_object
from tests.rendering.scene import OWNER, everything


def rendered(probe: Probe) -> dict[str, object]:
    return probe_object(
        OWNER, revision="0a1b2c3d4e", prompt_version="v", rollout="2026-01-31T09:30:00.000Z", probe=probe, image="i", pull_secrets=[]
    )


@pytest.mark.parametrize("name", ["probe", "trickle"])
def test_a_probes_pod_is_behind_no_service_and_no_gateway(name: str) -> None:
    labels = everything()[name]["spec"]["template"]["metadata"]["labels"]
    assert not pod_selector(OWNER.name, revision="x").keys() & labels.keys()


def test_a_probe_without_a_command_runs_what_its_image_says() -> None:
    body = rendered(Probe.model_validate({"name": "smoke", "job": {"image": "smoke:1"}}))
    (container,) = body["spec"]["template"]["spec"]["containers"]  # type: ignore[index]  # JSON
    assert "command" not in container
    assert "args" not in container


@pytest.mark.parametrize("probe", ["golden", "g" * 63, "a" + "-" * 50 + "b"])
@pytest.mark.parametrize("policy", ["p", "p" * 40])
def test_the_name_of_a_probes_job_fits_into_a_label_and_ends_well(policy: str, probe: str) -> None:
    name = probe_job(policy, revision="0a1b2c3d4e", probe=probe)
    assert len(name) <= 63
    assert name.startswith(f"{policy}-0a1b2c3d4e-")
    assert name[-1].isalnum()


def test_names_that_are_shortened_are_told_apart() -> None:
    names = {probe_job("p" * 40, revision="0a1b2c3d4e", probe="g" * length) for length in range(1, 64)}
    assert len(names) == 63
