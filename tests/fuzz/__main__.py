"""`python -m tests.fuzz --minutes 10`: bytes that are made up, led by what code they reach, for all that reads what others write.

Ends with the bytes, and an exit code that is not 0, where something is raised that may not be, or takes longer than ten seconds. What
reached something new is kept in the folder, and the next run goes on from there. Needs atheris, which `make fuzz` installs.
"""

import argparse
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["backstop"]):
    from .readers import READERS

NAMES = sorted(READERS)
LONGEST = 700  # bytes


def hold(text: bytes) -> None:
    """The first byte says who reads the rest."""
    if text:
        READERS[NAMES[text[0] % len(NAMES)]].holds(text[1:])


def main() -> None:
    """The command. libFuzzer ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)g)")
    parser.add_argument("--folder", type=Path, default=Path("out/fuzz"), help="where bytes are kept (default: %(default)s)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, reader in READERS.items():
        for number, example in enumerate(reader.examples):
            (options.folder / f"{name}-{number}").write_bytes(bytes([NAMES.index(name)]) + example)
    how = [f"-max_total_time={options.minutes * 60:.0f}", f"-max_len={LONGEST}", "-timeout=10", f"-artifact_prefix={options.folder}/found-"]
    atheris.Setup([sys.argv[0], *how, str(options.folder)], hold)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
