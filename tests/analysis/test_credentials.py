"""What a metrics source asks of who asks it, against real servers: headers and certificates from files, which no message shows."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from backstop.analysis.credentials import Credentials, SecretFile
from backstop.analysis.prometheus import PrometheusSource
from backstop.analysis.queries import MetricsSourceConfig
from backstop.analysis.samples import ProviderError
from backstop.controller.config import MetricsSource
from tests.analysis.test_source import EMPTY, response
from tests.certificates import Authority, make_certificate

SECRET = "Bearer s3cr3t-of-the-metrics"
UNTRUSTED = ProviderError("Metrics source `default` could not be reached: its certificate is not one to trust; see `tls.caRef`.")


@asynccontextmanager
async def prometheus(*, tls: ssl.SSLContext | None = None, status: str = "200 OK") -> AsyncIterator[tuple[str, list[str]]]:
    """A server that answers nothing but keeps what it was asked with."""
    asked: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(response(EMPTY, status=status))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # a client that does not trust it leaves
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


def file(path: Path) -> SecretFile:
    return SecretFile(secret="metrics", key=path.name, path=path)


def source_at(url: str, credentials: Credentials) -> PrometheusSource:
    return PrometheusSource(MetricsSourceConfig(name="default", url=url, scrape_interval_seconds=5.0), credentials=credentials)


async def test_m08_a_header_is_sent_as_it_stands_in_its_secret_now(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{SECRET}\n")
    async with prometheus() as (url, asked):
        with closing(source_at(url, Credentials(headers=(("Authorization", file(token)),)))) as source:
            assert await source.query("up[5s]") == []
            token.write_text("Bearer another")
            assert await source.query("up[5s]") == []
    assert f"Authorization: {SECRET}\r\n" in asked[0]
    assert "Authorization: Bearer another\r\n" in asked[1]


async def test_m08_a_server_that_refuses_it_is_told_without_it(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    async with prometheus(status="401 Unauthorized") as (url, _):
        with closing(source_at(url, Credentials(headers=(("Authorization", file(token)),)))) as source:
            assert await source.query("up[5s]") == ProviderError("Metrics source `default` answered with HTTP status 401.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "header `Authorization` is missing: the operator cannot read key `token` of Secret `metrics` in its own namespace"),
        (b"", "header `Authorization` cannot be sent: key `token` of Secret `metrics` does not hold one line of printable ASCII"),
        (
            f"{SECRET}\r\nX-Other: 1".encode(),
            "header `Authorization` cannot be sent: key `token` of Secret `metrics` does not hold one line of printable ASCII",
        ),
        (
            SECRET.encode() + b"\xff",
            "header `Authorization` cannot be sent: key `token` of Secret `metrics` does not hold one line of printable ASCII",
        ),
    ],
)
async def test_m08_a_value_that_cannot_be_sent_is_said_by_its_key_and_nothing_is_asked(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    async with prometheus() as (url, asked):
        with closing(source_at(url, Credentials(headers=(("Authorization", file(token)),)))) as source:
            assert await source.query("up[5s]") == ProviderError(f"Metrics source `default` was not asked: {said}.")
    assert asked == []


def serving_tls(folder: Path, *, clients: str | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    make_certificate(folder, names=["server", "ca.crt"])
    context.load_cert_chain(folder / "server", folder / "server.key")
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(folder / clients)
    return context


async def test_a_server_is_trusted_by_the_authority_that_is_named_and_by_no_other(tmp_path: Path) -> None:
    async with prometheus(tls=serving_tls(tmp_path)) as (url, asked):
        make_certificate(tmp_path, names=["other"])
        for authority in (None, file(tmp_path / "other")):
            with closing(source_at(url, Credentials(authority=authority))) as source:
                assert await source.query("up[5s]") == UNTRUSTED
        assert asked == []
        with closing(source_at(url, Credentials(authority=file(tmp_path / "ca.crt")))) as source:
            assert await source.query("up[5s]") == []


async def test_an_authority_may_be_one_in_the_middle_and_lack_what_python_asks_of_authorities(tmp_path: Path) -> None:
    below = Authority("below", above=Authority("above"))
    (tmp_path / "ca.crt").write_text(below.pem)
    for address, result in (("127.0.0.1", []), ("127.0.0.2", UNTRUSTED)):  # a name is checked as ever
        async with prometheus(tls=below.server(tmp_path, address=address)) as (url, _):
            with closing(source_at(url, Credentials(authority=file(tmp_path / "ca.crt")))) as source:
                assert await source.query("up[5s]") == result


async def test_a_client_s_certificate_is_shown_to_a_server_that_wants_one(tmp_path: Path) -> None:
    make_certificate(tmp_path, names=["client"])
    async with prometheus(tls=serving_tls(tmp_path, clients="client")) as (url, asked):
        authority = file(tmp_path / "ca.crt")
        with closing(source_at(url, Credentials(authority=authority))) as source:
            assert isinstance(await source.query("up[5s]"), ProviderError)
        assert asked == []
        shown = Credentials(authority=authority, certificate=file(tmp_path / "client"), key=file(tmp_path / "client.key"))
        with closing(source_at(url, shown)) as source:
            assert await source.query("up[5s]") == []


@pytest.mark.parametrize("broken", ["ca.crt", "client", "client.key"])
async def test_m08_certificates_that_are_missing_or_are_none_are_said_without_what_is_in_them(broken: str, tmp_path: Path) -> None:
    make_certificate(tmp_path, names=["client"])
    async with prometheus(tls=serving_tls(tmp_path)) as (url, _):
        credentials = Credentials(
            authority=file(tmp_path / "ca.crt"), certificate=file(tmp_path / "client"), key=file(tmp_path / "client.key")
        )
        (tmp_path / broken).write_text(SECRET)
        with closing(source_at(url, credentials)) as source:
            result = await source.query("up[5s]")
        assert result == ProviderError(
            "Metrics source `default` could not be reached: TLS failed; see that what `tls` names is PEM, and that the key belongs to the "
            "certificate."
        )
        (tmp_path / broken).unlink()
        with closing(source_at(url, credentials)) as source:
            result = await source.query("up[5s]")
    assert isinstance(result, ProviderError)
    assert f"the operator cannot read key `{broken}` of Secret `metrics` in its own namespace" in result.sentence


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tls": {}, "url": "http://p:9090"}, "`tls` is for a `url` that begins with `https://`"),
        ({"tls": {"keyRef": {"name": "m", "key": "k"}}}, "`tls`: `certificateRef` and `keyRef` go together"),
        ({"headersFrom": [{"header": h, "secretRef": {"name": "m", "key": "k"}} for h in ("A", "a")]}, "each header can be set once"),
        ({"headersFrom": [{"header": "Host", "secretRef": {"name": "m", "key": "k"}}]}, "`Host` and headers of the connection"),
    ],
)
def test_credentials_that_cannot_be_meant_are_refused_in_one_sentence(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MetricsSource.model_validate({"name": "default", "url": "https://p:9090", "scrapeIntervalSeconds": 5} | changes)
