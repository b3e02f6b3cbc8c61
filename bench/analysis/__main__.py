"""`python -m bench.analysis`: draws the streams, asks every judge about each, prints the table and writes the plot."""

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from .cells import RATES, Cell, cells
from .cost import measured
from .plot import drawn
from .streams import stream
from .table import Outcome, printed

Times = dict[str, list[float | None]]
Part = tuple[str, int, int]  # a cell, a rate, and the first of so many streams
STREAMS = 100


def main() -> None:
    """One command, no arguments needed."""
    options = _options()
    chosen = [cell for cell in cells() if options.only in cell.what]
    runs = {cell.what: options.runs if cell.onset is None else options.detections for cell in chosen}
    firsts = range(0, max(options.runs, options.detections), STREAMS)
    parts = [(cell.what, rate, first) for first in firsts for cell in chosen for rate in options.rates if first < runs[cell.what]]
    done = kept(options.results)
    began = time.monotonic()
    with ProcessPoolExecutor(max_workers=options.processes) as pool:
        pending = {pool.submit(judged, part, options.judge): part for part in parts if part not in done}
        for future in as_completed(pending):
            done[pending[future]] = future.result()
            keep(options.results, part=pending[future], times=future.result())
            print(f"{time.monotonic() - began:6.0f} s  {pending[future]}", file=sys.stderr, flush=True)
    outcomes = [
        _outcome(cell, judge=name, rate=rate, times=tuple(found[: runs[cell.what]]))
        for cell in chosen
        for rate in options.rates
        for name, found in _joined([done[part] for part in parts if part[:2] == (cell.what, rate)]).items()
    ]
    print(printed(outcomes, rates=options.rates))
    print()
    print(measured())
    if options.plot is not None:
        options.plot.write_text(drawn(outcomes, rates=options.rates))


def judged(part: Part, judges: str = "") -> Times:
    """A part of one cell at one rate, all judges with this text in their names over the same streams; in any process."""
    what, rate, first = part
    cell = next(cell for cell in cells() if cell.what == what)
    asked = {name: judge for name, judge in cell.judges.items() if judges in name}
    times: Times = {name: [] for name in asked}
    for run in range(first, first + STREAMS):
        one = stream(cell.truth, rate=rate, seconds=cell.seconds, seed=f"{cell.what} {rate} {run}")
        for name, judge in asked.items():
            times[name].append(judge(one))
    return times


def kept(path: Path | None) -> dict[Part, Times]:
    """What earlier runs left."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["what"], row["rate"], row["first"]): row["times"] for row in rows}


def keep(path: Path | None, *, part: Part, times: Times) -> None:
    """One line more."""
    if path is not None:
        what, rate, first = part
        with path.open("a") as file:
            file.write(json.dumps({"what": what, "rate": rate, "first": first, "times": times}) + "\n")


def _joined(parts: list[Times]) -> Times:
    return {name: [at for part in parts for at in part[name]] for name in parts[0]}


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
    parser.add_argument("--rates", type=int, nargs="+", choices=RATES, default=RATES, help="only these, in requests a second")
    parser.add_argument("--judge", default="", help="only judges whose name has this text in it")
    parser.add_argument("--results", type=Path, default=None, help="keeps what is judged, and goes on from there (JSON lines)")
    parser.add_argument("--plot", type=Path, default=None, help="where to write the plot (SVG)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
