"""The operator's configuration file: a border, so pydantic; read once at start."""

from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import yaml
from pydantic import Field

from ..analysis.credentials import Credentials, SecretFile
from ..api.gatewayvariable import GatewayVariable
from ..api.headersfrom import HeaderFrom
from ..api.model import ApiModel, Rule
from ..api.problems import InputError, parse_strictly
from ..api.promptversion import Name
from ..api.refs import ObjectName, SecretKeyRef
from ..api.workload import LIST_MAP_BY_NAME

# The chart's values.schema.json has the same one.
_URL: Final = r"^https?://([^/?#\s@:\[\]]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?(/[^?#\s@]*)?$"


def _is_url(url: str) -> bool:
    """What a pattern cannot tell: that a port is one, and that what stands in brackets is an address."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


class SourceTLS(ApiModel):
    """How a metrics source is told from another, and how it tells the operator from another."""

    caRef: SecretKeyRef | None = Field(None, description="PEM of who signed its certificate. Unset: those that everybody trusts.")
    certificateRef: SecretKeyRef | None = Field(None, description="PEM of the operator's own certificate.")
    keyRef: SecretKeyRef | None = Field(None, description="PEM of its private key, without a password.")
    rules = (
        Rule(
            cel="has(self.certificateRef) == has(self.keyRef)",
            message="`tls`: `certificateRef` and `keyRef` go together",
            holds=lambda t: (t.certificateRef is None) == (t.keyRef is None),
        ),
    )


# What the library sets itself, or what belongs to one connection.
_NOT_THE_AUTHORS: Final = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "upgrade", "te"})


class MetricsSource(ApiModel):
    """A Prometheus that policies may name in `spec.metricsSource`."""

    name: Name = Field(description="Name that policies use.")
    url: Annotated[str, Field(max_length=2048, pattern=_URL)] = Field(description="Base URL of its HTTP API, without credentials.")
    scrapeIntervalSeconds: int = Field(
        ge=1, le=300, description="How often it scrapes the gateways. It is asked up to five times as often, so that a scrape is seen soon."
    )
    headersFrom: list[HeaderFrom] = Field(default_factory=list, max_length=8, description="Headers whose values are in Secrets.")
    tls: SourceTLS | None = Field(None, description="Certificates, where those that everybody trusts are not enough.")
    rules = (
        Rule(cel="isURL(self.url)", message="`url` is not a URL; correct its host or port", holds=lambda s: _is_url(s.url)),
        Rule(
            cel="!has(self.tls) || self.url.startsWith('https:')",
            message="`tls` is for a `url` that begins with `https://`",
            holds=lambda s: s.tls is None or s.url.startswith("https:"),
        ),
        Rule(
            cel="self.headersFrom.all(h, self.headersFrom.filter(o, o.header.lowerAscii() == h.header.lowerAscii()).size() == 1)",
            message="`headersFrom`: each header can be set once",
            holds=lambda s: len({h.header.lower() for h in s.headersFrom}) == len(s.headersFrom),
        ),
        Rule(
            cel=f"self.headersFrom.all(h, !(h.header.lowerAscii() in {sorted(_NOT_THE_AUTHORS)}))",
            message="`headersFrom`: `Host` and headers of the connection are not set here",
            holds=lambda s: not any(h.header.lower() in _NOT_THE_AUTHORS for h in s.headersFrom),
        ),
    )

    def credentials(self, directory: Path) -> Credentials:
        """Where its credentials are; `directory`: with the file `<Secret>/<key>` of each."""

        def file(ref: SecretKeyRef) -> SecretFile:
            return SecretFile(secret=ref.name, key=ref.key, path=directory / ref.name / ref.key)

        tls = self.tls or SourceTLS()
        return Credentials(
            headers=tuple((h.header, file(h.secretRef)) for h in self.headersFrom),
            authority=file(tls.caRef) if tls.caRef else None,
            certificate=file(tls.certificateRef) if tls.certificateRef else None,
            key=file(tls.keyRef) if tls.keyRef else None,
        )


class LeaderElection(ApiModel):
    """The Lease that the one of several operators holds that acts."""

    namespace: ObjectName = Field(description="Namespace of the Lease.")
    name: ObjectName = Field("backstop", description="Name of the Lease.")
    leaseSeconds: int = Field(
        10, ge=2, le=300, description="How long it lasts unrenewed: after a crash, another operator acts after this time."
    )


class OperatorConfig(ApiModel):
    """What an installation decides."""

    metricsSources: list[MetricsSource] = Field(default_factory=list, max_length=64, description="Where metrics come from.")
    gatewayImage: str = Field(min_length=1, max_length=512, description="Image of new revisions whose policy names none.")
    gatewayImagePullSecrets: list[ObjectName] = Field(
        default_factory=list,
        max_length=16,
        description="Secrets for pulling the image of new revisions, in the namespaces of the policies.",
    )
    gatewayEnv: list[GatewayVariable] = Field(
        default_factory=list,
        max_length=32,
        description="Environment variables of OpenTelemetry for the gateways of new revisions, where their policy does not set them. "
        "Secrets are in the namespaces of the policies.",
        json_schema_extra=LIST_MAP_BY_NAME,
    )
    namespaces: list[ObjectName] = Field(
        default_factory=list, max_length=256, description="Namespaces that are served. None: all, which needs cluster-wide rights."
    )
    leaderElection: LeaderElection | None = Field(None, description="How one of several operators is chosen. Unset: there is only one.")
    telemetryPort: int = Field(8080, ge=0, le=65535, description="Port of `/healthz`, `/readyz` and `/metrics`.")
    secretsDirectory: str = Field(
        "/etc/backstop-secrets",
        min_length=1,
        max_length=4096,
        description="Where the Secrets that metrics sources name are mounted: a folder for each, with a file for each of its keys.",
    )
    rules = (
        Rule(
            cel="self.metricsSources.all(s, self.metricsSources.filter(o, o.name == s.name).size() == 1)",
            message="`metricsSources`: names must be unique",
            holds=lambda c: len({s.name for s in c.metricsSources}) == len(c.metricsSources),
        ),
    )


def read_config(path: Path) -> OperatorConfig:
    """The configuration in a YAML or JSON file. Raises InputError with one sentence."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"`{path}` is not YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(document, dict):
        raise InputError(f"`{path}` must hold an object with `gatewayImage` and `metricsSources`")
    try:
        return parse_strictly(OperatorConfig, document, prefix="")
    except InputError as error:
        raise InputError(f"`{path}`: {error}") from None
