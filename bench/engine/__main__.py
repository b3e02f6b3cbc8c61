"""The command line of the bench; see the package's docstring."""

import argparse
import asyncio
import logging
import platform
import signal
import sys
from contextlib import AsyncExitStack

from e2e.cluster.build import KUBERNETES, PROMETHEUS

from .baseline import measure_baseline
from .evaluation import measure_evaluation
from .handover import measure_handover
from .idle import measure_idle
from .live import measure_live, measure_queries
from .slos import FEW, SLOS
from .stage import Stage, load, stage
from .table import Row, printed


def _counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description="What the operator costs, and how fast it shifts traffic.")
    parser.add_argument(
        "--idle", type=_counts, default=[200, 1000, 10000], metavar="N,…", help="policies in rest (default: 200,1000,10000)"
    )
    parser.add_argument(
        "--live", type=_counts, default=[1, 100, 1000], metavar="N,…", help="canaries under judgement (default: 1,100,1000)"
    )
    parser.add_argument(
        "--burst", type=int, default=100, metavar="N", help="of the most live ones, so many breach at once (default: 100; 0: none)"
    )
    parser.add_argument("--analysing", type=int, default=50, metavar="N", help="live ones whose queries are counted (default: 50; 0: none)")
    parser.add_argument(
        "--breaches", type=int, default=100, metavar="N", help="single breaches, at most a quarter of the live (default: 100)"
    )
    parser.add_argument("--scrape-seconds", type=int, default=5, metavar="S", help="scrape interval of Prometheus (default: 5)")
    parser.add_argument(
        "--idle-seconds", type=float, default=330.0, metavar="S", help="how long to look at rest (default: 330, so with a sweep)"
    )
    parser.add_argument(
        "--handover",
        type=int,
        default=10,
        metavar="N",
        help="times that the operator that leads is told to end; half of them that it is killed, that it freezes (default: 10; 0: none)",
    )
    parser.add_argument("--replicas", type=int, default=2, metavar="N", help="gateway pods per policy (default: 2)")
    parser.add_argument(
        "--slos", type=int, choices=range(1, len(SLOS) + 1), default=FEW, help=f"SLOs per policy, {len(SLOS)} at most (default: {FEW})"
    )
    parser.add_argument(
        "--evaluations",
        type=_counts,
        default=[1000],
        metavar="N,…",
        help="live policies whose judging alone is measured, without any server, with as many SLOs and with all of them (default: 1000)",
    )
    return parser


async def _run(options: argparse.Namespace) -> list[Row]:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # so that all that was started is ended
    rows: list[Row] = []

    def tell(found: list[Row]) -> None:
        rows.extend(found)
        print(printed(found), file=sys.stderr, flush=True)

    async def fresh(stack: AsyncExitStack) -> Stage:
        return await stack.enter_async_context(stage(scrape_seconds=options.scrape_seconds, replicas=options.replicas, slos=options.slos))

    for count in sorted(options.evaluations):
        for slos in sorted({options.slos, len(SLOS)}):
            tell(measure_evaluation(count=count, slos=slos))
    if options.idle:
        async with AsyncExitStack() as stack:
            idle = await fresh(stack)
            for count in sorted(options.idle):
                tell(await measure_idle(idle, count=count, seconds=options.idle_seconds))
                tell(await measure_baseline(idle, count=count))
    if options.analysing:
        async with AsyncExitStack() as stack:
            ten = await stack.enter_async_context(stage(scrape_seconds=10, replicas=options.replicas, slos=options.slos))
            tell(await measure_queries(ten, count=options.analysing))
    if options.handover:
        async with AsyncExitStack() as stack:
            tell(await measure_handover(await fresh(stack), count=options.handover))
    for count in sorted(options.live):
        async with AsyncExitStack() as stack:
            live = await fresh(stack)
            burst = options.burst if count == max(options.live) else 0
            tell(await measure_live(live, count=count, breaches=options.breaches, burst=burst))
    return rows


def main() -> None:
    """Measure and print."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    machine = f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}"
    print(f"{machine}; Kubernetes {KUBERNETES}, Prometheus {PROMETHEUS}; load {load()} before", file=sys.stderr)
    print(printed(asyncio.run(_run(options))))


if __name__ == "__main__":
    main()
