"""The objects of one revision: its record, and the Deployment and Service made from that record."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..api.fallbackpolicy import FallbackPolicySpec
from ..api.gatewayvariable import GatewayVariable
from ..api.names import RECORD_KEY, TEMPLATE_KEY, revision_object
from ..api.promptversion import PromptVersionSpec
from ..api.record import RevisionRecord, WorkloadRecord, build_record, build_workload_record
from .owner import Body, Owner, metadata, pod_selector
from .pod import render_template
from .services import service
from .workload import render_workload

# An API server takes objects of up to 1 MiB, metadata and managed fields included.
MOST_BYTES: Final = 900 * 1024


class RevisionTooLarge(ValueError):  # noqa: N818 - named like the reason it is reported under
    """The record does not fit into a ConfigMap; the text is one sentence for the policy's author."""


def record_object(
    owner: Owner,
    *,
    policy: FallbackPolicySpec,
    prompt: PromptVersionSpec | None,
    refresh: str = "",
    contents: Mapping[str, str] | None = None,
    image: str,
    pull_secrets: Sequence[str],
    variables: Sequence[GatewayVariable] = (),
) -> Body:
    """The immutable record of the revision that `policy` with `prompt` asks for: ConfigMap with the gateways' configuration and their
    pod template. `prompt`: None for a workload of its author's own. `image`: of gateways whose policy names none. `pull_secrets`: names
    of Secrets in the policy's namespace, for pulling images. `variables`: of gateways, those that the policy does not set. `refresh`: as
    of `revision_hash`; `contents`: the texts of what it refers to, called as `references_of` does. Raises RevisionTooLarge.
    """
    record: RevisionRecord | WorkloadRecord
    if prompt is None:
        record = build_workload_record(namespace=owner.namespace, name=owner.name, policy=policy, refresh=refresh)
        template = render_workload(record, serving=policy.serving, pull_secrets=pull_secrets)
    else:
        record = build_record(namespace=owner.namespace, name=owner.name, policy=policy, prompt=prompt, refresh=refresh, contents=contents)
        template = render_template(
            record, image=policy.serving.image or image, serving=policy.serving, pull_secrets=pull_secrets, variables=variables
        )
    contents = {RECORD_KEY: _readable(record_contents(record)), TEMPLATE_KEY: _readable(template)}
    size = sum(len(text.encode()) for text in contents.values())
    if size > MOST_BYTES:
        shorten = (
            "`spec.messages` of the PromptVersion, or what `spec.chain` and `spec.quality` hold or refer to"
            if prompt
            else "`spec.serving.workload`"
        )
        what = f"PromptVersion `{policy.promptVersion}`" if prompt else record.promptVersion
        raise RevisionTooLarge(
            f"the revision of {what} takes {-(-size // 1024)} KiB, of which {MOST_BYTES // 1024} KiB fit into a ConfigMap; "
            f"shorten {shorten}"
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(owner, name=revision_object(owner.name, revision=record.revision), revision=record.revision),
        "immutable": True,
        "data": contents,
    }


def record_contents(record: RevisionRecord | WorkloadRecord) -> Body:
    """The record as JSON. Defaults are left out: a gateway older than a defaulted field still reads it."""
    contents: Body = record.model_dump(mode="json", exclude_defaults=True)
    return contents | {"scheme": record.scheme}


def template_of(record: Body) -> Body:
    """The pod template that a record's ConfigMap keeps. Raises KeyError or ValueError where it keeps none."""
    template: Body = json.loads(record["data"][TEMPLATE_KEY])
    return template


def deployment(owner: Owner, *, revision: str, template: Body) -> Body:
    """The gateways of one revision; `template` is the record's own, never one that is rendered anew. How many they are is no part of it."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(owner, name=revision_object(owner.name, revision=revision), revision=revision),
        "spec": {
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": pod_selector(owner.name, revision=revision)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    }


def revision_service(owner: Owner, *, revision: str) -> Body:
    """The address at which gateways of other revisions forward to this one."""
    return service(
        owner,
        name=revision_object(owner.name, revision=revision),
        selector=pod_selector(owner.name, revision=revision),
        revision=revision,
    )


def _readable(value: Any) -> str:
    # With line breaks, so that `kubectl get configmap -o yaml` can be read.
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
