"""Configuration from files: the manifests that `kubectl apply` takes, or the mounted revision record. Reads files, and nothing else.

Every refusal is one sentence that says file, object and field.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from ..api.fallbackpolicy import POLICY_RULES, FallbackPolicySpec
from ..api.names import API_VERSION, GROUP
from ..api.problems import InputError, parse_strictly
from ..api.promptversion import PromptVersionSpec
from ..api.record import ContentError, RevisionRecord, build_record, check_content, references_of, secrets_of_record
from ..api.template import compile_prompt
from ..api.templateerror import TemplateError
from .revision import ConfigurationError

_DEFAULT_NAMESPACE: Final = "default"


@dataclass(frozen=True)
class _Manifest:
    """One object of a file."""

    file: str
    kind: str
    namespace: str
    name: str
    body: Mapping[str, Any]

    @property
    def place(self) -> str:
        return f"{self.file}: {self.kind} `{self.name}`"


@dataclass
class _Manifests:
    policies: dict[tuple[str, str], _Manifest] = field(default_factory=dict)
    prompts: dict[tuple[str, str], _Manifest] = field(default_factory=dict)
    secrets: dict[tuple[str, str], _Manifest] = field(default_factory=dict)
    config_maps: dict[tuple[str, str], _Manifest] = field(default_factory=dict)


def read_record(file: Path) -> RevisionRecord:
    """The mounted revision record. Raises ConfigurationError."""
    text = _read_text(file)
    try:
        value = json.loads(text)  # not as YAML, which refuses characters that a prompt may hold
    except ValueError as error:
        raise ConfigurationError(f"{file}: not a revision record ({error})") from None
    try:
        return parse_strictly(RevisionRecord, value, prefix="")
    except InputError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def record_from_manifests(files: Iterable[Path], *, policy: str | None) -> tuple[RevisionRecord, dict[str, str], dict[str, str]]:
    """The record of the only policy in `files`, or of the named one, what it needs of Secrets by variable, and its callers' keys.

    Raises ConfigurationError.
    """
    manifests = _load(files)
    chosen = _choose(manifests, policy=policy)
    for rule in POLICY_RULES:
        if not rule.holds(chosen.name):
            raise ConfigurationError(f"{chosen.place}: {rule.message}")
    spec = _parse(FallbackPolicySpec, manifest=chosen)
    if spec.promptVersion is None:
        raise ConfigurationError(
            f"{chosen.place}: `spec.serving.workload` runs in a cluster, without gateways; give a policy with `spec.chain`"
        )
    prompt = manifests.prompts.get((chosen.namespace, spec.promptVersion))
    if prompt is None:
        raise ConfigurationError(
            f"{chosen.place}: `spec.promptVersion` names `{spec.promptVersion}`, which no file has"
            f" in namespace `{chosen.namespace}`; give a file with that PromptVersion"
        )
    prompt_spec = _parse(PromptVersionSpec, manifest=prompt)
    try:
        compile_prompt(prompt_spec)
    except TemplateError as error:
        raise ConfigurationError(f"{prompt.place}: {error}") from None
    contents = _contents(spec, manifests=manifests, chosen=chosen)
    record = build_record(namespace=chosen.namespace, name=chosen.name, policy=spec, prompt=prompt_spec, contents=contents)
    return record, _keys(record, manifests=manifests), _callers(record, manifests=manifests)


def _load(files: Iterable[Path]) -> _Manifests:
    manifests = _Manifests()
    for file in files:
        for manifest in _documents(file):
            match manifest.kind:
                case "FallbackPolicy":
                    _add(manifests.policies, manifest=manifest)
                case "PromptVersion":
                    _add(manifests.prompts, manifest=manifest)
                case "ConfigMap":
                    _add(manifests.config_maps, manifest=manifest)
                case _:
                    manifests.secrets[manifest.namespace, manifest.name] = manifest
    return manifests


def _documents(file: Path) -> list[_Manifest]:
    text = _read_text(file)
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file}: {_where(error)}not valid YAML; {_problem(error)}") from None
    found = []
    for document in documents:
        if document is None:
            continue
        if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
            raise ConfigurationError(f"{file}: a document without `kind`; give Kubernetes manifests")
        items = document.get("items") if document["kind"] == "List" else [document]
        found += [m for item in items or [] if (m := _manifest(file, item)) is not None]
    return found


def _manifest(file: Path, body: Any) -> _Manifest | None:
    if not isinstance(body, dict):
        raise ConfigurationError(f"{file}: an item that is not an object; give Kubernetes manifests")
    kind, version = body.get("kind"), str(body.get("apiVersion", ""))
    if (kind in ("Secret", "ConfigMap") and version == "v1") or (
        kind in ("FallbackPolicy", "PromptVersion") and version.startswith(f"{GROUP}/")
    ):
        metadata = body.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if kind == "ConfigMap" and not name:
            return None  # such as `generateName`: nothing can refer to it
        if not isinstance(metadata, dict) or not isinstance(name, str) or not name:
            raise ConfigurationError(f"{file}: {kind}: `metadata.name` is missing; set it")
        if kind in ("FallbackPolicy", "PromptVersion") and version != API_VERSION:
            raise ConfigurationError(f"{file}: {kind} `{name}`: `apiVersion` must be `{API_VERSION}`")
        return _Manifest(file=str(file), kind=kind, namespace=str(metadata.get("namespace") or _DEFAULT_NAMESPACE), name=name, body=body)
    if kind in ("FallbackPolicy", "PromptVersion"):
        raise ConfigurationError(f"{file}: {kind}: `apiVersion` must be `{API_VERSION}`")
    return None


def _add(into: dict[tuple[str, str], _Manifest], *, manifest: _Manifest) -> None:
    key = manifest.namespace, manifest.name
    if key in into:
        raise ConfigurationError(f"{manifest.place} is given twice, also in {into[key].file}; leave one out")
    into[key] = manifest


def _choose(manifests: _Manifests, *, policy: str | None) -> _Manifest:
    names = ", ".join(f"`{name}`" for name in sorted({name for _, name in manifests.policies}))
    if not manifests.policies:
        raise ConfigurationError("no file has a FallbackPolicy; give one to `--manifests`")
    chosen = [manifest for (_, name), manifest in manifests.policies.items() if policy in (None, name)]
    match chosen:
        case []:
            raise ConfigurationError(f"no file has a FallbackPolicy `{policy}`; `--policy` can be {names}")
        case [only]:
            return only
    if len({manifest.name for manifest in chosen}) > 1:
        raise ConfigurationError(f"the files have several FallbackPolicies; choose one with `--policy`: {names}")
    places = ", ".join(f"`{manifest.namespace}` ({manifest.file})" for manifest in chosen)
    raise ConfigurationError(f"FallbackPolicy `{chosen[0].name}` is given in several namespaces: {places}; leave out all but one")


def _parse(model: Any, *, manifest: _Manifest) -> Any:
    unknown = [key for key in manifest.body if key not in ("apiVersion", "kind", "metadata", "spec", "status")]
    if unknown:
        raise ConfigurationError(f"{manifest.place}: `{unknown[0]}` is not a known field; take it out or correct its name")
    try:
        return parse_strictly(model, manifest.body.get("spec"), prefix="spec")
    except InputError as error:
        raise ConfigurationError(f"{manifest.place}: {error}") from None


def _contents(spec: FallbackPolicySpec, *, manifests: _Manifests, chosen: _Manifest) -> dict[str, str]:
    """By tier, what stands in the ConfigMaps that the policy refers to."""
    contents: dict[str, str] = {}
    for tier, (path, reference, kind) in references_of(spec).items():
        found = manifests.config_maps.get((chosen.namespace, reference.name))
        if found is None:
            raise ConfigurationError(
                f"{chosen.place}: `{path}` names the ConfigMap `{reference.name}`, which no file has"
                f" in namespace `{chosen.namespace}`; give a file with it"
            )
        data = found.body.get("data")
        text = data.get(reference.key) if isinstance(data, dict) else None
        if not isinstance(text, str):
            raise ConfigurationError(
                f"{found.place}: `data` has no text under `{reference.key}`, which `{path}` names; correct one of them"
            )
        try:
            check_content(text, kind=kind)
        except ContentError as error:
            raise ConfigurationError(f"{found.place}: `data`, `{reference.key}`: {error}") from None
        contents[tier] = text
    return contents


def _keys(record: RevisionRecord, *, manifests: _Manifests) -> dict[str, str]:
    """What the chain refers to of the given Secrets, under the names a pod would have it by."""
    keys: dict[str, str] = {}
    for variable, reference in secrets_of_record(record).items():
        secret = manifests.secrets.get((record.namespace, reference.name))
        if secret is None:
            continue
        texts = _texts(secret, only=reference.key)
        if reference.key in texts:
            keys[variable] = texts[reference.key]
    return keys


def _callers(record: RevisionRecord, *, manifests: _Manifests) -> dict[str, str]:
    """By caller, the text of its keys; empty where the Secret is not given."""
    reference = record.access.callerKeysRef if record.access else None
    secret = manifests.secrets.get((record.namespace, reference.name)) if reference else None
    return {} if secret is None else _texts(secret)


def _texts(secret: _Manifest, *, only: str | None = None) -> dict[str, str]:
    """What a Secret holds, by key; `only`: of this key, if it is there."""
    texts: dict[str, str] = {}
    plain, encoded = secret.body.get("stringData") or {}, secret.body.get("data") or {}
    for key, value in (encoded if isinstance(encoded, dict) else {}).items():
        if isinstance(value, str) and only in (None, key):
            try:
                texts[key] = base64.b64decode(value, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                if not (isinstance(plain, dict) and key in plain):
                    raise ConfigurationError(f"{secret.place}: `data.{key}` is not base64 of text; use `stringData`") from None
    given = plain if isinstance(plain, dict) else {}
    return texts | {key: value for key, value in given.items() if isinstance(value, str) and only in (None, key)}


def _read_text(file: Path) -> str:
    try:
        return file.read_text()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: not a text file; give UTF-8 YAML") from None
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read ({error.strerror or type(error).__name__}); check the path") from None


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: " if mark is not None else ""


def _problem(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or "check its indentation and quotes")
