"""`python -m bench.analysis`: draws the streams, asks every judge about each, prints the table and writes the plot."""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from .cells import RATES, Cell, cells
from .cost import measured
from .plot import drawn
from .streams import stream
from .table import Outcome, printed


def main() -> None:
    """One command, no arguments needed."""
    options = _options()
    chosen = [cell for cell in cells() if options.only in cell.what]
    jobs = [
        (index, rate, options.runs if cell.onset is None else options.detections) for index, cell in enumerate(chosen) for rate in RATES
    ]
    outcomes: list[Outcome] = []
    began = time.monotonic()
    with ProcessPoolExecutor(max_workers=options.processes) as pool:
        pending = [pool.submit(judged, options.only, index, rate, runs) for index, rate, runs in jobs]
        for (index, rate, _), future in zip(jobs, pending, strict=True):
            outcomes += future.result()
            print(f"{time.monotonic() - began:6.0f} s  {chosen[index].what}, {rate} requests/s", file=sys.stderr, flush=True)
    print(printed(outcomes, rates=RATES))
    print()
    print(measured())
    if options.plot is not None:
        options.plot.write_text(drawn(outcomes, rates=RATES))


def judged(only: str, index: int, rate: int, runs: int) -> list[Outcome]:
    """One cell at one rate, all judges over the same streams; a process of its own."""
    cell = [cell for cell in cells() if only in cell.what][index]
    times: dict[str, list[float | None]] = {name: [] for name in cell.judges}
    for run in range(runs):
        one = stream(cell.truth, rate=rate, seconds=cell.seconds, seed=f"{cell.what} {rate} {run}")
        for name, judge in cell.judges.items():
            times[name].append(judge(one))
    return [_outcome(cell, judge=name, rate=rate, times=tuple(found)) for name, found in times.items()]


def _outcome(cell: Cell, *, judge: str, rate: int, times: tuple[float | None, ...]) -> Outcome:
    return Outcome(
        what=cell.what,
        judge=judge,
        rate=rate,
        onset=cell.onset,
        target=(cell.targets or {}).get(rate),
        bound=(cell.bounds or {}).get(judge),
        seconds=cell.seconds,
        times=times,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.analysis", description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="streams per cell of false rollbacks (2000)")
    parser.add_argument("--detections", type=int, default=400, help="streams per cell of a regression (400)")
    parser.add_argument("--processes", type=int, default=None, help="processes to spread over (one per processor)")
    parser.add_argument("--only", default="", help="only cells whose name has this text in it")
    parser.add_argument("--plot", type=Path, default=None, help="where to write the plot (SVG)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
