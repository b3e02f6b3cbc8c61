"""`backstop-gateway`: reads its arguments and its configuration, then runs one gateway.

In a pod it runs the mounted revision record; on a laptop, the manifests that `kubectl apply` takes. A configuration it cannot
serve ends it with code 2 and one sentence.
"""

import argparse
import asyncio
import gc
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Final, NoReturn

import prometheus_client
import uvloop

from ..api.names import METRICS_PORT, TRAFFIC_PORT, revision_address
from ..api.record import secrets_of_record
from .access import CallerKeys, KeysError
from .callerfiles import read_callers
from .compilation import compile_revision
from .exchange import MAX_BODY_BYTES
from .files import LEAST, for_callers, raise_limit
from .gateway import Settings, run_gateway
from .listen import bind, stop_on_signals
from .manifests import read_record, record_from_manifests
from .matrix import latency_matrix
from .memory import give_back_long_pieces, memory_limit
from .options import parse_port, parse_seconds
from .revision import ConfigurationError, Revision
from .shares import CONNECTION, most_for_cache, share
from .traceoptions import TraceSettings, trace_settings
from .trafficwatch import ApiServer

# Until every sender has seen that the pod is not ready.
POD_DRAIN_SECONDS: Final = 5.0
# Spans are written in a thread of their own. Python leaves each thread its turn for 5 ms; a request would wait for all of them.
SWITCH_SECONDS: Final = 0.0005
# Objects made since garbage was last looked for. Next to nothing here has cycles, and at Python's own 700 looking takes 4 % of the time.
COLLECT_AFTER: Final = 20_000


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
    try:
        options = _parser().parse_args(arguments)
        if options.check:
            sys.stdout.write(_check(options, environment=os.environ))
            return
        revision, settings = _configure(options, environment=os.environ)
    except ConfigurationError as error:
        sys.stderr.write(f"backstop-gateway: {error}\n")
        sys.exit(2)
    give_back_long_pieces()
    if settings.traces is not None:
        sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(revision, settings=settings))


async def _run(revision: Revision, *, settings: Settings) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    # What is there now stays until the end: to look through it for garbage takes tens of milliseconds, in which nobody is answered.
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    port = settings.traffic_socket.getsockname()[1]
    logging.getLogger("backstop.gateway").info(
        "serving %s of policy %s/%s on port %d, metrics on port %d: %d connections, bodies of up to %.1f MiB",
        revision.name, revision.namespace, revision.policy, port, settings.metrics_socket.getsockname()[1],
        settings.connections, min(settings.body_bytes, MAX_BODY_BYTES) / (1 << 20),
    )  # fmt: skip
    await run_gateway(revision, settings=settings, stop=stop, clock=time.monotonic, now=time.time, split=Random(), jitter=Random())


class _Parser(argparse.ArgumentParser):
    """Refuses a command line as a configuration is refused: in one sentence."""

    def error(self, message: str) -> NoReturn:
        """What argparse found."""
        raise ConfigurationError(f"{message}; see `backstop-gateway --help`")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="backstop-gateway", description="Serve one prompt and its fallback chain behind an OpenAI-compatible API.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--record", type=Path, metavar="FILE", help="the revision record, as mounted into a pod")
    source.add_argument(
        "--manifests", type=Path, nargs="+", metavar="FILE", help="manifests as `kubectl apply` takes them; serves on this machine only"
    )
    parser.add_argument("--policy", metavar="NAME", help="which FallbackPolicy, when the manifests have several")
    parser.add_argument(
        "--check", action="store_true", help="only say whether --manifests can be served, and print the chain's times; needs no keys"
    )
    parser.add_argument(
        "--host", metavar="ADDRESS", help="where to listen (default: every address with --record, 127.0.0.1 with --manifests)"
    )
    parser.add_argument("--port", default=str(TRAFFIC_PORT), help="traffic (default %(default)s; 0: any)")
    parser.add_argument("--metrics-port", default=str(METRICS_PORT), help="metrics, health and status (default %(default)s; 0: any)")
    parser.add_argument("--drain-seconds", help="how long requests are still accepted after SIGTERM (default: 5 with --record, else 0)")
    parser.add_argument("--grace-seconds", default="30", help="the pod's termination grace period (default %(default)s)")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="REVISION=HOST:PORT", help="where a revision's pods are, in place of its Service"
    )
    parser.add_argument(
        "--cache-folder", type=Path, metavar="FOLDER", help="where answers are kept; where the policy's cache has a cold level"
    )
    parser.add_argument(
        "--tickets-folder", type=Path, metavar="FOLDER", help="where tickets wait for their webhook; where the policy has a human tier"
    )
    parser.add_argument(
        "--callers", type=Path, metavar="FOLDER", help="a file for each caller, with its keys; where the policy asks for keys"
    )
    return parser


def _check(options: argparse.Namespace, *, environment: Mapping[str, str]) -> str:
    """The latency-budget matrix of what would be served. Raises ConfigurationError for what would be refused."""
    if options.record is not None:
        raise ConfigurationError("`--check` belongs to `--manifests`; a record has been checked when it was written")
    record, keys, _ = record_from_manifests(options.manifests, policy=options.policy)
    no_matter = dict.fromkeys(secrets_of_record(record), "rediss://unknown-for-a-check-needs-no-secrets")
    return latency_matrix(compile_revision(record, environment={**no_matter, **environment, **keys}))


def _configure(options: argparse.Namespace, *, environment: Mapping[str, str]) -> tuple[Revision, Settings]:
    keys: dict[str, str] = {}
    callers: dict[str, str] = {}
    if options.record is not None:
        if options.policy is not None:
            raise ConfigurationError("`--policy` belongs to `--manifests`; leave it out")
        record, host, api_server = read_record(options.record), options.host, ApiServer.from_environment(environment)
        drain = POD_DRAIN_SECONDS
    else:
        record, keys, callers = record_from_manifests(options.manifests, policy=options.policy)
        host, api_server, drain = options.host or "127.0.0.1", None, 0.0
    revision = compile_revision(record, environment={**environment, **keys})
    memory = memory_limit()
    refuse_too_large_a_cache(revision, memory=memory)
    shares = share(memory, cache=0 if revision.cache is None else revision.cache.hot_bytes)
    callers = _callers(revision, folder=options.callers, given=callers)
    traces = _traces(environment, authorities=revision.trace_authorities)
    settings = Settings(
        traffic_socket=bind(host, port=parse_port(options.port, option="--port"), option="--port"),
        metrics_socket=bind(host, port=parse_port(options.metrics_port, option="--metrics-port"), option="--metrics-port"),
        address=_addresses(options.peer, revision=revision),
        api_server=api_server,
        drain_seconds=drain if options.drain_seconds is None else parse_seconds(options.drain_seconds, option="--drain-seconds"),
        grace_seconds=parse_seconds(options.grace_seconds, option="--grace-seconds"),
        body_bytes=shares.bodies,
        head_bytes=shares.heads,
        connections=_connections(by_memory=shares.connections // CONNECTION),
        caller_texts=callers,
        callers=options.callers,
        cache_folder=_cache_folder(revision, folder=options.cache_folder),
        tickets_folder=_tickets_folder(revision, folder=options.tickets_folder),
        traces=traces,
    )
    return revision, settings


def _connections(*, by_memory: int) -> int:
    """How many callers may have. Raises ConfigurationError."""
    limit = raise_limit()
    if limit < LEAST:
        raise ConfigurationError(f"this process may have {limit} open files, and needs {LEAST} at least; raise its limit (`ulimit -n`)")
    return for_callers(limit, by_memory=by_memory)


def _traces(environment: Mapping[str, str], *, authorities: str | None) -> TraceSettings | None:
    """Where traces go. Raises ConfigurationError."""
    settings = trace_settings(environment, authorities=authorities)
    if settings is None:
        return None
    try:  # now, so that it is there before what is there is frozen
        import_module("backstop.gateway.spanexport")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        said = "traces are asked for, and this installation has nothing to send them with; install `backstop[traces]`"
        raise ConfigurationError(said) from None
    for option, file in (("CERTIFICATE", settings.authority), ("CLIENT_CERTIFICATE", settings.certificate), ("CLIENT_KEY", settings.key)):
        if file is not None and not os.access(file, os.R_OK):
            raise ConfigurationError(f"`OTEL_EXPORTER_OTLP_{option}` names a file that cannot be read; correct it")
    return settings


def _cache_folder(revision: Revision, *, folder: Path | None) -> Path | None:
    """Where a cold level keeps its file. Raises ConfigurationError."""
    if revision.cache is None or revision.cache.cold is None:
        return None
    if folder is None:
        raise ConfigurationError(f"`cache.cold` of tier `{revision.cache.name}` needs a folder for its file; give one to `--cache-folder`")
    return folder


def _tickets_folder(revision: Revision, *, folder: Path | None) -> Path | None:
    """Where tickets for people wait. Raises ConfigurationError."""
    if revision.human is None:
        return None
    if folder is None:
        raise ConfigurationError(f"`human` of tier `{revision.human.name}` needs a folder for its tickets; give one to `--tickets-folder`")
    return folder


def _callers(revision: Revision, *, folder: Path | None, given: Mapping[str, str]) -> dict[str, str]:
    """By caller, the text of its keys, which can be used. Raises ConfigurationError."""
    if not revision.takes_keys:
        return {}
    if folder is None and not given:
        raise ConfigurationError(
            "`spec.access.callerKeysRef`: no keys; give the Secret, or a folder with a file for each caller to `--callers`"
        )
    try:
        texts = dict(given) if folder is None else read_callers(folder)
        CallerKeys(texts)
    except KeysError as error:
        raise ConfigurationError(f"`spec.access.callerKeysRef`: {error}") from None
    return texts


def refuse_too_large_a_cache(revision: Revision, *, memory: int | None) -> None:
    """Raise ConfigurationError where the cache could fill so much of `memory` (bytes; None: there is no limit) that the pod is killed."""
    tier, most = revision.cache, most_for_cache(memory)
    if tier is not None and most is not None and tier.hot_bytes > most:
        raise ConfigurationError(
            f"`cache.hot.maxMebibytes` of tier `{tier.name}` is {tier.hot_bytes >> 20}, and this container's memory has room for"
            f" {most >> 20}; lower it, or raise `spec.serving.resources.limits.memory`"
        )


def _addresses(given: Sequence[str], *, revision: Revision) -> Callable[[str], str]:
    peers: dict[str, str] = {}
    for text in given:
        name, separator, address = text.partition("=")
        host, colon, port = address.rpartition(":")
        if not (name and separator and host and colon):
            raise ConfigurationError(f"`--peer {text}` is not REVISION=HOST:PORT; correct it")
        parse_port(port, option=f"--peer {name}")
        peers[name] = address
    return lambda name: peers.get(name) or revision_address(revision.policy, revision=name, namespace=revision.namespace)


if __name__ == "__main__":
    main()
