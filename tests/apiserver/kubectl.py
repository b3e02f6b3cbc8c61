"""kubectl against the API server of the tests."""

import subprocess
from pathlib import Path

from e2e.cluster.build import program

DEADLINE_SECONDS = 60.0


class Refused(Exception):  # noqa: N818 - what the API server says, which is what the tests are about
    """kubectl's error output."""


def kubectl(*arguments: str, kubeconfig: Path, text: str | None = None) -> str:
    """What kubectl prints; `text` is its standard input. Raises Refused."""
    command = [str(program("kube")), "kubectl", "--kubeconfig", str(kubeconfig), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout
