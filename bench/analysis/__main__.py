"""`python -m bench.analysis`: draws the streams, asks every judge about each, prints the table and writes the plot."""

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from .cells import RATES, Cell, cells
from .cost import measured
from .plot import drawn
from .streams import stream
from .table import Outcome, printed

Times = dict[str, list[float | None]]


def main() -> None:
    """One command, no arguments needed."""
    options = _options()
    chosen = [cell for cell in cells() if options.only in cell.what]
    jobs = [(cell, rate, options.runs if cell.onset is None and cell.targets else options.detections) for cell in chosen for rate in RATES]
    done = kept(options.results)
    outcomes: list[Outcome] = []
    began = time.monotonic()
    with ProcessPoolExecutor(max_workers=options.processes) as pool:
        pending = {
            (cell.what, rate): pool.submit(judged, cell.what, rate, runs)
            for cell, rate, runs in jobs
            if (cell.what, rate, runs) not in done
        }
        for cell, rate, runs in jobs:
            if (future := pending.get((cell.what, rate))) is None:
                times = done[cell.what, rate, runs]
            else:
                times = future.result()
                keep(options.results, what=cell.what, rate=rate, runs=runs, times=times)
            outcomes += [_outcome(cell, judge=name, rate=rate, times=tuple(found)) for name, found in times.items()]
            print(f"{time.monotonic() - began:6.0f} s  {cell.what}, {rate} requests/s", file=sys.stderr, flush=True)
    print(printed(outcomes, rates=RATES))
    print()
    print(measured())
    if options.plot is not None:
        options.plot.write_text(drawn(outcomes, rates=RATES))


def judged(what: str, rate: int, runs: int) -> Times:
    """One cell at one rate, all judges over the same streams; a process of its own."""
    cell = next(cell for cell in cells() if cell.what == what)
    times: Times = {name: [] for name in cell.judges}
    for run in range(runs):
        one = stream(cell.truth, rate=rate, seconds=cell.seconds, seed=f"{cell.what} {rate} {run}")
        for name, judge in cell.judges.items():
            times[name].append(judge(one))
    return times


def kept(path: Path | None) -> dict[tuple[str, int, int], Times]:
    """What an earlier run left, by cell, rate and number of streams."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["what"], row["rate"], row["runs"]): row["times"] for row in rows}


def keep(path: Path | None, *, what: str, rate: int, runs: int, times: Times) -> None:
    """One line more."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps({"what": what, "rate": rate, "runs": runs, "times": times}) + "\n")


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
    parser.add_argument("--detections", type=int, default=400, help="streams per cell of a regression, or without a promise (400)")
    parser.add_argument("--processes", type=int, default=None, help="processes to spread over (one per processor)")
    parser.add_argument("--only", default="", help="only cells whose name has this text in it")
    parser.add_argument("--results", type=Path, default=None, help="keeps what is judged, and goes on from there")
    parser.add_argument("--plot", type=Path, default=None, help="where to write the plot (SVG)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
