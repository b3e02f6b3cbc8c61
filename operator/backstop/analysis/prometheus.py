"""Prometheus over HTTP, through `prometheus-api-client` on a session of our own: one attempt, one deadline, a bounded answer.

A query that takes long keeps a thread until its deadline. Selectors that policies' authors declare have threads of their own, so that they
keep none from the gateways' metrics. The deadline is of the asking; no longer than that, a query waits for a thread before.

The library hides an answer's warnings and result type and would retry; the session reads and checks the whole answer before the
library sees it. Messages name the source, never its URL or headers: these may hold secrets.
"""

import asyncio
import contextlib
import functools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
import urllib3
from prometheus_api_client import PrometheusConnect
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context

from ..api.authorities import taken_as_declared
from .answers import MatrixSeries, read_answer
from .credentials import Credentials, CredentialsError, read_headers, tls_options
from .queries import MetricsSourceConfig
from .samples import Partial, ProviderError

DEADLINE_SECONDS = 5.0
LARGEST_ANSWER_BYTES = 64 * 1024 * 1024
THREADS = 4
OWN_THREADS = 16
_CHUNK_BYTES = 64 * 1024
NO_CREDENTIALS = Credentials()
_ONCE = urllib3.Retry(0, read=False)


class _UnansweredError(Exception):
    """Carries the result that takes the place of an answer through the library."""

    def __init__(self, result: Partial | ProviderError) -> None:
        super().__init__(result.sentence)
        self.result = result


class _CheckedAnswer(requests.Response):
    """An answer that has been read and checked; the library takes its series out of `json()`."""

    def __init__(self, series: list[MatrixSeries]) -> None:
        super().__init__()
        self.status_code = 200
        self._series = series

    def json(self, **kwargs: Any) -> dict[str, Any]:
        """The answer in the shape in which the library looks for it."""
        return {"data": {"result": self._series}}


class _CheckingSession(requests.Session):
    """One attempt per request: no redirect, nothing from the environment, a deadline over connect, headers and body together."""

    def __init__(self, *, source: str, url: str, credentials: Credentials, deadline_seconds: float, largest_bytes: int) -> None:
        super().__init__()
        self.trust_env = False  # proxies and netrc of the pod's environment are no part of a declared source
        # A plain source is near. Packing costs it more time than sending, and unpacking costs here an eighth of a tick.
        self.headers["Accept-Encoding"] = "gzip" if url.startswith("https:") else "identity"
        self._source = source
        self._credentials = credentials
        self._deadline_seconds = deadline_seconds
        self._largest_bytes = largest_bytes

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """As `requests`, but with the answer checked. Raises `_UnansweredError` or an exception of `requests`."""
        end = time.monotonic() + self._deadline_seconds
        kwargs |= {"stream": True, "allow_redirects": False, "timeout": self._deadline_seconds}
        try:
            kwargs |= tls_options(self._credentials)
            kwargs["headers"] = {**(kwargs.get("headers") or {}), **read_headers(self._credentials)}
        except CredentialsError as error:
            raise _UnansweredError(ProviderError(f"Metrics source `{self._source}` was not asked: {error}.")) from None
        with super().request(method, url, *args, **kwargs) as response:
            if response.status_code != 200:
                raise _UnansweredError(ProviderError(f"Metrics source `{self._source}` answered with HTTP status {response.status_code}."))
            body = self._body(response, end=end)
        answer = read_answer(body, source=self._source)
        if isinstance(answer, Partial | ProviderError):
            raise _UnansweredError(answer)
        return _CheckedAnswer(answer)

    def _body(self, response: requests.Response, *, end: float) -> bytes:
        body = bytearray()
        # One read at a time: a server that drips would keep a read of a whole chunk, and its thread, beyond every deadline.
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            body += chunk
            if len(body) > self._largest_bytes:
                raise _UnansweredError(
                    ProviderError(f"Metrics source `{self._source}` answered with more than {self._largest_bytes // 2**20} MiB.")
                )
            if time.monotonic() > end:
                raise requests.Timeout
        return bytes(body)


class _DeclaredConnection(HTTPSConnection):
    """To a server that a declared authority vouches for. Its context is its own, as the authority's file is read anew for it."""

    def connect(self) -> None:
        self.ssl_context = taken_as_declared(create_urllib3_context())
        super().connect()


class _DeclaredPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _DeclaredConnection


class _Lane:
    """Threads for queries of one kind. `free`: how many of them are."""

    def __init__(self, threads: int, *, name: str) -> None:
        self.pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self.free = asyncio.Semaphore(threads)

    def let_go(self, _: object, *, loop: asyncio.AbstractEventLoop) -> None:
        """One more is free; told by that thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            loop.call_soon_threadsafe(self.free.release)


class PrometheusSource:
    """A `MetricSource`. Its threads and connections are its own, so that a slow server holds up nobody else."""

    def __init__(
        self,
        config: MetricsSourceConfig,
        *,
        credentials: Credentials = NO_CREDENTIALS,
        deadline_seconds: float = DEADLINE_SECONDS,
        largest_bytes: int = LARGEST_ANSWER_BYTES,
    ) -> None:
        self._config = config
        self._deadline_seconds = deadline_seconds
        own = credentials.authority is not None or credentials.certificate is not None
        self._tls_advice = "; see that what `tls` names is PEM, and that the key belongs to the certificate" if own else ""
        self._lanes = {own: _Lane(threads, name=f"metrics-{config.name}") for own, threads in ((False, THREADS), (True, OWN_THREADS))}
        self._session = _CheckingSession(
            source=config.name, url=config.url, credentials=credentials, deadline_seconds=deadline_seconds, largest_bytes=largest_bytes
        )
        self._client = PrometheusConnect(url=config.url.rstrip("/"), session=self._session, retry=_ONCE)
        connections = HTTPAdapter(max_retries=_ONCE, pool_maxsize=THREADS + OWN_THREADS)  # the library's keeps fewer
        if credentials.authority is not None:
            connections.poolmanager.pool_classes_by_scheme = {"https": _DeclaredPool}
        self._session.mount(config.url.rstrip("/"), connections)

    @property
    def config(self) -> MetricsSourceConfig:
        """Its name, URL and scrape interval."""
        return self._config

    async def query(self, promql: str, *, own: bool = False) -> list[MatrixSeries] | Partial | ProviderError:
        """Asks once. Ends within two deadlines, also where the server sends a byte now and then. `own`: the selector is an author's."""
        lane = self._lanes[own]
        try:
            async with asyncio.timeout(self._deadline_seconds):
                await lane.free.acquire()
        except TimeoutError:
            waited = f"waited {self._deadline_seconds:g} s for others that it is slow to answer"
            return ProviderError(f"Metrics source `{self._config.name}` was not asked: the query {waited}.")
        asked = lane.pool.submit(self._ask, promql)
        # Not when it is given up here: as long as a read goes on, its thread is free for no other.
        asked.add_done_callback(functools.partial(lane.let_go, loop=asyncio.get_running_loop()))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked), timeout=self._deadline_seconds)
        except TimeoutError:
            return self._late()

    def close(self) -> None:
        """Lets go of the connections; a request that is under way ends at its deadline."""
        for lane in self._lanes.values():
            lane.pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _ask(self, promql: str) -> list[MatrixSeries] | Partial | ProviderError:
        try:
            series: list[MatrixSeries] = self._client.custom_query(promql)
        except _UnansweredError as unanswered:
            return unanswered.result
        except requests.Timeout:
            return self._late()
        except (urllib3.exceptions.ReadTimeoutError, TimeoutError):
            return self._late()
        except urllib3.exceptions.HTTPError:
            return ProviderError(f"Metrics source `{self._config.name}` broke off its answer.")
        except requests.exceptions.SSLError as error:
            why = "its certificate is not one to trust; see `tls.caRef`" if _is_distrust(error) else f"TLS failed{self._tls_advice}"
            return ProviderError(f"Metrics source `{self._config.name}` could not be reached: {why}.")
        except requests.ConnectionError as error:
            return ProviderError(f"Metrics source `{self._config.name}` could not be reached: {_root_cause(error)}.")
        except (requests.RequestException, ValueError, OSError):
            return ProviderError(f"Metrics source `{self._config.name}` could not be asked; check its `url`.")
        return series

    def _late(self) -> ProviderError:
        return ProviderError(f"Metrics source `{self._config.name}` did not answer within {self._deadline_seconds:g} s.")


def _is_distrust(error: BaseException) -> bool:
    """Whether it was the server's certificate. Why is not said: that would name the host."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def _root_cause(error: BaseException) -> str:
    """What the operating system said, without the URL that the libraries put around it."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        inner = next((a for a in found.args if isinstance(a, BaseException)), None)
        reason = getattr(found, "reason", None) or getattr(inner, "reason", None)
        found = found.__cause__ or found.__context__ or (reason if isinstance(reason, BaseException) else inner)
    return "the connection was closed"
