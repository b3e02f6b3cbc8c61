"""Where tickets wait: one SQLite file of this process, on a volume that outlives it. An adapter over sqlite3, in one thread.

A folder may be shared by the gateways of a policy: each has a file, and takes over what is in those that nobody holds any more. What is
written is on the disk when it is said to be. A file that is damaged is put aside, not deleted: it holds promises.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final, TypeVar

from .heldfile import SUFFIX, file_of, hold, hold_first, remove
from .ticket import LONGEST_RETRY_SECONDS, Ticket

Result = TypeVar("Result")
_LOG: Final = logging.getLogger("backstop.gateway")
CLOSE_SECONDS: Final = 1.0
_CREATE: Final = """
CREATE TABLE IF NOT EXISTS tickets (
  number INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE, body BLOB NOT NULL, tries INTEGER NOT NULL, due REAL NOT NULL
)
"""
_ADD: Final = "INSERT OR IGNORE INTO tickets (identity, body, tries, due) VALUES (?, ?, ?, ?)"
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class TicketStoreError(Exception):
    """The file cannot be read or written; the text says how, in our words."""


class TicketStore:
    """Tickets in a file of `folder`. `stem`: how the files of this policy's gateways begin; `now`: the wall clock, in seconds."""

    def __init__(self, folder: Path, *, stem: str, now: Callable[[], float]) -> None:
        self._folder = folder
        self._stem = stem
        self._now = now
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tickets")
        self._lock: IO[bytes] | None = None
        self._database: sqlite3.Connection | None = None
        self.waiting = 0  # as of the last that was done

    async def add(self, ticket: Ticket, *, most: int) -> bool:
        """Keep a ticket; False where `most` wait already. What is cancelled leaves nothing behind. Raises TicketStoreError."""
        try:
            return await self._ask(lambda database: self._add(database, ticket=ticket, most=most))
        except asyncio.CancelledError:
            self._thread.submit(self._forget, ticket.identity)
            raise

    async def due(self) -> Ticket | None:
        """The ticket to send now, if there is one. Raises TicketStoreError."""
        now = self._now()
        # One that is due later than any could be was written by a clock that was ahead.
        wanted = "SELECT identity, body, tries FROM tickets WHERE due <= ? OR due > ? ORDER BY due, number LIMIT 1"
        row = await self._ask(lambda database: database.execute(wanted, (now, now + 2 * LONGEST_RETRY_SECONDS)).fetchone())
        return None if row is None else Ticket(row[0], row[1], row[2])

    async def put_off(self, ticket: Ticket, *, seconds: float) -> None:
        """The webhook has not taken it: try again then. Raises TicketStoreError."""
        due = self._now() + seconds
        change = "UPDATE tickets SET tries = tries + 1, due = ? WHERE identity = ?"
        await self._ask(lambda database: database.execute(change, (due, ticket.identity)))

    async def remove(self, ticket: Ticket) -> None:
        """The webhook has it. Raises TicketStoreError."""
        await self._ask(lambda database: self._remove(database, identity=ticket.identity))

    async def take_over(self) -> int:
        """Take what gateways that are gone have left; how many tickets that were. Raises TicketStoreError."""
        return await self._ask(self._take_over)

    async def close(self) -> None:
        """Let the file go. A disk that hangs is not waited for."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._let_go)
        except TimeoutError:
            _LOG.warning("the file of tickets cannot be closed in time")
        self._thread.shutdown(wait=False)

    async def _ask(self, job: Callable[[sqlite3.Connection], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, job)

    # What follows runs in the thread.

    def _run(self, job: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            try:
                return job(self._opened())
            except sqlite3.DatabaseError as error:
                if _code(error) not in _DAMAGED:
                    raise
                self._put_aside()
                return job(self._opened())
        except sqlite3.Error as error:
            raise TicketStoreError("its volume is full" if _code(error) == sqlite3.SQLITE_FULL else "its file cannot be used") from None
        except OSError:
            raise TicketStoreError("its folder cannot be written") from None

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            if self._lock is None:
                self._lock = hold_first(self._folder, stem=self._stem)
            self._database = _open(file_of(self._lock))
            self._count(self._database)
        return self._database

    def _add(self, database: sqlite3.Connection, *, ticket: Ticket, most: int) -> bool:
        self._count(database)
        if self.waiting >= most:
            return False
        database.execute(_ADD, (ticket.identity, ticket.body, ticket.tries, self._now()))
        self._count(database)
        return True

    def _remove(self, database: sqlite3.Connection, *, identity: str) -> None:
        database.execute("DELETE FROM tickets WHERE identity = ?", (identity,))
        self._count(database)

    def _forget(self, identity: str) -> None:
        """Of a ticket whose caller was told of none. Where that fails too, a person gets one ticket too many."""
        with contextlib.suppress(TicketStoreError):
            self._run(lambda database: self._remove(database, identity=identity))

    def _take_over(self, database: sqlite3.Connection) -> int:
        before = self.waiting
        for file in sorted(self._folder.glob(f"{self._stem}-*{SUFFIX}")):
            if self._lock is None or file == file_of(self._lock):
                continue
            lock = hold(file.with_suffix(".lock"))
            if lock is None:
                continue
            with lock:
                self._empty(file, into=database)
        self._count(database)
        return self.waiting - before

    def _empty(self, file: Path, *, into: sqlite3.Connection) -> None:
        """Twice is as good as once: a ticket has one id in every file."""
        try:
            with contextlib.closing(_open(file)) as left:
                rows = left.execute("SELECT identity, body, tries, due FROM tickets ORDER BY number").fetchall()
                into.execute("BEGIN IMMEDIATE")
                into.executemany(_ADD, rows)
                into.execute("COMMIT")
                left.execute("DELETE FROM tickets")
        except sqlite3.DatabaseError as error:
            if into.in_transaction:
                into.execute("ROLLBACK")
            _LOG.error("%s, which a gateway has left, cannot be read (%s); it stays where it is", file, type(error).__name__)
            return
        remove(file)

    def _count(self, database: sqlite3.Connection) -> None:
        (self.waiting,) = database.execute("SELECT count(*) FROM tickets").fetchone()

    def _put_aside(self) -> None:
        assert self._lock is not None
        if self._database is not None:
            self._database.close()
            self._database = None
        file = file_of(self._lock)
        aside = file.with_name(f"{file.name}.damaged-{int(self._now())}")
        _LOG.error("the file of tickets is damaged; it is put aside as %s, and a new one is made", aside)
        file.replace(aside)
        remove(file)

    def _let_go(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _open(file: Path) -> sqlite3.Connection:
    database = sqlite3.connect(file, timeout=CLOSE_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # Nobody else opens it, so nothing of it needs to be shared memory, which volumes over a network do not have.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(_CREATE)
    except BaseException:
        database.close()
        raise
    return database


def _code(error: sqlite3.Error) -> int:
    """What SQLite calls it, without the details; those of the module itself have none."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF
