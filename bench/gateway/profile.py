"""Where a gateway's processor time goes: a flame graph and the largest shares, under the bench's own load.

    python -m bench.gateway.profile                       whole answers, streams, cache hits; into `out/profile`
    python -m bench.gateway.profile --checkout FOLDER     the gateway of another checkout, by the Python in its `.venv`

It is sampled from outside (py-spy, with what is compiled), so that the gateway itself is as shipped. Sampling takes time: shares
are those of the samples, processor time is that of a run without them.
"""

import argparse
import asyncio
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from e2e.cluster.paths import REPOSITORY
from e2e.cluster.problems import ClusterProblem

from . import parts
from .calls import BenchError, Caller
from .flames import drawn, origins, shares, stacks_of, table
from .measure import BUSY_CONNECTIONS
from .stacks import Model, Setting, available_cores, backstop, model

SAMPLES_PER_SECOND: Final = 250
LARGEST: Final = 15
SMALLEST_ORIGIN: Final = 0.01


class What(NamedTuple):
    """What is asked."""

    title: str
    cache: bool = False
    stream: bool = False


WHATS: Final = {
    "chat": What("whole answers"),
    "stream": What("streams of 50 tokens", stream=True),
    "hit": What("hits of the cache in memory", cache=True),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway.profile", description="Where a gateway's processor time goes.")
    parser.add_argument("--only", choices=list(WHATS), action="append", help="one of what is asked, more than once for several")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each run, of which there are two (default: 10)")
    parser.add_argument("--checkout", type=Path, default=REPOSITORY, metavar="FOLDER", help="whose gateway (default: this one's)")
    parser.add_argument("--to", type=Path, default=Path("out/profile"), metavar="FOLDER", help="for the pictures (default: out/profile)")
    return parser


async def _profile(what: What, *, model: Model, caller: Caller, core: int, checkout: Path, seconds: float) -> tuple[str, float]:
    """Sampled stacks, and microseconds of processor time a request."""
    setting, raw = Setting([model.good], cache=what.cache), caller.folder / "stacks"
    async with backstop(checkout).running(setting, core=core, folder=caller.folder) as running:
        await caller(running.way, connections=BUSY_CONNECTIONS, seconds=1.0, stream=what.stream)  # so that nothing is new to it
        before = running.usage().cpu
        calls = await caller(running.way, connections=BUSY_CONNECTIONS, seconds=seconds, stream=what.stream, warm=0.0)
        took = (running.usage().cpu - before) / calls.whole.n * 1e6
        spy = [str(Path(sysconfig.get_path("scripts")) / "py-spy"), "record", "--pid", str(running.pid), "--native", "--function"]
        spy += ["--format", "raw", "--output", str(raw), "--rate", str(SAMPLES_PER_SECOND), "--duration", str(max(1, round(seconds)))]
        under_way = asyncio.create_task(caller(running.way, connections=BUSY_CONNECTIONS, seconds=seconds + 3, stream=what.stream))
        try:
            said = await asyncio.to_thread(subprocess.run, spy, capture_output=True, text=True, check=False, timeout=seconds + 60)
        finally:
            await under_way
    if said.returncode != 0 or not raw.exists():
        raise BenchError(
            f"py-spy could not sample the gateway (it needs root, or `kernel.yama.ptrace_scope=0`); it says: {said.stderr[-500:]}"
        )
    return raw.read_text(), took


async def _run(options: argparse.Namespace) -> None:
    core, calling = available_cores()
    options.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="profile-gateway-") as scratch:
        caller = Caller(parts.httpload(), core=calling, folder=Path(scratch))
        async with model(core=calling, folder=Path(scratch)) as mock:
            for name in options.only or WHATS:
                what, checkout = WHATS[name], options.checkout.resolve()
                raw, took = await _profile(what, model=mock, caller=caller, core=core, checkout=checkout, seconds=options.seconds)
                stacks, picture = stacks_of(raw), options.to / f"{name}.svg"
                title = f"{what.title}, {BUSY_CONNECTIONS} connections: {took:.0f} µs of processor time each, {stacks.total()} samples"
                picture.write_text(drawn(stacks, title=title))
                print(f"\n{title} ({picture})\n\n{table(shares(stacks)[:LARGEST], microseconds=took)}\n")
                print(", ".join(f"{name} {share:.0%}" for name, share in origins(stacks) if share >= SMALLEST_ORIGIN))


def main() -> None:
    """Profile, print and draw."""
    try:
        asyncio.run(_run(_parser().parse_args()))
    except (BenchError, ClusterProblem) as error:
        sys.exit(f"bench.gateway.profile: {error}")


if __name__ == "__main__":
    main()
