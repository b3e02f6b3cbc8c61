"""Where traces go, from the environment alone: what is off, what is on, and what is refused in one sentence that tells no secret."""

import pytest

from backstop.gateway.revision import ConfigurationError
from backstop.gateway.traceoptions import TraceSettings, trace_settings

HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": " "},
        {**HERE, "OTEL_SDK_DISABLED": "True"},
        {**HERE, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_traced_unless_it_is_asked_for(environment: dict[str, str]) -> None:
    assert trace_settings(environment) is None


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        (HERE, "http://collector:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector/otlp/"}, "https://collector/otlp/v1/traces"),
        ({**HERE, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://[::1]:1/x"}, "http://[::1]:1/x"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces"),
    ],
)
def test_the_address_is_what_the_specification_makes_of_it(environment: dict[str, str], endpoint: str) -> None:
    settings = trace_settings(environment)
    assert settings is not None
    assert settings == TraceSettings(endpoint=endpoint)


def test_times_are_milliseconds_and_what_is_said_of_traces_alone_comes_first() -> None:
    settings = trace_settings(
        {
            **HERE,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_EXPORTER_OTLP_HEADERS": "a=1",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "Api-Key=a%2Cb%3D, x = y",
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_PROPAGATORS": "tracecontext,baggage",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
            "OTEL_RESOURCE_ATTRIBUTES": "service.version=2,team=a%20b",
            "POD_NAME": "p",
        }
    )
    assert settings is not None
    assert (settings.timeout, settings.delay, settings.ratio, settings.compression) == (2.5, 0.1, 0.25, "gzip")
    assert settings.headers == {"api-key": "a,b=", "x": "y"}
    assert settings.resource == {"k8s.pod.name": "p", "service.instance.id": "p", "service.version": "2", "team": "a b"}
    assert "a,b=" not in repr(settings)


def test_a_bundle_vouches_for_a_collector_that_speaks_tls_alone_and_says_nothing_where_nothing_is_traced() -> None:
    there = {"OTEL_EXPORTER_OTLP_ENDPOINT": "HTTPS://collector"}
    settings = trace_settings(there, authorities="PEM")
    assert settings is not None
    assert (settings.authorities, settings.authority) == ("PEM", None)
    assert trace_settings({}, authorities="PEM") is None
    for environment, sentence in (
        (HERE, "`spec.serving.traces.caBundleRef` is for a collector whose address begins with `https://`; take it out, or correct"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "`spec.serving.traces.caBundleRef` is for a collector whose address begins with"),
        (
            {**there, "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": "/ca.pem"},
            "`OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE` and `spec.serving.traces.caBundleRef` both say who vouches",
        ),
    ):
        with pytest.raises(ConfigurationError) as refused:
            trace_settings(environment, authorities="PEM")
        assert str(refused.value).startswith(sentence)


REFUSED = [
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "`OTEL_EXPORTER_OTLP_ENDPOINT` must be the URL of an OTLP collector"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:99999"}, "`OTEL_EXPORTER_OTLP_ENDPOINT` must be the URL"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c?key=5ecret"}, "`OTEL_EXPORTER_OTLP_ENDPOINT` must be the URL"),
    ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "grpc://c:4317"}, "`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` must be the URL"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://u:5ecret@c"}, "`OTEL_EXPORTER_OTLP_ENDPOINT` must not hold credentials"),
    ({**HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "`OTEL_EXPORTER_OTLP_PROTOCOL` must be `http/protobuf`"),
    ({**HERE, "OTEL_TRACES_EXPORTER": "jaeger"}, "`OTEL_TRACES_EXPORTER` must be `otlp` or `none`"),
    ({**HERE, "OTEL_SDK_DISABLED": "yes"}, "`OTEL_SDK_DISABLED` must be `true` or `false`"),
    ({**HERE, "OTEL_PROPAGATORS": "b3"}, "`OTEL_PROPAGATORS` must be `tracecontext`"),
    ({**HERE, "OTEL_TRACES_SAMPLER": "jaeger_remote"}, "`OTEL_TRACES_SAMPLER` must be `always_on` or"),
    ({**HERE, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "25%"}, "`OTEL_TRACES_SAMPLER_ARG` must be the share"),
    ({**HERE, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"}, "`OTEL_TRACES_SAMPLER_ARG` must be the share"),
    ({**HERE, "OTEL_EXPORTER_OTLP_HEADERS": "a=1,5ecret"}, "`OTEL_EXPORTER_OTLP_HEADERS`: pair 2 is not `name=value`"),
    ({**HERE, "OTEL_EXPORTER_OTLP_HEADERS": "a=5ecret%0ab"}, "`OTEL_EXPORTER_OTLP_HEADERS`: pair 1 is not `name=value`"),
    ({**HERE, "OTEL_RESOURCE_ATTRIBUTES": "=x"}, "`OTEL_RESOURCE_ATTRIBUTES`: pair 1"),
    ({**HERE, "OTEL_EXPORTER_OTLP_TIMEOUT": "10s"}, "`OTEL_EXPORTER_OTLP_TIMEOUT` must be a whole number"),
    ({**HERE, "OTEL_BSP_MAX_QUEUE_SIZE": "0"}, "`OTEL_BSP_MAX_QUEUE_SIZE` must be a whole number"),
    ({**HERE, "OTEL_BSP_MAX_QUEUE_SIZE": "9", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}, "`OTEL_BSP_MAX_EXPORT_BATCH_SIZE` must not be"),
    ({**HERE, "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, "`OTEL_EXPORTER_OTLP_COMPRESSION` must be `none` or `gzip` or `deflate`"),
    ({**HERE, "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/k"}, "`OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE` and `OTEL_EXPORTER_OTLP_CLIENT_KEY` go"),
]


@pytest.mark.parametrize(("environment", "sentence"), REFUSED)
def test_what_is_not_understood_is_refused_in_one_sentence(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        trace_settings(environment)
    text = str(refused.value)
    assert text.startswith(sentence)
    assert "\n" not in text
    assert "5ecret" not in text
