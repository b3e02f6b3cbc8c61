"""Where traces go and which are taken, from OpenTelemetry's own environment variables. PURE. A refusal is one sentence.

Read here and not by the SDK, which passes over what it does not understand with a line in the log. Values never stand in a message: some of
them are secret.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from .revision import ConfigurationError

SERVICE: Final = "backstop-gateway"
_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_BUNDLE: Final = "spec.serving.traces.caBundleRef"
_LOCAL: Final = "http://localhost:4318"
_SAMPLER: Final = "OTEL_TRACES_SAMPLER"
_SAMPLERS: Final = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
_COMPRESSIONS: Final = ("none", "gzip", "deflate")
_TOKEN: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VISIBLE: Final = re.compile(r"[\x20-\x7e]*")
_MOST: Final = 1_000_000  # of anything that is counted


@dataclass(frozen=True)
class TraceSettings:
    """Where spans go, and which are made. Times in seconds; `ratio`: of the traces that begin here, for the samplers that take one.

    `service`: None where it is not said; `resource`: more that is said of the process; the three paths are of PEM files. `authorities`:
    PEM itself, of those that alone may vouch for the collector; None: `authority`, or those that the system trusts.
    """

    endpoint: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 10.0
    compression: str = "none"
    authority: str | None = None
    certificate: str | None = None
    key: str | None = None
    authorities: str | None = None
    sampler: str = "parentbased_always_on"
    ratio: float = 1.0
    service: str | None = None
    resource: Mapping[str, str] = field(default_factory=dict)
    queue: int = 2048  # spans that may wait
    batch: int = 512  # of them in one request
    delay: float = 5.0

    @property
    def collector(self) -> str:
        """Whom they are sent to, as the log names it."""
        return urlsplit(self.endpoint).netloc


def trace_settings(environment: Mapping[str, str], *, authorities: str | None = None) -> TraceSettings | None:
    """What the environment asks for; None: no traces. Raises ConfigurationError. An empty variable is one that is not set.

    `authorities`: of the revision; where there is no collector to be vouched for, they are for nothing.
    """
    if _one_of(environment, "OTEL_SDK_DISABLED", ("true", "false"), default="false") == "true":
        return None
    exporter = _one_of(environment, "OTEL_TRACES_EXPORTER", ("otlp", "none"), default="")
    endpoint = _endpoint(environment)
    if exporter == "none" or (endpoint is None and not exporter):
        return None
    _one_of(environment, _either(environment, "PROTOCOL"), ("http/protobuf",), default="")
    _check_propagators(environment)
    queue = _number(environment, "OTEL_BSP_MAX_QUEUE_SIZE", default=TraceSettings.queue)
    batch = _number(environment, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", default=min(TraceSettings.batch, queue))
    if batch > queue:
        raise ConfigurationError("`OTEL_BSP_MAX_EXPORT_BATCH_SIZE` must not be above `OTEL_BSP_MAX_QUEUE_SIZE`; lower it")
    sampler = _one_of(environment, _SAMPLER, _SAMPLERS, default=TraceSettings.sampler)
    certificate, key = (_set(environment, _either(environment, name)) for name in ("CLIENT_CERTIFICATE", "CLIENT_KEY"))
    if (certificate is None) != (key is None):
        raise ConfigurationError("`OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE` and `OTEL_EXPORTER_OTLP_CLIENT_KEY` go together; set both")
    if authorities is not None:
        _check_bundle(environment, endpoint=endpoint or _LOCAL)
    return TraceSettings(
        endpoint=endpoint or f"{_LOCAL}/v1/traces",
        headers=_pairs(environment, _either(environment, "HEADERS"), names=_TOKEN),
        timeout=_number(environment, _either(environment, "TIMEOUT"), default=10_000) / 1000,
        compression=_one_of(environment, _either(environment, "COMPRESSION"), _COMPRESSIONS, default=TraceSettings.compression),
        authority=_set(environment, _either(environment, "CERTIFICATE")),
        certificate=certificate,
        key=key,
        authorities=authorities,
        sampler=sampler,
        ratio=_ratio(environment) if sampler.endswith("traceidratio") else 1.0,
        service=_set(environment, "OTEL_SERVICE_NAME"),
        resource=_of_pod(environment) | _pairs(environment, "OTEL_RESOURCE_ATTRIBUTES"),
        queue=queue,
        batch=batch,
        delay=_number(environment, "OTEL_BSP_SCHEDULE_DELAY", default=5000) / 1000,
    )


def _set(environment: Mapping[str, str], name: str) -> str | None:
    return environment.get(name, "").strip() or None


def _either(environment: Mapping[str, str], name: str) -> str:
    """The variable of all signals, or the one of traces alone, which comes first."""
    own = f"OTEL_EXPORTER_OTLP_TRACES_{name}"
    return own if _set(environment, own) is not None else f"OTEL_EXPORTER_OTLP_{name}"


def _endpoint(environment: Mapping[str, str]) -> str | None:
    """The address that spans are posted to. That of traces is taken as it is, the one of all signals gets their path."""
    for name, path in ((_TRACES_ENDPOINT, ""), (_ENDPOINT, "/v1/traces")):
        if (url := _set(environment, name)) is not None:
            try:
                parts = urlsplit(url)
                right = (
                    parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not (parts.fragment or " " in url)
                )
            except ValueError:
                right = False
            if not right or (path and parts.query):
                raise ConfigurationError(f"`{name}` must be the URL of an OTLP collector, such as `http://collector:4318`; correct it")
            if "@" in parts.netloc:
                raise ConfigurationError(f"`{name}` must not hold credentials; put them into `OTEL_EXPORTER_OTLP_HEADERS`, from a Secret")
            return url.rstrip("/") + path if path else url
    return None


def _check_bundle(environment: Mapping[str, str], *, endpoint: str) -> None:
    if urlsplit(endpoint).scheme != "https":
        raise ConfigurationError(
            f"`{_BUNDLE}` is for a collector whose address begins with `https://`; take it out, or correct the address"
        )
    if _set(environment, name := _either(environment, "CERTIFICATE")) is not None:
        raise ConfigurationError(f"`{name}` and `{_BUNDLE}` both say who vouches for the collector; take one out")


def _one_of(environment: Mapping[str, str], name: str, known: tuple[str, ...], *, default: str) -> str:
    value = (_set(environment, name) or default).lower()
    if value != default and value not in known:
        either = " or ".join(f"`{one}`" for one in known)
        raise ConfigurationError(f"`{name}` must be {either}, for the gateway knows no other; correct it")
    return value


def _of_pod(environment: Mapping[str, str]) -> dict[str, str]:
    known = {"k8s.namespace.name": "POD_NAMESPACE", "k8s.pod.name": "POD_NAME", "service.instance.id": "POD_NAME"}
    return {attribute: value for attribute, name in known.items() if (value := _set(environment, name)) is not None}


def _check_propagators(environment: Mapping[str, str]) -> None:
    """Baggage is known, and is not handed on: what callers write there is not for models."""
    said = _set(environment, "OTEL_PROPAGATORS")
    names = {name.strip().lower() for name in (said or "tracecontext").split(",")} - {"", "baggage"}
    if names != {"tracecontext"}:
        raise ConfigurationError("`OTEL_PROPAGATORS` must be `tracecontext`, for the gateway knows no other; correct it")


def _number(environment: Mapping[str, str], name: str, *, default: int) -> int:
    text = _set(environment, name) or str(default)
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= len(str(_MOST)) and 0 < int(text) <= _MOST):
        raise ConfigurationError(f"`{name}` must be a whole number from 1 to {_MOST}; correct it")
    return int(text)


def _ratio(environment: Mapping[str, str]) -> float:
    name = f"{_SAMPLER}_ARG"
    try:
        ratio = float(_set(environment, name) or "1")
    except ValueError:
        ratio = math.nan
    if not 0 <= ratio <= 1:  # NaN is in no range
        raise ConfigurationError(f"`{name}` must be the share of traces to take, from 0 to 1; correct it")
    return ratio


def _pairs(environment: Mapping[str, str], name: str, *, names: re.Pattern[str] | None = None) -> dict[str, str]:
    """`name=value` pairs with commas between them, values quoted as in a URL."""
    found: dict[str, str] = {}
    items = [item for item in (_set(environment, name) or "").split(",") if item.strip()]
    for position, item in enumerate(items, start=1):
        key, separator, value = item.partition("=")
        key, value = key.strip(), unquote(value.strip())
        fits = names is None or (names.fullmatch(key) and _VISIBLE.fullmatch(value))
        if not (separator and key and fits):
            raise ConfigurationError(
                f"`{name}`: pair {position} is not `name=value`, with `%20` and the like for special characters; correct it"
            )
        found[key if names is None else key.lower()] = value
    return found
