"""etcd and kube-apiserver alone, for tests of what the API server decides. Needs neither root nor namespaces.

Both listen on loopback and end with the process that started them, however it
ends. Nothing schedules, runs or deletes pods here; there is no controller.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from e2e.cluster import components
from e2e.cluster.api import ApiClient, write_kubeconfig
from e2e.cluster.build import program
from e2e.cluster.lifetime import Keeper, Owner, bound_to_parent
from e2e.cluster.paths import REPOSITORY
from e2e.cluster.pki import Authority
from e2e.cluster.ports import free_ports
from e2e.cluster.problems import ClusterProblem

READY_DEADLINE_S = 60.0
POLL_S = 0.05
# Not loopback, which the API server refuses to advertise, and never dialled: nothing writes the endpoints of `kubernetes`.
ADVERTISED = "192.0.2.1"


class ApiServer:
    """`with ApiServer() as server:` starts the two in about three seconds and ends them.

    `kubeconfig` is an admin's; `url`, `token` and `certificate_authority` (a PEM file) say the same to a plain HTTP client.
    `identity_kubeconfig(user)` makes one for any other user, to try RBAC with. `more`: further arguments of kube-apiserver.
    `etcd`: the URL of its store.
    """

    def __init__(self, *, more: Sequence[str] = ()) -> None:
        self.token = secrets.token_urlsafe(24)
        self._more = more

    def __enter__(self) -> Self:
        kube, etcd = program("kube"), program("etcd")
        self._folder = Path(tempfile.mkdtemp(prefix="backstop-apiserver-"))
        self._authority = Authority.create(self._folder / "pki")
        self.certificate_authority = self._authority.bundle
        (self._folder / "tokens.csv").write_text(f"{self.token},admin,admin,system:masters\n")
        client, peer, port = free_ports(3)
        self.url = f"https://127.0.0.1:{port}"
        self.etcd = f"http://127.0.0.1:{client}"
        self.kubeconfig = self.identity_kubeconfig("admin", group="system:masters")
        commands = [
            components.etcd(etcd, data=self._folder / "etcd", client_port=client, peer_port=peer),
            [
                *components.api_server(
                    kube,
                    authority=self._authority,
                    serving=components.serving_identity(self._authority),
                    etcd_port=client,
                    port=port,
                ),
                "--bind-address=127.0.0.1",
                f"--advertise-address={ADVERTISED}",
                "--endpoint-reconciler-type=none",
                f"--token-auth-file={self._folder / 'tokens.csv'}",
                "--disable-admission-plugins=ServiceAccount",  # no controller makes the accounts that it asks for
                *self._more,
            ],
        ]
        arguments = [str(self._folder), *(part for command in commands for part in ("--command", "\n".join(command)))]
        self._owner = Owner("e2e.cluster.apiserver", *arguments, log=self._folder / "log", repository=REPOSITORY)
        try:
            self._wait_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        self._owner.end()
        shutil.rmtree(self._folder, ignore_errors=True)  # still there when the keeper was killed or a child ended by itself

    def identity_kubeconfig(self, user: str, *, group: str = "") -> Path:
        """A kubeconfig for `user`, such as `system:serviceaccount:NAMESPACE:NAME`, as a member of `group`."""
        file = f"user-{secrets.token_hex(4)}"
        identity = self._authority.issue(file, user=user, group=group)
        path = self._folder / f"{file}.kubeconfig"
        return write_kubeconfig(path, server=self.url, authority=self._authority.bundle, identity=identity)

    def _wait_ready(self) -> None:
        api = ApiClient(self.kubeconfig)
        deadline = time.monotonic() + READY_DEADLINE_S
        while not api.ready():
            if not self._owner.alive() or time.monotonic() > deadline:
                log = self._folder / "log"
                words = log.read_text(errors="replace")[-3000:] if log.exists() else "none (its folder is gone)"
                raise ClusterProblem(f"kube-apiserver did not get ready; the last words of its log:\n{words}")
            time.sleep(POLL_S)


def keep() -> None:
    """The keeper's side: runs the commands until the owner ends, then removes the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--command", action="append", required=True)
    parser.add_argument("--lifetime-fd", type=int, required=True)
    arguments = parser.parse_args()
    keeper = Keeper(arguments.lifetime_fd)
    children: list[subprocess.Popen[bytes]] = []
    reason = ""
    try:
        for command in arguments.command:  # one by one: what was started must be ended when the next cannot be
            children.append(  # noqa: PERF401 - a comprehension would lose the first child when the second fails
                subprocess.Popen(bound_to_parent(command.split("\n")), stdin=subprocess.DEVNULL, cwd=arguments.folder)
            )
        reason = keeper.wait(children)
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()
        if not reason:  # the log tells an owner that waits what went wrong
            shutil.rmtree(arguments.folder)
    raise SystemExit(reason)


if __name__ == "__main__":
    keep()
