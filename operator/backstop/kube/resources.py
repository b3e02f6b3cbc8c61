"""Which resources the operator speaks of, and where they live in the API. Knows paths, nothing of contents."""

from dataclasses import dataclass
from typing import Any, Final

from ..api.names import GROUP, VERSION

# An object of the API as JSON gives it.
Body = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """One kind. `group` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """As in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, *, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of the collection, of one object, or of its subresource."""
        parts = ["/apis/" + self.group if self.group else "/api", self.version]
        if namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


POLICIES: Final = Resource(GROUP, VERSION, "fallbackpolicies", "FallbackPolicy")
PROMPT_VERSIONS: Final = Resource(GROUP, VERSION, "promptversions", "PromptVersion")
REPORTS: Final = Resource(GROUP, VERSION, "rolloutreports", "RolloutReport")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
SERVICES: Final = Resource("", "v1", "services", "Service")
PODS: Final = Resource("", "v1", "pods", "Pod")
SERVICE_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
ROLES: Final = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS: Final = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
AUTOSCALERS: Final = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
DISRUPTION_BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
JOBS: Final = Resource("batch", "v1", "jobs", "Job")
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")

# What a policy's children are.
CHILDREN: Final = (CONFIG_MAPS, SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS, DEPLOYMENTS, SERVICES, JOBS, AUTOSCALERS, DISRUPTION_BUDGETS)


def resource_of(body: Body) -> Resource:
    """The resource of a child's body; raises KeyError for any other kind."""
    return {(r.api_version, r.kind): r for r in CHILDREN}[body["apiVersion"], body["kind"]]
