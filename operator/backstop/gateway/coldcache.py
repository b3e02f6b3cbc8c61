"""The cold level's store: one SQLite file of this process alone, on a volume that outlives it. An adapter over sqlite3, in one thread.

A folder may be shared by several gateways: each takes the first file that no other holds, and what others leave later is taken into it.
A file that is damaged, or of another shape, is said and made anew: what it held were copies.
"""

import asyncio
import logging
import random
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final, TypeVar

from .heldfile import file_of, hold_first, remove
from .leftanswers import LeftFile
from .lowerlevel import STORE_SECONDS, StoreError
from .storedentry import LONGEST_ENTRY

Result = TypeVar("Result")
_LOG: Final = logging.getLogger("backstop.gateway")
_PAGE_BYTES: Final = 4096
# Of the write-ahead log, beside the file itself; twice as much for a moment.
LOG_BYTES: Final = 4 << 20
# What may not be read any more is deleted a few at a time, and what makes room one, two, four, … at a time: no write takes long.
_EXPIRED_AT_ONCE: Final = 8
_STEM: Final = "answers"
LOOK_SECONDS: Final = 30.0
# Between two parts of a file that another has left: the volume has other work.
_PAUSE_SECONDS: Final = 0.05
_TRIES: Final = 12
_SHAPE: Final = 1
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH)
_CREATE: Final = f"""
CREATE TABLE answers (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL, gone_at REAL NOT NULL);
CREATE INDEX by_end ON answers (gone_at);
PRAGMA user_version = {_SHAPE};
"""


class _DamagedError(Exception):
    """The file is no store of ours."""


class SQLiteStore:
    """Entries in a file of `folder`, `capacity` bytes of it at most. `now`: the wall clock, in seconds; `look`: how often files that
    others have left are looked for at least.
    """

    def __init__(self, folder: Path, *, capacity: int, now: Callable[[], float], look: float = LOOK_SECONDS) -> None:
        self._folder = folder
        self._pages = capacity // _PAGE_BYTES
        self._now = now
        self._look = look
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cold-cache")
        self._lock: IO[bytes] | None = None
        self._database: sqlite3.Connection | None = None
        self._left: LeftFile | None = None
        self.held = 0  # bytes of the file

    async def open(self) -> None:
        """As of `Store`."""
        await self._ask(lambda _: None)

    async def read(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """As of `Store`."""
        now, marks = self._now(), ",".join("?" * len(keys))
        question = f"SELECT key, substr(value, 1, {LONGEST_ENTRY + 1}) FROM answers WHERE key IN ({marks}) AND gone_at > ?"

        def look(database: sqlite3.Connection) -> dict[bytes, bytes]:
            return dict(database.execute(question, (*keys, now)).fetchall())

        found = await self._ask(look)
        return [value if isinstance(value := found.get(key), bytes) else None for key in keys]

    async def write(self, key: bytes, *, value: bytes, seconds: float) -> None:
        """As of `Store`."""
        now = self._now()
        await self._ask(lambda database: self._write(database, key=key, value=value, now=now, gone_at=now + seconds))

    async def take_over(self) -> None:
        """Take in what gateways that are gone have left, as far as there is room, until cancelled."""
        while True:
            try:
                taken = 0
                while (rows := await self._ask(self._take_some)) is not None:
                    taken += rows
                    await asyncio.sleep(_PAUSE_SECONDS)
                if taken:
                    _LOG.info("took over %d answers of gateways that are gone", taken)
            except StoreError:
                pass  # it is looked again; that its file fails is told by those who read and write it
            await asyncio.sleep(random.uniform(0.5, 1.0) * self._look)

    async def close(self) -> None:
        """As of `Store`. A disk that hangs is not waited for."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._let_go)
        except TimeoutError:
            _LOG.warning("the file of the cold level cannot be closed in time")
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, job: Callable[[sqlite3.Connection], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, job)

    # What follows runs in the thread.

    def _run(self, job: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do it, with a file that is made anew once if it is damaged. Raises StoreError."""
        try:
            try:
                return job(self._opened())
            except (_DamagedError, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.DatabaseError) and _code(error) not in _DAMAGED:
                    raise
                _LOG.warning("the file of the cold level is damaged, or of another version; it is made anew")
                self._remove()
                return job(self._opened())
        except _DamagedError:
            raise StoreError("its file cannot be made anew") from None
        except sqlite3.Error as error:
            raise StoreError(
                "its volume is full" if _code(error) == sqlite3.SQLITE_FULL else "its file cannot be read or written"
            ) from None
        except OSError:
            raise StoreError("its folder cannot be written") from None

    def _opened(self) -> sqlite3.Connection:
        if self._database is not None:
            return self._database
        if self._lock is None:
            self._lock = hold_first(self._folder, stem=_STEM)
        database = sqlite3.connect(self._file(), timeout=STORE_SECONDS / 2, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        self._database = database
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        # Nobody else opens it, so nothing of it needs to be shared memory, which volumes over a network do not have.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # what is lost with the power are the last answers, not the file
        database.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        database.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // _PAGE_BYTES}")
        (shape,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        if tables == 0:
            database.executescript(_CREATE)
        elif shape != _SHAPE or pages > self._pages:  # of a policy that gave it more room: it would not shrink
            raise _DamagedError
        database.execute(f"PRAGMA max_page_count = {self._pages}")
        self._measure(database)

    def _write(self, database: sqlite3.Connection, *, key: bytes, value: bytes, now: float, gone_at: float) -> None:
        database.execute(
            "DELETE FROM answers WHERE number IN (SELECT number FROM answers WHERE gone_at <= ? LIMIT ?)", (now, _EXPIRED_AT_ONCE)
        )
        for done in range(_TRIES):
            try:
                database.execute("INSERT OR REPLACE INTO answers (key, value, gone_at) VALUES (?, ?, ?)", (key, value, gone_at))
                break
            except sqlite3.DatabaseError as error:
                if _code(error) != sqlite3.SQLITE_FULL or done == _TRIES - 1:
                    raise
            oldest = "DELETE FROM answers WHERE number IN (SELECT number FROM answers ORDER BY number LIMIT ?)"
            database.execute(oldest, (2**done,))
        self._measure(database)

    def _take_some(self, database: sqlite3.Connection) -> int | None:
        """Take in a part of what is left, older than all that is here, and say how many answers; None: nothing is left."""
        if self._left is None:
            (pages,), (free,) = (database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count"))
            room = (self._pages - pages + free) * _PAGE_BYTES
            own = self._file()
            self._left = LeftFile.first(self._folder, stem=_STEM, own=own, room=room, shape=_SHAPE, now=self._now())
            if self._left is None:
                return None
        rows = self._left.some()
        (oldest,) = database.execute("SELECT min(number) FROM answers").fetchone()
        before = 0 if oldest is None else min(oldest, 1) - 1
        database.execute("BEGIN IMMEDIATE")
        try:
            database.executemany(
                "INSERT OR IGNORE INTO answers (number, key, value, gone_at) VALUES (?, ?, ?, ?)",
                ((before - place, *row) for place, row in enumerate(rows)),
            )
            database.execute("COMMIT")
        except sqlite3.Error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            self._leave(emptied=False)
            raise
        if not rows:
            self._leave(emptied=True)
        self._measure(database)
        return len(rows)

    def _leave(self, *, emptied: bool) -> None:
        if self._left is not None:
            self._left.close(emptied=emptied)
            self._left = None

    def _measure(self, database: sqlite3.Connection) -> None:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        self.held = pages * _PAGE_BYTES

    def _file(self) -> Path:
        assert self._lock is not None
        return file_of(self._lock)

    def _remove(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        remove(self._file())

    def _let_go(self) -> None:
        self._leave(emptied=False)
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _code(error: sqlite3.Error) -> int:
    """What SQLite calls it, without the details; those of the module itself have none."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF
