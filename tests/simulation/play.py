"""All state machines of the engine, played by one seed. Apart from the command, so that workers can import it."""

import traceback
from collections.abc import Collection

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.garbage import set_aside
from tests.rollout.test_disturbed_invariants import RolloutsDisturbed
from tests.rollout.test_invariants import Rollouts, RolloutsByHand, RolloutsByReplicas, RolloutsEdited, RolloutsWithProbes

from .machine import WholePasses
from .options import WholePassesWithOptions

RUNS = 7  # of each machine, by one seed: few, so that an asked number of steps is not overshot by much
# Long runs: each ends with a time without trouble, which takes as long as dozens of steps.
LENGTHS: dict[type[RuleBasedStateMachine], int] = {
    Rollouts: 100,
    RolloutsEdited: 100,
    RolloutsByHand: 100,
    RolloutsWithProbes: 100,
    RolloutsByReplicas: 100,
    RolloutsDisturbed: 100,
    WholePasses: 60,
    WholePassesWithOptions: 60,
}


def prepare() -> None:
    """A process that plays many seeds, before the first."""
    set_aside()


def play(number: int, names: Collection[str]) -> tuple[dict[str, int], str | None]:
    """Each machine of these names, with this seed. Returns the steps made by each, and what went wrong."""
    made: dict[str, int] = {}
    for machine, length in LENGTHS.items():
        if machine.__name__ not in names:
            continue
        before = machine.steps  # type: ignore[attr-defined]  # each of them counts its steps
        try:
            run_state_machine_as_test(
                seed(number)(machine),
                settings=settings(
                    max_examples=RUNS,
                    stateful_step_count=length,
                    deadline=None,
                    database=None,
                    print_blob=False,
                    phases=(Phase.generate,),
                    suppress_health_check=list(HealthCheck),
                ),
            )
        except Exception:  # noqa: BLE001 - whatever it is, it is what was looked for
            return made, f"{machine.__name__} with --seed {number}:\n{traceback.format_exc()}"
        made[machine.__name__] = machine.steps - before  # type: ignore[attr-defined]  # as above
    return made, None
