"""Helm, on the project's chart."""

import os
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from e2e.cluster.build import program

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "charts" / "backstop"
IMAGE: Final = ("image.repository=localhost/backstop", "image.tag=dev")
DEADLINE_SECONDS: Final = 120.0


class HelmRefused(Exception):  # noqa: N818 - what Helm says, which is what the tests are about
    """Helm's error output."""


def helm(*arguments: str, kubeconfig: Path | None = None, home: Path | None = None) -> str:
    """What Helm prints. Raises HelmRefused."""
    environment = os.environ | ({"HELM_CACHE_HOME": str(home), "HELM_CONFIG_HOME": str(home), "HELM_DATA_HOME": str(home)} if home else {})
    command = [str(program("helm")), *arguments, *(["--kubeconfig", str(kubeconfig)] if kubeconfig else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    if done.returncode != 0:
        raise HelmRefused(done.stderr)
    return done.stdout


def settings(*values: str) -> list[str]:
    """`--set` for each value."""
    return [part for value in values for part in ("--set", value)]


def template(*values: str, namespace: str = "backstop", chart: Path = CHART) -> list[dict[str, Any]]:
    """The objects that the chart installs."""
    text = helm("template", "backstop", str(chart), "--namespace", namespace, "--no-hooks", *settings(*values))
    return [document for document in yaml.safe_load_all(text) if document]


def hooks(*values: str, namespace: str = "backstop") -> list[dict[str, Any]]:
    """The objects that Helm makes for a moment of a release's life alone."""
    text = helm("template", "backstop", str(CHART), "--namespace", namespace, *settings(*values))
    documents = [document for document in yaml.safe_load_all(text) if document]
    return [document for document in documents if "helm.sh/hook" in document["metadata"].get("annotations", {})]


def only(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The one object of a kind."""
    (found,) = [document for document in documents if document["kind"] == kind]
    return found
