"""What is measured and what measures, in the cache: `httpload` built by Go, LiteLLM from PyPI, Portkey's gateway from npm.

Each has a folder of its own, under a name that says its version.
"""

import json
import shutil
import subprocess
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Final

from e2e.cluster.build import GoModule, build
from e2e.cluster.paths import cache, locked
from e2e.cluster.problems import ClusterProblem
from e2e.cluster.progress import step

LITELLM: Final = "1.106.2"
PORTKEY: Final = "1.15.2"
# Portkey's gateway asks for ranges; with later ones of these its streams break off.
_PORTKEY_PINS: Final = {"@hono/node-server": "1.13.5", "hono": "4.9.7", "async-retry": "1.3.3"}
_HTTPLOAD: Final = GoModule("httpload", "1", {"httpload": "."}, expected_s=5, folder=Path(__file__).parent)


def httpload() -> Path:
    """Model and callers."""
    return build(_HTTPLOAD) / "httpload"


def litellm() -> Path:
    """LiteLLM's command."""

    def install(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", f"litellm[proxy]=={LITELLM}"], cwd=folder)

    return _installed(f"litellm-{LITELLM}", install=install) / "bin" / "litellm"


def portkey() -> Path:
    """The script that Portkey's gateway is started by; `node` runs it."""

    def install(folder: Path) -> None:
        wanted = {"@portkey-ai/gateway": PORTKEY, **_PORTKEY_PINS}
        (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": wanted, "overrides": _PORTKEY_PINS}))
        _run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"], cwd=folder)

    return _installed(f"portkey-{PORTKEY}", install=install) / "node_modules/@portkey-ai/gateway/build/start-server.js"


def _installed(name: str, *, install: Callable[[Path], None]) -> Path:
    folder = cache() / "bench-gateway" / name
    with locked(cache() / "bench-gateway" / f".{name}.lock"):
        if not (folder / ".whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)  # in its place at once: what pip and npm install knows where it is
            with step(f"installing {name}", expected_s=60):
                install(folder)
            (folder / ".whole").touch()
    return folder


def _run(command: list[str], *, cwd: Path) -> None:
    if shutil.which(command[0]) is None:
        raise ClusterProblem(f"`{command[0]}` is needed; install it, or leave what needs it out with `--only`.")
    with tempfile.TemporaryFile() as said:
        if subprocess.run(command, cwd=cwd, stdout=said, stderr=said, check=False).returncode != 0:
            said.seek(0)
            raise ClusterProblem(f"`{' '.join(command[:4])}` in {cwd} failed; it says:\n{said.read().decode(errors='replace')[-2000:]}")
