"""`python -m tests.soak --minutes 60`: a gateway under mixed traffic; whatever it asks gets into other trouble every few seconds.

Prints what was asked, what came of it, what the gateway counted beside what others did, and what the process held. Ends with exit code 1
where a request had no answer or another's, a counter does not add up or is compared with nothing, something has not recovered, or memory,
files or tasks grow (W56).
"""

import argparse
import asyncio
import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from .story import soak


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: %(default)g)")
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # of the models, whose trouble is wanted
    with TemporaryDirectory(prefix="backstop-soak-") as folder:
        report = asyncio.run(soak(Path(folder), seconds=options.minutes * 60, rate=options.rate, seed=options.seed))
    print("\n".join(report.lines), flush=True)
    for problem in report.problems:
        print(problem, file=sys.stderr)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
