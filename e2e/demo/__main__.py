"""`python -m e2e.demo [--keep]`: a cluster, the platform on it, and the story. Exit 0 only if all of the story was seen."""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from rich.console import Console

from backstop.kube.errors import KubeError
from e2e.cluster import Cluster, ClusterProblem, start
from e2e.demo.story import NAMESPACE, play
from e2e.demo.summary import NotSeen
from e2e.platform import MANIFESTS, elapsed_since, install

CLUSTER = "backstop-demo"
SCRAPE_SECONDS = 5
OUT = Path("out/demo.json")


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="python -m e2e.demo")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up")
    options = parser.parse_args()
    console, started = Console(highlight=False), time.monotonic()
    try:
        cluster = start(CLUSTER, detached=options.keep)
        try:
            _demo(cluster, console=console)
        finally:
            if not options.keep:
                cluster.down()
    except (ClusterProblem, KubeError, NotSeen) as problem:
        console.print(f"[bold red]{type(problem).__name__}[/]", problem, markup=True, soft_wrap=True)
        return 1
    console.print(f"\n  figures: {OUT}; took {elapsed_since(started)}")
    if options.keep:
        _say_how_to_use(cluster, console=console)
    return 0


def _demo(cluster: Cluster, *, console: Console) -> None:
    install(cluster, scrape_seconds=SCRAPE_SECONDS)
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl("apply", "-n", NAMESPACE, "-f", str(MANIFESTS / "demo.yaml"))
    asyncio.run(play(kubeconfig=cluster.kubeconfig, out=OUT, console=console))


def _say_how_to_use(cluster: Cluster, *, console: Console) -> None:
    kubectl = " ".join(cluster.kubectl_argv())
    console.print("\n  The cluster is up. To look around:")
    console.print(f"    export KUBECONFIG={cluster.kubeconfig}", soft_wrap=True)
    console.print(f"    alias kubectl='{kubectl}'", soft_wrap=True)
    console.print(f"    kubectl -n {NAMESPACE} get fbp,pmv")
    console.print(f"    kubectl -n {NAMESPACE} describe fbp support")
    console.print("  To take it down: make demo-down")


if __name__ == "__main__":
    sys.exit(main())
