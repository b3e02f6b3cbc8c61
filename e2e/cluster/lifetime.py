"""Processes that end when their owner does, however it ends.

An owner starts a keeper: a session of its own that starts the children, waits,
and clears away. The two share a pipe; the kernel closes the owner's end when
the owner dies, by SIGKILL too. An owner that wants its children to outlive it
says so by writing `DETACH`. Works without Linux's parent-death signal, which
comes at the end of the starting thread rather than of its process.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

DETACH = b"d"
CHILD_POLL_MS = 200
# Minutes on a machine that is much too busy, under a second on one that is not.
END_DEADLINE_S = 180.0


class Owner:
    """The owner's side: starts `python -m module arguments… --lifetime-fd N` and holds the pipe."""

    def __init__(self, module: str, *arguments: str, log: Path, pass_fds: Sequence[int] = (), repository: Path) -> None:
        read_end, self._pipe = os.pipe()
        try:
            with log.open("ab") as output:
                self.keeper = subprocess.Popen(
                    [sys.executable, "-m", module, *arguments, "--lifetime-fd", str(read_end)],
                    cwd=repository,
                    env=os.environ | {"PYTHONPATH": str(repository)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(read_end, *pass_fds),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(read_end)

    def alive(self) -> bool:
        return self.keeper.poll() is None

    def detach(self) -> None:
        """Lets the keeper live on after this process."""
        os.write(self._pipe, DETACH)

    def end(self) -> None:
        """Ends the children and waits until the keeper has cleared away."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        self.keeper.terminate()
        self.keeper.wait(timeout=END_DEADLINE_S)


class Keeper:
    """The keeper's side: `wait` returns why it is over."""

    def __init__(self, lifetime_fd: int, *, pid_fd: int | None = None) -> None:
        self._pipe = lifetime_fd
        self._told = False
        self._poll = select.poll()
        self._poll.register(lifetime_fd, select.POLLIN | select.POLLHUP)
        if pid_fd is not None:
            self._poll.register(pid_fd, select.POLLIN)
        self._pid_fd = pid_fd
        signal.signal(signal.SIGTERM, self._tell)

    def _tell(self, _number: int, _frame: FrameType | None) -> None:
        self._told = True

    def wait(self, children: Sequence[subprocess.Popen[bytes]]) -> str:
        """Blocks until a child ends, the owner ends, or a SIGTERM comes; returns the reason, empty when it was asked for."""
        while True:
            for child in children:
                if child.poll() is not None:
                    return f"{child.args!r} ended with {child.returncode}"
            if self._told:
                return ""
            for ready, _ in self._poll.poll(CHILD_POLL_MS):
                if ready == self._pid_fd:
                    return ""
                if os.read(self._pipe, 1) != DETACH:
                    return ""
                self._poll.unregister(self._pipe)


def bound_to_parent(command: list[str]) -> list[str]:
    """`command`, killed by the kernel when the starting thread ends (where util-linux is there): the belt to the pipe's braces."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command
