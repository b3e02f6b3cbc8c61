"""What demo and tests stand on: images, Prometheus, the fake model, and the operator, installed with Helm as a user would."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster import Cluster, ClusterProblem
from e2e.cluster.build import program
from e2e.cluster.progress import step
from e2e.images import Image, archive_of

REPOSITORY = Path(__file__).parents[1]
MANIFESTS = REPOSITORY / "e2e" / "manifests"
OPERATOR_NAMESPACE = "backstop"
IMAGE = "localhost/backstop"
TAG = "dev"
PROMETHEUS_URL = "http://prometheus.monitoring.svc:9090"
READY_SECONDS = 180


def install(cluster: Cluster, *, scrape_seconds: int) -> None:
    """Everything but policies. Raises ClusterProblem with what the failing command said."""
    for image in Image:
        cluster.load_image(archive_of(image))
    with step("installing Prometheus and the fake model", expected_s=10):
        prometheus = (MANIFESTS / "prometheus.yaml").read_text(encoding="utf-8").replace("SCRAPE_INTERVAL", f"{scrape_seconds}s")
        cluster.kubectl("apply", "-f", "-", input=prometheus)
        cluster.kubectl("apply", "-f", str(MANIFESTS / "fakemodel.yaml"))
    with step("installing Backstop with Helm", expected_s=5):
        helm(cluster, scrape_seconds=scrape_seconds)
    with step("waiting for all of it to be ready", expected_s=10):
        for namespace, name in ((OPERATOR_NAMESPACE, "backstop"), ("monitoring", "prometheus"), ("models", "fakemodel")):
            available(cluster, namespace=namespace, name=name)


def helm(cluster: Cluster, *, scrape_seconds: int, namespaces: Sequence[str] = ()) -> None:
    """The chart, with one metrics source; for these namespaces alone, or for all."""
    values = [
        f"image.repository={IMAGE}",
        f"image.tag={TAG}",
        "metrics.sources[0].name=default",
        f"metrics.sources[0].url={PROMETHEUS_URL}",
        f"metrics.sources[0].scrapeIntervalSeconds={scrape_seconds}",
        *(f"namespaces[{number}]={namespace}" for number, namespace in enumerate(namespaces)),
    ]
    sets = [argument for value in values for argument in ("--set", value)]
    chart = str(REPOSITORY / "charts" / "backstop")
    _helm(cluster, "upgrade", "--install", "backstop", chart, "--create-namespace", *sets)


def uninstall(cluster: Cluster) -> None:
    """Take the release away, as a user would. Policies, their gateways and the definitions stay."""
    _helm(cluster, "uninstall", "backstop")


def _helm(cluster: Cluster, *arguments: str) -> None:
    command = [str(program("helm")), *arguments, "--namespace", OPERATOR_NAMESPACE]
    done = subprocess.run(command, env=cluster.environment(), capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        raise ClusterProblem(f"`helm {arguments[0]}` failed: {done.stderr.strip()}")


def available(cluster: Cluster, *, namespace: str, name: str) -> None:
    """Wait until the Deployment is. Raises ClusterProblem, with what its pods say."""
    waited = cluster.kubectl(
        "wait",
        "--for=condition=Available",
        f"deployment/{name}",
        "-n",
        namespace,
        f"--timeout={READY_SECONDS}s",
        check=False,
        timeout=READY_SECONDS + 20,
    )
    if waited.returncode:
        pods = cluster.kubectl("describe", "pods", "-n", namespace, check=False).stdout[-3000:]
        logs = cluster.kubectl("logs", f"deployment/{name}", "-n", namespace, "--tail=20", check=False).stdout
        raise ClusterProblem(f"Deployment {namespace}/{name} did not get ready: {waited.stderr.strip()}\n{pods}\n{logs}")


def elapsed_since(started: float) -> str:
    """`2 min 05 s`."""
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    return f"{minutes} min {seconds:02d} s"
