"""`backstop-operator`: reads the configuration, connects, runs until SIGTERM. `backstop-operator let-go` is for after an uninstall.

Exit codes: 2 and one sentence for a wrong configuration, 3 when another operator leads, 1 when `let-go` could not let go of all.
"""

import argparse
import asyncio
import gc
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from uuid import uuid4

from .analysis.apart import Apart
from .analysis.queries import MetricsSourceConfig
from .api.names import OPERATOR_MANAGER
from .api.problems import InputError
from .controller.aside import Aside
from .controller.config import LeaderElection, OperatorConfig, read_config
from .controller.leadership import RENEWALS, Leadership, LeadershipLost, lost_in
from .controller.letgo import let_go
from .controller.run import REQUEST_SECONDS, Operator
from .kube.client import Client
from .kube.connection import Connection, NotConnected, connect
from .kube.errors import KubeError
from .kube.lease import LeaseObject
from .telemetry.log import fields, set_up_logging
from .telemetry.metrics import Metrics

FAILED = 1
BAD_CONFIGURATION = 2
LOST = 3
# Nearly everything here is let go of by counting references. With Python's own thresholds, most of the time of a start in a large
# cluster goes into looking for cycles among what was just listed.
COLLECT_AFTER = (100_000, 50, 100)

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    parser = _parser()
    options = parser.parse_args(arguments)
    set_up_logging()
    gc.set_threshold(*COLLECT_AFTER)
    try:
        if options.command == "let-go":
            asyncio.run(_let_go(options.namespace, kubeconfig=options.kubeconfig))
            return
        if options.config is None:
            parser.error("the following arguments are required: --config")
        config = read_config(options.config)
        asyncio.run(_run(config, kubeconfig=options.kubeconfig))
    except (InputError, NotConnected) as error:
        print(f"backstop-operator: {error}", file=sys.stderr)  # noqa: T201 - the one sentence for whoever started it
        sys.exit(BAD_CONFIGURATION)
    except KubeError as error:
        print(f"backstop-operator: {error}", file=sys.stderr)  # noqa: T201 - the one sentence for whoever started it
        sys.exit(FAILED)
    except LeadershipLost as lost:
        _log.warning("this operator leads no longer, and ends", extra=fields(error=str(lost)))
        sys.exit(LOST)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="backstop-operator", description="Rolls out prompts and fallback chains, and takes them back.")
    parser.add_argument("--config", type=Path, help="configuration file (YAML or JSON)")
    parser.add_argument("--kubeconfig", type=Path, help="connect by this file instead of by the pod's service account")
    commands = parser.add_subparsers(dest="command", title="instead of running")
    letting_go = commands.add_parser("let-go", help="take the operator's finalizer off every policy, after an uninstall")
    letting_go.add_argument("--namespace", action="append", default=[], help="of the policies; may be repeated; default: all namespaces")
    letting_go.add_argument("--kubeconfig", type=Path, help="connect by this file instead of by the pod's service account")
    return parser


async def _let_go(namespaces: Sequence[str], *, kubeconfig: Path | None) -> None:
    connection = await connect(kubeconfig)
    client = Client(connection.api_client(), timeout=REQUEST_SECONDS)
    try:
        released = await let_go(client, namespaces=namespaces)
    finally:
        await client.close()
    _log.info("policies were let go", extra=fields(count=released))


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


async def _leadership(stack: AsyncExitStack, *, election: LeaderElection, connection: Connection, instance: str) -> Leadership:
    # Connections of its own: a renewal never waits for other requests. And it must come back well within what it gives.
    renewals = Client(connection.api_client(), timeout=election.leaseSeconds / RENEWALS)
    stack.push_async_callback(renewals.close)
    return Leadership(
        LeaseObject(renewals, namespace=election.namespace, name=election.name, manager=OPERATOR_MANAGER),
        identity=f"{instance}-{uuid4().hex[:8]}",
        seconds=election.leaseSeconds,
        clock=time.time,
        monotonic=time.monotonic,
        jitter=random.random,
    )


async def _operate(config: OperatorConfig, *, connection: Connection) -> None:
    metrics = Metrics()
    instance = f"{socket.gethostname()}-{os.getpid()}"
    evaluators = {
        source.name: Apart(
            MetricsSourceConfig(source.name, source.url, float(source.scrapeIntervalSeconds)),
            credentials=source.credentials(Path(config.secretsDirectory)),
        )
        for source in config.metricsSources
    }
    async with AsyncExitStack() as stack:
        leadership = None
        if (election := config.leaderElection) is not None:
            making = partial(_leadership, election=election, connection=connection, instance=instance)
            leadership = await stack.enter_async_context(Aside(making, problem=lambda: operator.heartbeat.stuck()))
        client = Client(
            connection.api_client(),
            timeout=REQUEST_SECONDS,
            on_write=metrics.count_write,
            may_write=leadership.leads if leadership is not None else lambda: True,
        )
        stack.push_async_callback(client.close)
        operator = Operator(
            config, connection=connection, client=client, evaluators=evaluators, metrics=metrics, instance=instance, leadership=leadership
        )
        try:
            await operator.run()
        except BaseExceptionGroup as group:
            if (lost := lost_in(group)) is not None:
                raise lost from None
            raise
