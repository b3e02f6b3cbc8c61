"""Every mutant of the engine is caught by the engine's own tests: a fresh process each, on a copy of the package with the change in it.

What breaks an invariant is caught by the state machines alone, too: nobody had to think of a case of it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .engine import MUTANTS
from .mutant import SOURCE, DoesNotFit, Mutant, copy_package

REPOSITORY = SOURCE.parent
LONGEST_SECONDS = 600
# Tables first: they are quick, and name the row that breaks.
SUITES = {
    "rollout": ("tests/rollout",),
    "controller": ("tests/controller/test_store.py", "tests/controller/test_prompts.py", "tests/simulation"),
}
# What the state machines play of a mutant, from the first seed upwards: about nine seeds of each machine, and ten. What is found must be
# the mutant: no seed among them may fail on the engine as it is.
PLAYED = {
    "rollout": ("--steps", "43000"),
    "controller": ("--steps", "4000", "--machine", "WholePasses"),  # the others have no writes
}
BROKEN = [mutant for mutant in MUTANTS if mutant.invariant is not None]


def run(package: Path, *, room: str) -> subprocess.CompletedProcess[str]:
    """The tests of a room of the package on this copy, until the first failure. The state machines take the same ways each time."""
    quiet = ("-q", "-x", "--no-header", "--tb=line")
    options = [*quiet, "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=found", "-o", "pythonpath="]
    return python("pytest", *options, *SUITES[room], package=package)


def play(package: Path, *, room: str) -> subprocess.CompletedProcess[str]:
    """The state machines on this copy, until the first failure: the same seeds each time."""
    return python("tests.simulation", "--first-seed", "1", "--processes", "1", *PLAYED[room], package=package)


def python(module: str, *arguments: str, package: Path) -> subprocess.CompletedProcess[str]:
    """A module with this copy of the package."""
    environment = os.environ | {
        "PYTHONPATH": f"{package}{os.pathsep}{REPOSITORY}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(package / "hypothesis"),  # what a mutant fails on is no example for others
    }
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_fits_the_source(mutant: Mutant) -> None:
    source = (SOURCE / "backstop" / mutant.file).read_text()
    assert mutant.applied(source) != source
    assert mutant.breaks.endswith(".")


def test_no_two_mutants_have_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20


def test_the_mutants_break_every_invariant_that_a_pass_can_break() -> None:
    assert len(BROKEN) >= 20
    # 5 and 6 are of `decide` alone: nothing in a list of small mistakes makes it forget what it was given.
    assert {mutant.invariant for mutant in BROKEN} == set(range(1, 13)) - {5, 6}


def test_a_mutant_whose_text_is_gone_says_what_to_do() -> None:
    mutant = Mutant("lost", "Nothing.", "rollout/decide.py", "decide", "no such text", "")
    with pytest.raises(DoesNotFit, match=r"mutant `lost`: `no such text` is 0 times in `decide` .* in tests/mutants/engine.py"):
        mutant.applied("def decide():\n    return 1\n")


@pytest.mark.mutants
@pytest.mark.parametrize("room", SUITES)
def test_the_engine_as_it_is_passes(room: str, tmp_path: Path) -> None:
    copy_package(tmp_path)
    result = run(tmp_path, room=room)
    assert result.returncode == pytest.ExitCode.OK, result.stdout[-3000:]


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    mutant.copy_to(tmp_path)
    result = run(tmp_path, room=Path(mutant.file).parts[0])
    assert result.returncode != pytest.ExitCode.OK, f"mutant `{mutant.name}` survives: {mutant.breaks}"
    # Caught by a test that fails, not by a package that cannot be imported.
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.mutants
@pytest.mark.parametrize("room", PLAYED)
def test_the_state_machines_find_nothing_in_the_engine_as_it_is(room: str, tmp_path: Path) -> None:
    copy_package(tmp_path)
    result = play(tmp_path, room=room)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", BROKEN, ids=lambda mutant: f"{mutant.invariant}-{mutant.name}")
def test_a_mutant_that_breaks_an_invariant_is_caught_by_the_state_machines_alone(mutant: Mutant, tmp_path: Path) -> None:
    mutant.copy_to(tmp_path)
    result = play(tmp_path, room=Path(mutant.file).parts[0])
    assert result.returncode != 0, f"mutant `{mutant.name}` survives: {mutant.breaks}"
    # By what a machine found, not by a package that cannot be imported.
    assert "; 1 failures" in result.stdout, result.stdout[-3000:] + result.stderr[-3000:]
    assert "AssertionError" in result.stderr, result.stderr[-3000:]
