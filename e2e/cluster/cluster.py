"""What tests, the demo and the command line may do with a running cluster, whichever provider made it.

Everything here holds for each provider unless its docstring says otherwise.
"""

from __future__ import annotations

import abc
import functools
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from e2e.cluster.api import ApiClient
from e2e.cluster.build import program
from e2e.cluster.problems import ClusterProblem

RUN_TIMEOUT_S = 120.0


class Cluster(abc.ABC):
    """A running cluster; as a context manager it takes the cluster down at the end."""

    name: str

    @property
    @abc.abstractmethod
    def kubeconfig(self) -> Path:
        """An admin kubeconfig for processes on this machine and, for the native provider, for those inside the node."""

    @abc.abstractmethod
    def enter_argv(self, argv: list[str], *, net_only: bool = False) -> list[str]:
        """A command line that runs `argv` inside the node.

        With `net_only` it keeps this machine's files and processes and takes the node's network alone, so that ClusterIPs
        and pod addresses are reachable (native provider only).
        """

    @abc.abstractmethod
    def load_image(self, archive: Path) -> None:
        """Puts the images of a docker or OCI archive on the node."""

    @abc.abstractmethod
    def down(self) -> None:
        """Takes the cluster and everything of it away; calling it again is no error."""

    @functools.cached_property
    def api(self) -> ApiClient:
        return ApiClient(self.kubeconfig)

    def run(
        self,
        argv: list[str],
        *,
        net_only: bool = False,
        input: str | None = None,  # noqa: A002 - named as in subprocess.run, which gets it
        check: bool = True,
        timeout: float = RUN_TIMEOUT_S,
    ) -> subprocess.CompletedProcess[str]:
        """Runs `argv` inside the node and returns its output as text. With `check`, raises ClusterProblem when it fails."""
        return self._run(self.enter_argv(argv, net_only=net_only), name=argv[0], input_=input, check=check, timeout=timeout)

    def popen(
        self, argv: list[str], *, net_only: bool = False, stdout: int | IO[Any] | None = None, stderr: int | IO[Any] | None = None
    ) -> subprocess.Popen[str]:
        """Starts `argv` inside the node; ends with the cluster unless `net_only`."""
        command = self.enter_argv(argv, net_only=net_only)
        return subprocess.Popen(command, env=self.environment(), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True)

    def environment(self) -> dict[str, str]:
        """This process's environment with KUBECONFIG set to the cluster's."""
        return dict(os.environ) | {"KUBECONFIG": str(self.kubeconfig)}

    def kubectl(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002 - named as in subprocess.run, which gets it
        check: bool = True,
        timeout: float = RUN_TIMEOUT_S,
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl on this machine against the cluster. With `check`, raises ClusterProblem when it fails."""
        command = [*self.kubectl_argv(), *arguments]
        return self._run(command, name=f"kubectl {' '.join(arguments)}", input_=input, check=check, timeout=timeout)

    def _run(self, command: list[str], *, name: str, input_: str | None, check: bool, timeout: float) -> subprocess.CompletedProcess[str]:
        environment = self.environment()
        done = subprocess.run(command, env=environment, input=input_, capture_output=True, text=True, check=False, timeout=timeout)
        if check and done.returncode != 0:
            raise ClusterProblem(f"`{name}` failed; it says:\n{(done.stdout + done.stderr).strip()[-4000:]}")
        return done

    def kubectl_argv(self) -> list[str]:
        """The start of a kubectl command line; the kubeconfig comes from `environment()`."""
        return [str(program("kube")), "kubectl"]

    def service_ip(self, namespace: str, service: str) -> str:
        """The ClusterIP of a Service, for processes in the node's network, which do not ask the cluster's DNS."""
        found = self.api.get(f"/api/v1/namespaces/{namespace}/services/{service}")
        return str(found["spec"]["clusterIP"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        self.down()
