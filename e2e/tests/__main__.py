"""The whole-system tests, side by side: `python -m e2e.tests [arguments of pytest]`.

They mostly wait: for a step's time, for thirty seconds of breach. Those that take a part of their cluster away for a while, or change
its installation, are marked `alone`; they have a cluster of their own, one after the other. The rest run several at a time on another.
"""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from e2e.cluster import ClusterProblem, start
from e2e.platform import install
from e2e.tests.conftest import CLUSTER, PRESENT, SCRAPE_SECONDS

AT_ONCE = 3


def main(arguments: list[str]) -> int:
    """Start the clusters, run the tests, take them down. Returns pytest's exit code, of those that failed the first."""
    with ExitStack() as stack:
        several = _pytest(stack, CLUSTER, "not alone", ["-n", str(AT_ONCE), "--dist", "load", "--maxschedchunk", "1", *arguments])
        with tempfile.TemporaryDirectory() as folder:
            # Two reports at once cannot be read.
            report = Path(folder) / "report"
            one_by_one = _pytest(stack, f"{CLUSTER}-alone", "alone", arguments, report=report)
            codes = [several.wait(), one_by_one.wait()]
            print(report.read_text(encoding="utf-8"))
        return next((code for code in codes if code), 0)


def _pytest(stack: ExitStack, name: str, marked: str, arguments: list[str], *, report: Path | None = None) -> subprocess.Popen[bytes]:
    """The tests with these marks, on a cluster of this name."""
    cluster = stack.enter_context(start(name))
    install(cluster, scrape_seconds=SCRAPE_SECONDS)
    command = [sys.executable, "-m", "pytest", "--durations=12", "-m", f"cluster and {marked}", *arguments, "tests", "e2e"]
    output = stack.enter_context(report.open("wb")) if report is not None else None
    process = subprocess.Popen(command, env=os.environ | {PRESENT: name}, stdout=output, stderr=output)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ClusterProblem as problem:
        sys.exit(str(problem))
