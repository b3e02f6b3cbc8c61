"""`backstop-operator`: reads the configuration, connects, runs until SIGTERM. A wrong configuration: exit code 2 and one sentence."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from .analysis.prometheus import PrometheusSource
from .analysis.queries import MetricsSourceConfig
from .api.problems import InputError
from .controller.config import OperatorConfig, read_config
from .controller.run import REQUEST_SECONDS, Operator
from .kube.client import Client
from .kube.connection import Connection, NotConnected, connect
from .telemetry.log import set_up_logging
from .telemetry.metrics import Metrics

BAD_CONFIGURATION = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    options = _parser().parse_args(arguments)
    set_up_logging()
    try:
        config = read_config(options.config)
        asyncio.run(_run(config, kubeconfig=options.kubeconfig))
    except (InputError, NotConnected) as error:
        print(f"backstop-operator: {error}", file=sys.stderr)  # noqa: T201 - the one sentence for whoever started it
        sys.exit(BAD_CONFIGURATION)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="backstop-operator", description="Rolls out prompts and fallback chains, and takes them back.")
    parser.add_argument("--config", type=Path, required=True, help="configuration file (YAML or JSON)")
    parser.add_argument("--kubeconfig", type=Path, help="connect by this file instead of by the pod's service account")
    return parser


async def _run(config: OperatorConfig, *, kubeconfig: Path | None) -> None:
    connection = await connect(kubeconfig)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    running = asyncio.create_task(_operate(config, connection=connection))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if running.done():
        await running
        return
    running.cancel()
    await asyncio.wait((running,))


async def _operate(config: OperatorConfig, *, connection: Connection) -> None:
    metrics = Metrics()
    client = Client(connection.api_client(), timeout=REQUEST_SECONDS, on_write=metrics.count_write)
    sources = {
        source.name: PrometheusSource(MetricsSourceConfig(source.name, source.url, float(source.scrapeIntervalSeconds)))
        for source in config.metricsSources
    }
    instance = f"{socket.gethostname()}-{os.getpid()}"
    try:
        await Operator(config, connection=connection, client=client, sources=sources, metrics=metrics, instance=instance).run()
    finally:
        for source in sources.values():
            source.close()
        await client.close()
