"""The whole-system tests, several at a time on one cluster: `python -m e2e.tests [arguments of pytest]`.

They mostly wait: for a step's time, for thirty seconds of breach. Tests marked `alone` take away what the others stand on, or want all of
the machine; they wait until nobody else runs.
"""

import os
import subprocess
import sys

from e2e.cluster import ClusterProblem, start
from e2e.platform import install
from e2e.tests.conftest import CLUSTER, PRESENT, SCRAPE_SECONDS

AT_ONCE = 3


def main() -> int:
    """Start the cluster, run the tests, take it down. Returns pytest's exit code."""
    with start(CLUSTER) as running:
        install(running, scrape_seconds=SCRAPE_SECONDS)
        # One by one, in order: those that run alone come last.
        several = ["-n", str(AT_ONCE), "--dist", "load", "--maxschedchunk", "1"]
        command = [sys.executable, "-m", "pytest", *several, "-m", "cluster", *(sys.argv[1:] or ["tests", "e2e"])]
        return subprocess.run(command, env={**os.environ, PRESENT: CLUSTER}, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ClusterProblem as problem:
        sys.exit(str(problem))
