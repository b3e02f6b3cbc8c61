"""A file of one process, in a folder that several share: whose it is says a lock beside it, which ends with the process."""

import fcntl
from pathlib import Path
from typing import IO, Final

# More gateways than share a folder.
MOST_FILES: Final = 64
SUFFIX: Final = ".sqlite3"


def hold_first(folder: Path, *, stem: str) -> IO[bytes]:
    """The lock of the first file that no other process holds: `STEM-0`, `STEM-1`, … Raises OSError."""
    for number in range(MOST_FILES):
        lock = hold(folder / f"{stem}-{number}.lock")
        if lock is not None:
            return lock
    raise OSError("every file is held")


def hold(path: Path) -> IO[bytes] | None:
    """The lock of this name; None where another holds it. Raises OSError."""
    lock = path.open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    except BaseException:
        lock.close()
        raise
    return lock


def file_of(lock: IO[bytes]) -> Path:
    """The file that a lock is for."""
    return Path(lock.name).with_suffix(SUFFIX)


def remove(file: Path) -> None:
    """The file, and what SQLite has beside it. Raises OSError."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
