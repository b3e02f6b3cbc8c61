"""Where the API server is and how to be let in: by a kubeconfig file that is named, or by the pod's service account; by nothing else."""

from dataclasses import dataclass
from pathlib import Path

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration


class NotConnected(Exception):  # noqa: N818 - the name says what happened
    """The connection cannot be set up; the text says what to do."""


@dataclass(frozen=True)
class Credentials:
    """What another client of the same API server needs. `authorization` is the value of that header."""

    server: str
    ca_file: str | None
    verify: bool
    certificate_file: str | None
    key_file: str | None
    authorization: str | None


class Connection:
    """A configured connection; makes API clients, and hands out credentials that are fresh when asked for."""

    def __init__(self, configuration: Configuration) -> None:
        # The library's retries would hide an unavailable API server for minutes.
        configuration.retries = None
        self._configuration = configuration

    def api_client(self) -> ApiClient:
        """A client of its own connection pool; to be closed by the caller."""
        return ApiClient(self._configuration)

    async def credentials(self) -> Credentials:
        """The credentials as they are now: a service account's token is read again when it is a minute old."""
        settings = self._configuration
        return Credentials(
            server=settings.host,
            ca_file=settings.ssl_ca_cert,
            verify=settings.verify_ssl,
            certificate_file=settings.cert_file,
            key_file=settings.key_file,
            authorization=await settings.get_api_key_with_prefix("BearerToken"),
        )


async def connect(kubeconfig: Path | None) -> Connection:
    """A connection by this kubeconfig file, or, without one, by the pod's service account. Raises NotConnected."""
    configuration = Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration, persist_config=False)
    except (config.ConfigException, OSError, yaml.YAMLError) as error:
        if kubeconfig is None:
            raise NotConnected(f"not inside a cluster ({error}); name a kubeconfig file with `--kubeconfig`") from None
        raise NotConnected(f"`{kubeconfig}` cannot be used as a kubeconfig file: {' '.join(str(error).split())}") from None
    return Connection(configuration)
