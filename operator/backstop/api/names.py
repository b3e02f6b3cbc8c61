"""Names that appear in a cluster: the API group, labels, annotations, field managers, and the names of a policy's children.

Knows how a name is spelled, never what is done with the object behind it.
"""

import hashlib
from typing import Final

GROUP: Final = "backstop.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

# Field managers: one per component, so that server-side apply can tell whose field it is.
OPERATOR_MANAGER: Final = "backstop-operator"
TRAFFIC_MANAGER: Final = "backstop-traffic"

LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_POLICY: Final = f"{GROUP}/policy"
LABEL_REVISION: Final = f"{GROUP}/revision"
LABEL_PROBE: Final = f"{GROUP}/probe"
# On a probe's Job: when the rollout began that it belongs to. Another try of the same revision runs its own.
ANNOTATION_ROLLOUT: Final = f"{GROUP}/rollout"
ANNOTATION_MARK: Final = f"{GROUP}/probe-mark"

# The longest value of a label, and so the longest name of a Job: its pods carry it.
LONGEST_LABEL: Final = 63

# What every child carries; also the selector of every secondary watch.
MANAGED_BY: Final = "backstop"
GATEWAY_COMPONENT: Final = "gateway"
WORKLOAD_COMPONENT: Final = "workload"
PROBE_COMPONENT: Final = "probe"

TRAFFIC_PORT: Final = 8080
METRICS_PORT: Final = 9090

# On a policy while a rollout of it runs: it is not gone before its gateways are seen to serve stable alone.
FINALIZER: Final = f"{GROUP}/rollout"

# On the record of a revision that was accepted, which outlives its policy: when, what was rolled back beside it, and, once the
# policy is gone, until when it is kept.
ACCEPTED_AT: Final = f"{GROUP}/accepted-at"
REJECTED: Final = f"{GROUP}/rejected"
KEEP_UNTIL: Final = f"{GROUP}/keep-until"

GATEWAY_CONTAINER: Final = "gateway"
WORKLOAD_CONTAINER: Final = "workload"
PROBE_CONTAINER: Final = "probe"
PIN_HEADER: Final = "x-backstop-pin"  # names the revision that alone may serve the request
REQUEST_KEY_VARIABLE: Final = "BACKSTOP_REQUEST_KEY"  # the caller's key that they carry
REQUEST_VARIABLE: Final = "BACKSTOP_REQUEST"  # of the process that sends requests to a canary: their body
SYNTHETIC_HEADER: Final = "x-backstop-synthetic"  # the same, through an entry, and only while that revision has a share
RECORD_KEY: Final = "revision.json"  # the gateway's configuration inside the revision record
TEMPLATE_KEY: Final = "deployment.json"  # the rendered pod template inside the revision record
RECORD_MOUNT: Final = "/etc/backstop"
CACHE_MOUNT: Final = "/var/cache/backstop"  # the volume of a cold cache
TICKETS_MOUNT: Final = "/var/lib/backstop"  # the volume of tickets that wait
CALLERS_MOUNT: Final = "/etc/backstop-callers"  # a file for each caller, with its keys


def revision_object(policy: str, *, revision: str) -> str:
    """Name of a revision's record (ConfigMap), Deployment and Service."""
    return f"{policy}-{revision}"


def probe_job(policy: str, *, revision: str, probe: str) -> str:
    """Name of a probe's Job; one that would be too long for a label ends in a hash of the whole."""
    whole = f"{policy}-{revision}-{probe}"
    if len(whole) <= LONGEST_LABEL:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{whole[: LONGEST_LABEL - 9].rstrip('-')}-{digest}"


def stable_service(policy: str) -> str:
    """The Service that selects the stable revision's pods."""
    return f"{policy}-stable"


def canary_service(policy: str) -> str:
    """The Service that selects the canary's pods."""
    return f"{policy}-canary"


def traffic_object(policy: str) -> str:
    """The ConfigMap that tells the gateways their shares."""
    return f"{policy}-traffic"


def report_object(policy: str, *, revision: str, decided: str) -> str:
    """Name of the RolloutReport of the rollout of `revision` that ended with the decision at `decided` (RFC 3339, milliseconds)."""
    digits = "".join(character for character in decided if character.isdigit())
    return f"{policy}-{revision}-{digits[:8]}-{digits[8:14]}-{digits[14:]}"


def callers_service(policy: str) -> str:
    """The Service that applications call."""
    return policy


def gateway_account(policy: str) -> str:
    """ServiceAccount, Role and RoleBinding of a policy's gateways."""
    return f"{policy}-gateway"


def revision_address(policy: str, *, revision: str, namespace: str) -> str:
    """`host:port` at which the pods of one revision take forwarded requests."""
    return f"{revision_object(policy, revision=revision)}.{namespace}.svc:{TRAFFIC_PORT}"


def api_key_variable(tier_position: int) -> str:
    """Environment variable that carries the API key of the tier at this position (0-based) of the chain."""
    return f"BACKSTOP_API_KEY_{tier_position}"


def header_variable(tier_position: int, *, header: int) -> str:
    """Environment variable that carries the value of a header (0-based) of the tier at this position (0-based) of the chain."""
    return f"BACKSTOP_HEADER_{tier_position}_{header}"


def redis_address_variable(tier_position: int) -> str:
    """Environment variable that carries the address of the Redis of the cache tier at this position (0-based) of the chain."""
    return f"BACKSTOP_REDIS_ADDRESS_{tier_position}"


def webhook_secret_variable(tier_position: int) -> str:
    """Environment variable that carries what the tickets of the human tier at this position (0-based) of the chain are signed with."""
    return f"BACKSTOP_WEBHOOK_SECRET_{tier_position}"


def scorer_key_variable(position: int) -> str:
    """Environment variable that carries the key of the scorer at this position (0-based) of the policy's scorers."""
    return f"BACKSTOP_SCORER_KEY_{position}"


FEEDBACK_KEY_VARIABLE: Final = "BACKSTOP_FEEDBACK_KEY"  # the keys that answers' ids are signed with
