"""A real Prometheus on the loopback, scraping what a test serves."""

import asyncio
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import pytest
import requests
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from backstop.api.metricnames import SENT_TOTAL, SERVED_SECONDS, SERVED_TOTAL, latency_bounds
from e2e.cluster.build import program
from e2e.cluster.ports import free_port

START_SECONDS = 20.0
SCRAPE_SECONDS = 1


class Scraped(Protocol):
    """What listens on a port of the loopback and has metrics there."""

    @property
    def port(self) -> int:
        """Of `/metrics`."""
        ...


@dataclass
class Pod:
    """An entry pod's counters behind a real /metrics endpoint on a port of its own."""

    port: int
    served: Counter
    seconds: Histogram
    sent: Counter

    def serve(self, *, revision: str, count: int, seconds: float = 0.05, outcome: str = "success", first_tier: str = "answered") -> None:
        """Counts `count` requests as the gateway does."""
        of = {"namespace": "shop", "policy": "support", "revision": revision}
        self.sent.labels(**of).inc(count)
        self.served.labels(**of, cache="miss", outcome=outcome, first_tier=first_tier).inc(count)
        if outcome in ("success", "truncated"):
            for _ in range(count):
                self.seconds.labels(**of, cache="miss", first_tier=first_tier).observe(seconds)


@dataclass
class Worker:
    """A process that is no gateway, with counters of its own: jobs by state and by the revision it was made with."""

    port: int
    jobs: Counter


@dataclass
class Pods:
    """Starts and stops pods; a restarted one keeps its port and loses its counters."""

    running: dict[int, tuple[object, object]] = field(default_factory=dict)

    def start(self, *, port: int = 0) -> Pod:
        registry = CollectorRegistry()
        of = ["namespace", "policy", "revision"]
        pod = Pod(
            port=port or free_port(),
            served=Counter(SERVED_TOTAL, "Served.", [*of, "cache", "outcome", "first_tier"], registry=registry),
            seconds=Histogram(
                SERVED_SECONDS, "First byte.", [*of, "cache", "first_tier"], registry=registry, buckets=latency_bounds([0.15])
            ),
            sent=Counter(SENT_TOTAL, "Sent.", of, registry=registry),
        )
        self.running[pod.port] = start_http_server(pod.port, addr="127.0.0.1", registry=registry)
        return pod

    def start_worker(self, *, port: int = 0) -> Worker:
        registry = CollectorRegistry()
        worker = Worker(port=port or free_port(), jobs=Counter("jobs_total", "Jobs.", ["state", "version"], registry=registry))
        self.running[worker.port] = start_http_server(worker.port, addr="127.0.0.1", registry=registry)
        return worker

    def restart(self, pod: Pod) -> Pod:
        self.stop(pod.port)
        return self.start(port=pod.port)

    def stop(self, port: int) -> None:
        server, thread = self.running.pop(port)
        server.shutdown()  # type: ignore[attr-defined]  # the two types are private to wsgiref's users
        server.server_close()  # type: ignore[attr-defined]
        thread.join(timeout=10)  # type: ignore[attr-defined]


@dataclass
class Prometheus:
    """A Prometheus process and where it is."""

    binary: Path
    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def scrape(self, pods: Sequence[Scraped], *, workers: Mapping[str, Scraped] = MappingProxyType({}), option: str | None = None) -> None:
        """Writes the configuration: each pod is a target with a `pod` label, once a second; a worker has its name and a namespace.

        `option`: of the job, which is off if it is not turned on.
        """
        targets = "".join(
            f"      - targets: ['127.0.0.1:{pod.port}']\n        labels: {{pod: 'pod-{index}'}}\n" for index, pod in enumerate(pods)
        ) + "".join(
            f"      - targets: ['127.0.0.1:{worker.port}']\n        labels: {{pod: '{name}', namespace: shop}}\n"
            for name, worker in workers.items()
        )
        (self.directory / "prometheus.yml").write_text(
            f"global: {{scrape_interval: {SCRAPE_SECONDS}s, scrape_timeout: {SCRAPE_SECONDS}s}}\n"
            f"scrape_configs:\n  - job_name: gateways\n" + (f"    {option}: true\n" if option else "") + f"    static_configs:\n{targets}"
        )

    async def start(self) -> None:
        """Starts it and waits until it answers."""
        self.process = process = self._launched()
        async with asyncio.timeout(START_SECONDS):
            while not await asyncio.to_thread(self._ready):
                assert process.poll() is None, (self.directory / "log").read_text()
                await asyncio.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=20)
            self.process = None

    def _launched(self) -> subprocess.Popen[bytes]:
        arguments = [
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen([self.binary, *arguments], stdout=log, stderr=subprocess.STDOUT)

    def _ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=2).status_code == 200
        except requests.ConnectionError:
            return False


@pytest.fixture
def pods() -> Iterator[Pods]:
    """Pods that are stopped after the test."""
    started = Pods()
    yield started
    for port in list(started.running):
        started.stop(port)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that the test configures and starts, and that is stopped after it."""
    server = Prometheus(binary=program("prometheus"), directory=tmp_path, port=free_port())
    yield server
    server.stop()
