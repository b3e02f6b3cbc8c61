"""The command line of the bench; see the package's docstring."""

import argparse
import asyncio
import datetime
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from e2e.cluster.problems import ClusterProblem

from . import parts
from .calls import BenchError, Caller
from .measure import Figures, measure, measure_model
from .stacks import Fault, Stack, available_cores, backstop, litellm, model, portkey
from .table import Round, table

STACKS: Final[dict[str, Callable[[], Stack]]] = {"backstop": backstop, "litellm": litellm, "portkey": portkey}
BEGIN: Final = "<!-- figures -->"
END: Final = "<!-- end of figures -->"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description="What the gateway costs, beside others.")
    parser.add_argument(
        "--only", choices=list(STACKS), action="append", help="one of the stacks, more than once for several; ours is always there"
    )
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="of each run (default: 5)")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="all stacks in turns; medians are shown (default: 1)")
    parser.add_argument("--no-faults", action="store_true", help="leave out primaries that fail")
    parser.add_argument("--page", type=Path, metavar="FILE", help="where to put the table, between its marks; of a whole run only")
    return parser


async def _run(options: argparse.Namespace) -> str:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # so that all that was started is ended
    wanted = ["backstop", *(name for name in STACKS if name != "backstop" and (not options.only or name in options.only))]
    core, calling = available_cores()
    faults = [] if options.no_faults else list(Fault)
    with tempfile.TemporaryDirectory(prefix="bench-gateway-") as scratch:
        folder = Path(scratch)
        caller = Caller(parts.httpload(), core=calling, folder=folder)
        stacks = [STACKS[name]() for name in wanted]
        async with model(core=calling, folder=folder) as mock:
            rounds: list[Round] = []
            for number in range(1, options.rounds + 1):
                direct = await measure_model(mock, caller=caller, seconds=options.seconds)
                found: list[Figures] = []
                for stack in stacks:
                    print(f"round {number} of {options.rounds}: {stack.name} {stack.version} …", file=sys.stderr, flush=True)
                    found.append(
                        await measure(stack, model=mock, caller=caller, core=core, folder=folder, seconds=options.seconds, faults=faults)
                    )
                rounds.append(Round(direct, found))
    return table(rounds)


def _times(rounds: int) -> str:
    return "one round" if rounds == 1 else f"medians of {rounds} rounds"


def _put(text: str, *, page: Path) -> None:
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BenchError(f"`{page}` has no `{BEGIN}` and `{END}` to put the table between")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def main() -> None:
    """Measure and print."""
    options = _parser().parse_args()
    load = os.getloadavg()[0]
    try:
        figures = asyncio.run(_run(options))
        machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        day = datetime.datetime.now(datetime.UTC).date()
        runs = f"{options.seconds:g} s a run, {_times(options.rounds)}"
        text = f"{day}, {machine}; load of the machine when it began {load:.1f}, {runs}.\n\n{figures}"
        print(text)
        if options.page is not None and not options.only and not options.no_faults:
            _put(text, page=options.page)
    except (BenchError, ClusterProblem) as error:
        sys.exit(f"bench.gateway: {error}")


if __name__ == "__main__":
    main()
