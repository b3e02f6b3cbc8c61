"""Kept answers in a file whose gateway is gone, on their way into another gateway's. An adapter over sqlite3, for one thread.

A pod that is replaced holds its file until it has ended, and by then its successor has begun one of its own.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Self

from .heldfile import SUFFIX, file_of, hold, remove
from .storedentry import LONGEST_ENTRY

_LOG: Final = logging.getLogger("backstop.gateway")
# Read at once, in bytes of answers: a lookup that waits behind it waits for some milliseconds. One answer may be longer.
_BYTES_AT_ONCE: Final = 256 << 10
_ENTRIES_AT_ONCE: Final = 64

Row = tuple[bytes, bytes, float]  # key, value, and the wall clock's seconds at which it is gone


class LeftFile:
    """One such file, held until `close`."""

    def __init__(self, lock: IO[bytes], *, database: sqlite3.Connection, now: float) -> None:
        self._lock = lock
        self._database = database
        wanted = "SELECT key, value, gone_at FROM answers WHERE gone_at > ? AND length(value) <= ? ORDER BY number DESC"
        self._rows: Iterator[Row] = database.execute(wanted, (now, LONGEST_ENTRY))

    @classmethod
    def first(cls, folder: Path, *, stem: str, own: Path, room: int, shape: int, now: float) -> Self | None:
        """The first file that no gateway holds and `room` bytes can take; one that cannot be read is removed: it held copies.

        Raises OSError.
        """
        for file in sorted(folder.glob(f"{stem}-*{SUFFIX}")):
            lock = None if file == own else hold(file.with_suffix(".lock"))
            if lock is None:
                continue
            try:
                if file.exists() and file.stat().st_size <= room:  # else another has just emptied it, or a new gateway may have it
                    return cls._open(lock, shape=shape, now=now)
            except sqlite3.Error:
                _LOG.warning("%s, which a gateway has left, is damaged, or of another version; it is removed", file)
                remove(file)
            lock.close()
        return None

    @classmethod
    def _open(cls, lock: IO[bytes], *, shape: int, now: float) -> Self:
        database = sqlite3.connect(file_of(lock), isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            (found,) = database.execute("PRAGMA user_version").fetchone()
            if found != shape:
                raise sqlite3.DatabaseError
            return cls(lock, database=database, now=now)
        except BaseException:
            database.close()
            raise

    def some(self) -> list[Row]:
        """The next rows, from the newest answer on; none are left when it is empty. What cannot be read ends it, and is said."""
        rows: list[Row] = []
        read = 0
        try:
            while read < _BYTES_AT_ONCE and len(rows) < _ENTRIES_AT_ONCE and (row := next(self._rows, None)) is not None:
                rows.append(row)
                read += len(row[1])
        except sqlite3.Error:
            _LOG.warning("%s, which a gateway has left, is damaged; what could be read of it is kept", file_of(self._lock))
            self._rows = iter(())
        return rows

    def close(self, *, emptied: bool) -> None:
        """Let it go. `emptied`: all of it is elsewhere, so that it may be removed."""
        with self._lock:
            with contextlib.suppress(sqlite3.Error):  # of a damaged file
                self._database.close()
            if emptied:
                remove(file_of(self._lock))
