"""A few requests to an API server with a kubeconfig, on the standard library.

For waiting and for set-up only; nothing here watches, retries or caches.
"""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from e2e.cluster.pki import Identity

TIMEOUT_S = 5.0


def write_kubeconfig(path: Path, *, server: str, authority: Path, identity: Identity) -> Path:
    """Writes a self-contained kubeconfig (JSON is YAML) that its owner alone may read."""

    def encoded(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "backstop",
        "clusters": [{"name": "backstop", "cluster": {"server": server, "certificate-authority-data": encoded(authority)}}],
        "users": [
            {
                "name": "backstop",
                "user": {"client-certificate-data": encoded(identity.certificate), "client-key-data": encoded(identity.key)},
            }
        ],
        "contexts": [{"name": "backstop", "context": {"cluster": "backstop", "user": "backstop"}}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=1))
    return path


class ApiClient:
    """Speaks JSON to the API server of a kubeconfig written by `write_kubeconfig`.

    Errors are those of urllib: `HTTPError` for an answer of 4xx or 5xx, `URLError` or `TimeoutError` (both OSError) when there is none.
    """

    def __init__(self, kubeconfig: Path) -> None:
        document = json.loads(kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        self._server: str = cluster["server"]
        self._tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as pair:  # the ssl module loads client keys from files only
            pair.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            pair.flush()
            self._tls.load_cert_chain(pair.name)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._tls))

    def text(self, path: str) -> str:
        with self._opener.open(f"{self._server}{path}", timeout=TIMEOUT_S) as answer:
            return str(answer.read(), "utf-8")

    def get(self, path: str) -> dict[str, Any]:
        """The object or list at `path`, such as `/api/v1/nodes`."""
        found: dict[str, Any] = json.loads(self.text(path))
        return found

    def apply(self, path: str, *, manifest: dict[str, Any]) -> None:
        """Server-side apply of `manifest` at the object's own `path`."""
        request = urllib.request.Request(
            f"{self._server}{path}?fieldManager=backstop-e2e&force=true",
            data=json.dumps(manifest).encode(),
            headers={"Content-Type": "application/apply-patch+yaml"},
            method="PATCH",
        )
        with self._opener.open(request, timeout=TIMEOUT_S):
            pass

    def ready(self) -> bool:
        try:
            return self.text("/readyz") == "ok"
        except OSError:
            return False
