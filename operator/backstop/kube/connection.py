"""Where the API server is and how to be let in: by a kubeconfig file that is named, or by the pod's service account; by nothing else."""

import ssl
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from ..api.authorities import taken_as_declared


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
        # A watch holds its connection, and there may be one for each of 256 namespaces: nobody shall wait for them.
        configuration.connection_pool_maxsize = 512
        # The library would read the environment and ~/.netrc again for every request, a fifth of what a request costs.
        configuration.client_session_kwargs = {"trust_env": False}
        self._configuration = configuration

    def api_client(self) -> ApiClient:
        """A client of its own connection pool; to be closed by the caller. Raises NotConnected."""
        try:
            client = ApiClient(self._configuration)
        except ssl.SSLError as error:
            raise NotConnected(
                f"the certificates for the API server cannot be used ({error}); correct them in the kubeconfig file"
            ) from None
        taken_as_declared(client.rest_client.ssl_context)
        return client

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


def _proxy_for(server: str) -> str | None:
    """The proxy that the environment names for this address."""
    address = urlsplit(server)
    host = address.hostname or ""
    # With and without the port, for an exception may name one; an IPv6 address stands in brackets only beside a port.
    if proxy_bypass(host) or proxy_bypass(address.netloc) or _is_in_excepted_network(host):
        return None
    return getproxies().get(address.scheme)


def _is_in_excepted_network(host: str) -> bool:
    """Whether `NO_PROXY` excepts this address by a network such as `10.0.0.0/8`, which the standard library does not read."""
    try:
        address = ip_address(host)
    except ValueError:
        return False  # a name
    for entry in getproxies_environment().get("no", "").split(","):
        try:
            if address in ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue  # a name
    return False


async def connect(kubeconfig: Path | None) -> Connection:
    """A connection by this kubeconfig file, or, without one, by the pod's service account. Raises NotConnected."""
    configuration = Configuration()
    if kubeconfig is None:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            raise NotConnected(f"not inside a cluster ({error}); name a kubeconfig file with `--kubeconfig`") from None
        # With no proxy, whatever the environment says: the API server is beside the pod.
        return Connection(configuration)
    _look_into(kubeconfig)
    try:
        await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration, persist_config=False)
    except (config.ConfigException, OSError) as error:
        raise NotConnected(f"`{kubeconfig}` cannot be used as a kubeconfig file: {' '.join(str(error).split())}") from None
    except (AttributeError, LookupError, TypeError, ValueError):  # the library takes the shape of what is inside for granted
        raise NotConnected(
            f"`{kubeconfig}` cannot be used as a kubeconfig file; compare its `clusters`, `contexts` and `users` with what"
            " `kubectl config view` prints"
        ) from None
    if configuration.proxy is None:
        configuration.proxy = _proxy_for(configuration.host)
    return Connection(configuration)


def _look_into(kubeconfig: Path) -> None:
    """Whether there is a file, and an object in it. Raises NotConnected."""
    try:
        content = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotConnected(f"`{kubeconfig}` does not exist; check the path") from None
    except OSError as error:
        raise NotConnected(f"`{kubeconfig}` cannot be read ({error.strerror}); check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise NotConnected(f"`{kubeconfig}` is not YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(content, dict):
        raise NotConnected(f"`{kubeconfig}` is not a kubeconfig file; give one as `kubectl config view --raw` prints it")
