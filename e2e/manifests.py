"""`python -m e2e.manifests [--check]`: writes `manifests/base/backstop.yaml` as Helm renders the chart, or says that it is stale.

Helm's own labels are taken out: nothing of what is applied by hand is managed by Helm.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from e2e.cluster.build import program
from e2e.cluster.paths import REPOSITORY
from e2e.cluster.problems import ClusterProblem

CHART: Final = REPOSITORY / "charts" / "backstop"
RENDERED: Final = REPOSITORY / "manifests" / "base" / "backstop.yaml"
HEADER: Final = "# Rendered from charts/backstop by `python -m e2e.manifests`.\n"
VALUES: Final = (
    "image.repository=backstop",
    "metrics.sources[0].name=default",
    "metrics.sources[0].url=http://prometheus.monitoring.svc:9090",
    "metrics.sources[0].scrapeIntervalSeconds=15",
)
# Of Helm, or of values that a person edits here by hand.
DROPPED: Final = ("app.kubernetes.io/managed-by", "helm.sh/chart", "helm.sh/resource-policy", "checksum/config")


def helm(*arguments: str) -> str:
    """What Helm prints. Raises ClusterProblem where it cannot be had or refuses."""
    done = subprocess.run([str(program("helm")), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterProblem(f"helm {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def rendered() -> str:
    """The chart with the least values that it takes, for the release and namespace `backstop`."""
    settings = [part for value in VALUES for part in ("--set", value)]
    # Hooks are Helm's own: nobody else runs them at an uninstall.
    text = helm("template", "backstop", str(CHART), "--namespace", "backstop", "--no-hooks", *settings)
    documents = [_plain(document) for document in yaml.safe_load_all(text) if document]
    documents.sort(key=lambda document: document["kind"] != "CustomResourceDefinition")
    return HEADER + yaml.dump_all(documents, Dumper=_Readable, sort_keys=False, width=140, allow_unicode=True)


class _Readable(yaml.SafeDumper):
    """Texts of several lines are written as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        plain = {key: _plain(inner) for key, inner in value.items() if key not in DROPPED}
        return {key: inner for key, inner in plain.items() if key not in ("labels", "annotations") or inner}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m e2e.manifests", description="The chart, rendered for those who do not use Helm.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is not what the chart renders")
    check = parser.parse_args().check
    try:
        wanted = rendered()
    except ClusterProblem as problem:
        print(f"{_shown(RENDERED)} was not compared with the chart, for want of Helm: {problem}", file=sys.stderr)
        return 2
    if RENDERED.exists() and RENDERED.read_text(encoding="utf-8") == wanted:
        return 0
    if check:
        print(f"{_shown(RENDERED)} is not what the chart renders; run `python -m e2e.manifests`", file=sys.stderr)
        return 1
    RENDERED.write_text(wanted, encoding="utf-8")
    print(f"wrote {_shown(RENDERED)}")
    return 0


def _shown(path: Path) -> Path:
    return path.relative_to(REPOSITORY)


if __name__ == "__main__":
    sys.exit(main())
