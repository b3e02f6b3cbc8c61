"""The processes that are measured or stand beside: the operator, Prometheus. Started here, and ended here whatever happens.

Reads a process's memory and time from Linux's /proc.
"""

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import yaml

from backstop.api.names import METRICS_PORT
from e2e.cluster.build import program
from e2e.cluster.lifetime import bound_to_parent
from e2e.cluster.paths import REPOSITORY

from .objects import IMAGE

START_SECONDS: Final = 300.0
END_SECONDS: Final = 20.0
OPERATOR_NAMESPACE: Final = "backstop"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Of a process and its children: CPU seconds since its start (`beside`: the children's), memory now and at the peak of each, in MiB."""

    cpu: float
    resident: float
    peak: float
    beside: float = 0.0

    def with_child(self, child: "Usage") -> "Usage":
        """With those of a child."""
        return Usage(self.cpu + child.cpu, self.resident + child.resident, self.peak + child.peak, self.beside + child.cpu)


def usage(pid: int) -> Usage:
    """As Linux counts it; children that have ended count with their CPU seconds."""
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    resident, peak = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    user, system, *ended = (int(ticks) / _TICKS for ticks in stat[11:15])
    own = Usage(cpu=user + system + sum(ended), resident=resident, peak=peak, beside=sum(ended))
    children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    return functools.reduce(Usage.with_child, map(usage, children), own)


@asynccontextmanager
async def child(command: Sequence[str], *, log: Path, environment: dict[str, str] | None = None) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A process that has ended when the context has; it ends with this process, too."""
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - it is over in a moment
            bound_to_parent(list(command)), env=os.environ | (environment or {}), stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Operator:
    """A running operator."""

    def __init__(self, process: subprocess.Popen[bytes], *, port: int, log: Path, session: aiohttp.ClientSession) -> None:
        self._process = process
        self._url = f"http://127.0.0.1:{port}"
        self._session = session
        self.log = log

    def usage(self) -> Usage:
        """What it has used."""
        return usage(self._process.pid)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it this, unless it has ended."""
        self._process.send_signal(number)

    async def is_ready(self) -> bool:
        """Whether it says that it has listed the cluster."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get(f"{self._url}/readyz") as answer:
                return answer.status == 200
        return False

    async def metrics(self) -> dict[str, float]:
        """Its own metrics, by name and labels as they are spelled; none while it does not answer."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the operator ended with {self._process.returncode}: {self.log.read_text()[-3000:]}")
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get(f"{self._url}/metrics") as answer:
                lines = (await answer.text()).splitlines()
                return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}
        return {}


@asynccontextmanager
async def operator(kubeconfig: Path, *, prometheus: str, scrape_seconds: int, port: int, folder: Path) -> AsyncIterator[Operator]:
    """The real one, configured as the chart does; it is not waited for."""
    config = folder / "operator.json"
    source = {"name": "default", "url": prometheus, "scrapeIntervalSeconds": scrape_seconds}
    election = {"namespace": OPERATOR_NAMESPACE}
    config.write_text(json.dumps({"gatewayImage": IMAGE, "metricsSources": [source], "leaderElection": election, "telemetryPort": port}))
    command = [sys.executable, "-c", "from backstop.main import main; main()", "--config", str(config), "--kubeconfig", str(kubeconfig)]
    log = folder / "operator.log"
    environment = {"PYTHONPATH": str(REPOSITORY / "operator")}
    async with child(command, log=log, environment=environment) as process, aiohttp.ClientSession() as session:
        yield Operator(process, port=port, log=log, session=session)


class Prometheus:
    """A running Prometheus that scrapes what it is told to."""

    def __init__(self, process: subprocess.Popen[bytes], *, port: int, folder: Path, scrape_seconds: int) -> None:
        self._process = process
        self._folder = folder
        self._scrape_seconds = scrape_seconds
        self.url = f"http://127.0.0.1:{port}"

    async def scrape(self, addresses: Iterable[str]) -> None:
        """From now on these pods."""
        write_prometheus_config(self._folder, addresses=addresses, scrape_seconds=self._scrape_seconds)
        self._process.send_signal(signal.SIGHUP)

    async def queries(self) -> float:
        """Range selectors that were asked for, since its start."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        counted = 'prometheus_http_requests_total{code="200",handler="/api/v1/query"}'
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(counted))


def write_prometheus_config(folder: Path, *, addresses: Iterable[str], scrape_seconds: int) -> None:
    """One static target per pod."""
    targets = [f"{address}:{METRICS_PORT}" for address in addresses]
    job = {"job_name": "gateways", "static_configs": [{"targets": targets}]}
    interval = {"scrape_interval": f"{scrape_seconds}s", "scrape_timeout": f"{scrape_seconds}s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"global": interval, "scrape_configs": [job]}))


@asynccontextmanager
async def prometheus(*, port: int, folder: Path, scrape_seconds: int) -> AsyncIterator[Prometheus]:
    """The real one, ready."""
    write_prometheus_config(folder, addresses=(), scrape_seconds=scrape_seconds)
    command = [
        str(program("prometheus")),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    async with child(command, log=folder / "prometheus.log") as process, aiohttp.ClientSession() as session:
        async with asyncio.timeout(START_SECONDS):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{port}/-/ready") as answer:
                        if answer.status == 200:
                            break
                await asyncio.sleep(0.1)
        yield Prometheus(process, port=port, folder=folder, scrape_seconds=scrape_seconds)
