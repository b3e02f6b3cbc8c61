"""`backstop-operator let-go`: takes the operator's finalizer off every policy, once no operator is there to do it.

After an uninstall a policy in mid-rollout could not be deleted otherwise. Gateways serve on as they were told last.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from ..api.names import FINALIZER, OPERATOR_MANAGER
from ..kube.client import Client
from ..kube.errors import Conflict, NotFound
from ..kube.resources import POLICIES, Body

ATTEMPTS: Final = 10
PAUSE_SECONDS: Final = 0.5


async def let_go(client: Client, *, namespaces: Sequence[str]) -> int:
    """Let go of the policies in these namespaces; none named: in all. Returns how many there were. Raises KubeError."""
    released = 0
    for attempt in range(ATTEMPTS):
        held = await _held(client, namespaces=namespaces)
        contested: Conflict | None = None
        for policy in held:
            try:
                await _release(client, policy)
            except Conflict as error:
                contested = error
            else:
                released += 1
        if contested is None:
            break
        if attempt == ATTEMPTS - 1:
            raise contested
        await asyncio.sleep(PAUSE_SECONDS)
    return released


async def _held(client: Client, *, namespaces: Sequence[str]) -> list[Body]:
    found: list[Body] = []
    everywhere: Sequence[str | None] = [None]
    for namespace in namespaces or everywhere:
        try:
            found += (await client.list(POLICIES, namespace=namespace))[0]
        except NotFound:
            continue  # the definitions are gone, and with them all policies
    return [policy for policy in found if FINALIZER in policy["metadata"].get("finalizers", ())]


async def _release(client: Client, policy: Body) -> None:
    metadata = policy["metadata"]
    try:
        await client.patch_metadata(
            POLICIES,
            namespace=metadata["namespace"],
            name=metadata["name"],
            patch={"finalizers": [name for name in metadata["finalizers"] if name != FINALIZER]},
            resource_version=metadata["resourceVersion"],
            manager=OPERATOR_MANAGER,
        )
    except NotFound:
        return  # it has gone meanwhile
