"""What the chart renders, and which values it refuses; with real Helm, without a cluster."""

import json
from pathlib import Path

import pytest
import yaml

from backstop.api.refs import SecretKeyRef
from backstop.controller.config import LeaderElection, MetricsSource, OperatorConfig, read_config
from backstop.crdgen.kinds import KINDS, definition
from e2e import manifests

from .helm import CHART, IMAGE, ROOT, HelmRefused, helm, hooks, only, settings, template

pytestmark = pytest.mark.apiserver

SOURCE = (
    "metrics.sources[0].name=default",
    "metrics.sources[0].url=http://prometheus.monitoring.svc:9090",
    "metrics.sources[0].scrapeIntervalSeconds=5",
)
APP_VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
DIGEST = f"sha256:{'0123456789abcdef' * 4}"


def config_of(*values: str, into: Path) -> OperatorConfig:
    path = into / "operator.yaml"
    path.write_text(only(template(*values), "ConfigMap")["data"]["operator.yaml"], encoding="utf-8")
    return read_config(path)


def test_the_chart_passes_lint() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), *settings(*IMAGE, *SOURCE))


def test_the_operator_reads_the_configuration_that_the_chart_writes(tmp_path: Path) -> None:
    config = config_of(*IMAGE, *SOURCE, "namespaces={shop,desk}", into=tmp_path)
    assert config.gatewayImage == "localhost/backstop:dev"
    assert [(s.name, s.url, s.scrapeIntervalSeconds) for s in config.metricsSources] == [
        ("default", "http://prometheus.monitoring.svc:9090", 5)
    ]
    assert config.namespaces == ["shop", "desk"]


CREDENTIALS = (
    *SOURCE,
    "metrics.sources[0].url=https://prometheus.monitoring.svc:9090",
    "metrics.sources[0].headersFrom[0].header=Authorization",
    "metrics.sources[0].headersFrom[0].secretRef.name=metrics",
    "metrics.sources[0].headersFrom[0].secretRef.key=token",
    "metrics.sources[0].tls.caRef.name=ca",
    "metrics.sources[0].tls.caRef.key=ca.crt",
    "metrics.sources[1].name=second",
    "metrics.sources[1].url=https://prometheus.other.svc:9090",
    "metrics.sources[1].scrapeIntervalSeconds=5",
    "metrics.sources[1].tls.caRef.name=ca",
    "metrics.sources[1].tls.caRef.key=ca.crt",
)


def test_m08_credentials_of_a_source_are_mounted_where_the_operator_looks_for_them_and_nowhere_else(tmp_path: Path) -> None:
    config = config_of(*IMAGE, *CREDENTIALS, into=tmp_path)
    files = [source.credentials(Path(config.secretsDirectory)) for source in config.metricsSources]
    pod = only(template(*IMAGE, *CREDENTIALS), "Deployment")["spec"]["template"]["spec"]
    (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "secrets"]
    (volume,) = [v for v in pod["volumes"] if v["name"] == "secrets"]
    parts = [part["secret"] for part in volume["projected"]["sources"]]
    mounted = {f"{mount['mountPath']}/{item['path']}": (part["name"], item["key"]) for part in parts for item in part["items"]}
    assert mounted == {"/etc/backstop-secrets/metrics/token": ("metrics", "token"), "/etc/backstop-secrets/ca/ca.crt": ("ca", "ca.crt")}
    assert len(parts) == len(mounted), "the same key twice is refused by the API server"
    assert all(part["optional"] for part in parts), "one source's Secret must not keep the operator from starting"
    assert [name for name, _ in files[0].headers] == ["Authorization"]
    assert {str(file.path) for file in (files[0].headers[0][1], files[0].authority, files[1].authority) if file} == set(mounted)


def test_without_credentials_nothing_is_mounted() -> None:
    pod = only(template(*IMAGE, *SOURCE), "Deployment")["spec"]["template"]["spec"]
    assert [volume["name"] for volume in pod["volumes"]] == ["config"]


def test_secrets_for_pulling_reach_the_operators_account_and_the_gateways(tmp_path: Path) -> None:
    values = (
        *IMAGE,
        "imagePullSecrets[0].name=registry",
        "gateway.imagePullSecrets[0].name=edge",
        "gateway.imagePullSecrets[1].name=mirror",
    )
    assert only(template(*values), "ServiceAccount")["imagePullSecrets"] == [{"name": "registry"}]
    assert config_of(*values, into=tmp_path).gatewayImagePullSecrets == ["edge", "mirror"]


def test_variables_of_gateways_reach_the_operator(tmp_path: Path) -> None:
    values = (
        *IMAGE,
        "gateway.env[0].name=OTEL_EXPORTER_OTLP_ENDPOINT",
        "gateway.env[0].value=http://$(NODE_IP):4318",
        "gateway.env[1].name=OTEL_EXPORTER_OTLP_HEADERS",
        "gateway.env[1].secretKeyRef.name=collector",
        "gateway.env[1].secretKeyRef.key=headers",
    )
    endpoint, headers = config_of(*values, into=tmp_path).gatewayEnv
    assert (endpoint.name, endpoint.value) == ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://$(NODE_IP):4318")
    assert (headers.value, headers.secretKeyRef) == (None, SecretKeyRef(name="collector", key="headers"))


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ((), f"reg.example:5000/backstop:{APP_VERSION}"),
        (("image.tag=2.0.0",), "reg.example:5000/backstop:2.0.0"),
        ((f"image.digest={DIGEST}",), f"reg.example:5000/backstop@{DIGEST}"),
        (("image.tag=2.0.0", f"image.digest={DIGEST}"), f"reg.example:5000/backstop:2.0.0@{DIGEST}"),
    ],
)
def test_an_image_can_be_named_by_tag_and_by_digest(values: tuple[str, ...], image: str, tmp_path: Path) -> None:
    values = ("image.repository=reg.example:5000/backstop", *values)
    (container,) = only(template(*values), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image
    assert config_of(*values, into=tmp_path).gatewayImage == image


def test_an_annotation_of_the_pod_that_the_chart_sets_too_is_set_once_as_the_author_says() -> None:
    values = (*IMAGE, r"podAnnotations.prometheus\.io/scrape=no", "podAnnotations.team=desk")
    text = helm("template", "backstop", str(CHART), *settings(*values))
    assert text.count("prometheus.io/scrape") == 1
    annotations = only(template(*values), "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations.pop("checksum/config")
    assert annotations == {
        "prometheus.io/scrape": "no",
        "prometheus.io/port": "8080",
        "prometheus.io/path": "/metrics",
        "team": "desk",
    }


def test_without_sources_the_configuration_is_valid_too(tmp_path: Path) -> None:
    election = LeaderElection(namespace="backstop", name="backstop", leaseSeconds=10)
    assert config_of(*IMAGE, "gateway.image=other:1", into=tmp_path) == OperatorConfig(gatewayImage="other:1", leaderElection=election)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((), "image.repository is required: build the image from the Dockerfile, push it, and name it here"),
        ((*IMAGE, "replica=2"), "additional properties 'replica' not allowed"),
        ((f"image.repository=reg.example/backstop@{DIGEST}",), "'/image/repository': '"),
        ((*IMAGE, "image.digest=0123"), "'/image/digest': '"),
        ((*IMAGE, "gateway.env[0].name=PYTHONPATH", "gateway.env[0].value=/x"), "'/gateway/env/0/name': '"),
        (
            (*IMAGE, "gateway.env[0].name=OTEL_EXPORTER_OTLP_HEADERS", "gateway.env[0].value=api-key=x"),
            "at '/gateway/env/0': missing property 'secretKeyRef'",
        ),
        ((*IMAGE, "gateway.env[0].name=OTEL_SDK_DISABLED"), "at '/gateway/env/0': missing property 'secretKeyRef'"),
        ((*IMAGE, "metrics.source=http://p:9090"), "additional properties 'source' not allowed"),
        ((*IMAGE, "metrics.sources[0].name=default"), "missing properties 'url', 'scrapeIntervalSeconds'"),
        ((*IMAGE, *SOURCE, "metrics.sources[0].scrapeIntervalSeconds=0"), "minimum: got 0, want 1"),
        ((*IMAGE, *SOURCE, "metrics.sources[0].headersFrom[0].value=secret"), "additional properties 'value' not allowed"),
        ((*IMAGE, *SOURCE, "metrics.sources[0].tls.certificateRef.name=a"), "properties 'keyRef' required, if 'certificateRef' exists"),
        *(
            ((*IMAGE, *SOURCE, f"metrics.sources[0].url={url}"), "does not match pattern")
            for url in ("prometheus:9090", "http://prom/?x=1", "http://prom#a", "http://:9090", "http://prom:port", "http://user:pw@prom")
        ),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: tuple[str, ...], message: str) -> None:
    with pytest.raises(HelmRefused) as refused:
        template(*values)
    assert message in str(refused.value)


def test_the_chart_and_the_operator_ask_the_same_of_a_url() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    source = schema["properties"]["metrics"]["properties"]["sources"]["items"]["properties"]
    field = MetricsSource.model_json_schema()["properties"]["url"]
    assert source["url"] == {key: field[key] for key in ("type", "maxLength", "pattern")}


def test_the_chart_holds_the_definitions_that_the_models_make() -> None:
    rendered = {d["metadata"]["name"]: d for d in template(*IMAGE) if d["kind"] == "CustomResourceDefinition"}
    assert rendered == {kind.object_name: definition(kind) for kind in KINDS}


def test_the_definitions_can_be_left_out() -> None:
    kinds = [document["kind"] for document in template(*IMAGE, "crds.install=false")]
    assert "CustomResourceDefinition" not in kinds


def test_a_new_configuration_restarts_the_operator() -> None:
    def checksum(*values: str) -> str:
        return str(only(template(*values), "Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum(*IMAGE) == checksum(*IMAGE)
    assert checksum(*IMAGE) != checksum(*IMAGE, *SOURCE)


def test_rights_hold_no_wildcard_no_secret_and_no_definition() -> None:
    rules = only(template(*IMAGE), "ClusterRole")["rules"]
    named = {(group, resource, verb) for r in rules for group in r["apiGroups"] for resource in r["resources"] for verb in r["verbs"]}
    assert not [right for right in named if "*" in right]
    assert not [right for right in named if right[1].startswith(("secrets", "customresourcedefinitions"))]
    assert {right for right in named if right[0] == "backstop.dev" and right[2] not in ("get", "list", "watch")} == {
        ("backstop.dev", "fallbackpolicies", "patch"),
        ("backstop.dev", "fallbackpolicies/status", "patch"),
        ("backstop.dev", "promptversions/status", "patch"),
        ("backstop.dev", "rolloutreports", "create"),
        ("backstop.dev", "rolloutreports", "delete"),
    }


def test_r08_for_named_namespaces_there_is_no_right_over_the_cluster() -> None:
    everywhere, named = template(*IMAGE), template(*IMAGE, "namespaces={shop,desk}")
    assert [d["kind"] for d in named if d["kind"].startswith("ClusterRole")] == []
    roles = [d for d in named if d["kind"] == "Role" and not d["metadata"]["name"].endswith("-leader-election")]
    assert [role["metadata"]["namespace"] for role in roles] == ["shop", "desk"]
    assert all(role["rules"] == only(everywhere, "ClusterRole")["rules"] for role in roles)


@pytest.mark.parametrize("namespaces", [(), ("shop", "desk")])
def test_the_end_of_an_uninstall_may_take_finalizers_off_and_nothing_else(namespaces: tuple[str, ...]) -> None:
    found = hooks(*IMAGE, *([f"namespaces={{{','.join(namespaces)}}}"] if namespaces else []))
    assert {document["metadata"]["annotations"]["helm.sh/hook"] for document in found} == {"post-delete"}
    roles = [document for document in found if document["kind"].endswith("Role")]
    where = [(role["kind"], role["metadata"].get("namespace", "all")) for role in roles]
    assert where == ([("Role", namespace) for namespace in namespaces] or [("ClusterRole", "all")])
    rules = [{"apiGroups": ["backstop.dev"], "resources": ["fallbackpolicies"], "verbs": ["list", "patch"]}]
    assert all(role["rules"] == rules for role in roles)
    pod = only(found, "Job")["spec"]["template"]
    assert pod["spec"]["containers"][0]["args"] == ["let-go", *(f"--namespace={namespace}" for namespace in namespaces)]
    operator = only(template(*IMAGE), "Deployment")["spec"]["selector"]["matchLabels"]
    assert not operator.items() <= pod["metadata"]["labels"].items(), "the operator's Deployment would count it as its own"


def test_the_plain_manifests_are_what_the_chart_renders() -> None:
    assert manifests.RENDERED.read_text(encoding="utf-8") == manifests.rendered()


def test_the_plain_manifests_are_the_charts_objects() -> None:
    plain = list(yaml.safe_load_all(manifests.RENDERED.read_text(encoding="utf-8")))
    rendered = template(*manifests.VALUES)
    assert {(d["kind"], d["metadata"]["name"]) for d in plain} == {(d["kind"], d["metadata"]["name"]) for d in rendered}


def test_the_samples_are_what_the_readme_says_is_there() -> None:
    assert "manifests/samples/support.yaml" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / "manifests/samples/support.yaml").is_file()
