"""Which objects are a policy's own: those that it controls, and those that nobody controls and that say whose they are. Pure.

A namespace that was restored from a backup has lost its owner references, as has whatever a policy left behind that was deleted without
its children: what the policy writes anyway it takes back. What another owner controls is never the policy's.
"""

from .seen import Child


def is_ours(found: Child, *, owner: str, policy: str) -> bool:
    """Whether it belongs to the policy `policy` with the uid `owner`. By its labels only where nobody controls it."""
    return found.owner == owner or (found.owner is None and found.policy == policy)


def is_route_of(owner: str, *, policy: str, traffic: Child, runs: bool) -> bool:
    """Whether the traffic object is the policy's. One that nobody controls is only while the policy runs something (`runs`): what is left
    of a former policy that runs nothing any more says nothing of this one.
    """
    return traffic.owner == owner or (runs and is_ours(traffic, owner=owner, policy=policy))
