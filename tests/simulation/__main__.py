"""`python -m tests.simulation --steps N`: the state machines of the engine until they have made N steps together; prints the count.

Every worker takes seeds of its own. A failure is told with the seed that finds it again (`--seed`), and ends the run with exit code 1.
"""

import argparse
import itertools
import multiprocessing
import os
import sys
import time

from .play import LENGTHS, play, prepare

TOLD_EVERY = 50_000  # steps


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000, help="how many at least, of all machines together")
    parser.add_argument("--seed", type=int, help="this seed alone")
    parser.add_argument("--first-seed", type=int, default=int(time.time()), help="from this seed upwards (default: another one each time)")
    names = [machine.__name__ for machine in LENGTHS]
    parser.add_argument("--machine", choices=names, nargs="+", default=names, help="these alone (default: all)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    began, total, problems = time.monotonic(), dict.fromkeys(options.machine, 0), []
    seeds = itertools.count(options.first_seed) if options.seed is None else (options.seed,)
    with multiprocessing.get_context("spawn").Pool(options.processes, initializer=prepare, maxtasksperchild=20) as pool:
        waiting = []
        for number in seeds:
            waiting.append(pool.apply_async(play, (number, options.machine)))
            if len(waiting) < options.processes and options.seed is None:
                continue
            made, problem = waiting.pop(0).get()
            before = sum(total.values())
            for name, steps in made.items():
                total[name] += steps
            if sum(total.values()) // TOLD_EVERY > before // TOLD_EVERY:
                print(f"{sum(total.values()):,} steps after {time.monotonic() - began:.0f} s", flush=True)
            if problem is not None:
                problems.append(problem)
            if problems or sum(total.values()) >= options.steps:
                break
    for problem in problems:
        print(problem, file=sys.stderr)
    each = ", ".join(f"{steps:,} of {name}" for name, steps in total.items())
    took, first = time.monotonic() - began, options.seed if options.seed is not None else options.first_seed
    print(f"{sum(total.values()):,} steps in {took:.0f} s from seed {first}: {each}; {len(problems)} failures", flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
