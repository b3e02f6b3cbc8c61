"""The traffic object of a policy: reading its state, and writing it only over the version that was read.

A stale writer gets a Conflict and has to look again; it can undo nothing.
"""

from collections.abc import Mapping

from ..api.names import TRAFFIC_MANAGER
from ..api.traffic import TrafficError, TrafficState, parse
from ..kube.client import Client
from ..kube.resources import CONFIG_MAPS, Body
from ..rollout.observed import Known, Unknown


def observe_shares(data: Mapping[str, str] | None) -> Known[TrafficState | None] | Unknown:
    """The state in the object's `data`; None: there is no object."""
    if data is None:
        return Known(None)
    try:
        return Known(parse(data))
    except TrafficError as error:
        return Unknown(str(error))


async def set_shares(client: Client, *, body: Body, over: str | None) -> Body:
    """Write the rendered traffic object over the version `over`; None: it must not exist yet. Conflict if that is not so."""
    if over is None:
        return await client.create(CONFIG_MAPS, body=body, manager=TRAFFIC_MANAGER)
    versioned = body | {"metadata": body["metadata"] | {"resourceVersion": over}}
    return await client.replace(CONFIG_MAPS, body=versioned, manager=TRAFFIC_MANAGER)
