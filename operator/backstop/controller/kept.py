"""The record of the last accepted revision, which outlives its policy: no owner holds it, it says itself when it was accepted.

Every other record goes with its policy. A kept record is everybody's who has the policy's name: it is known by its labels and by
`ACCEPTED_AT`. What was rolled back stands on it too, since a policy that is gone takes its status along.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..api.clock import parse_time, render_time
from ..api.names import ACCEPTED_AT, KEEP_UNTIL, RECORD_KEY, REJECTED, revision_object
from ..kube.errors import Conflict, NotFound
from ..kube.resources import CONFIG_MAPS, DEPLOYMENTS, Body
from ..rendering.owner import Owner, owner_references
from ..rollout.observed import Known
from ..rollout.place import Place, Rejection, Revision
from ..telemetry.log import fields
from .keys import PolicyKey
from .prompts import rejections_by
from .seen import Child, Declared
from .store import Store
from .wanted import Wish
from .writes import Writes

KEEP_SECONDS: Final = 24 * 3600.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Memory:
    """What is left of a former policy of this name."""

    accepted: Revision | None
    rejected: tuple[Rejection, ...]


NOTHING_KEPT: Final = Memory(None, ())


def is_of_revision(found: Child) -> bool:
    """Whether it is an object of one revision, by its name and labels."""
    return found.revision is not None and found.name == revision_object(found.policy, revision=found.revision)


def is_kept(found: Child) -> bool:
    """Whether it is a record that no policy owns, and the next policy of the name may use."""
    return found.resource is CONFIG_MAPS and found.owner is None and ACCEPTED_AT in found.annotations and is_of_revision(found)


def metadata_wanted(record: Child, *, place: Place, owner: Owner) -> Body:
    """What to change in the metadata of a record of a policy that lives; empty: nothing. A merge patch.

    While nothing is stable it is not known which one is the last accepted: what is kept stays as it is.
    """
    annotations: dict[str, Any] = {KEEP_UNTIL: None} if KEEP_UNTIL in record.annotations else {}
    stable = place.stable
    if stable is None:
        return {"annotations": annotations} if annotations else {}
    if record.revision != stable.revision.name:
        patch: Body = {} if record.owner == owner.uid else {"ownerReferences": owner_references(owner)}
        return patch | ({"annotations": annotations} if annotations else {})
    said = {ACCEPTED_AT: render_time(stable.since), REJECTED: rejections_text(place.rejected)}
    annotations |= {key: value for key, value in said.items() if record.annotations.get(key) != value}
    patch = {} if record.owner is None else {"ownerReferences": None}
    return patch | ({"annotations": annotations} if annotations else {})


def rejections_text(rejections: Sequence[Rejection]) -> str:
    """As they stand on a kept record: who, why and when; the whole evidence stays in status."""
    kept = [
        {
            "revision": r.revision.name,
            "promptVersion": r.revision.prompt_version,
            "promptDigest": r.revision.prompt_digest,
            "reason": r.reason,
            "at": render_time(r.at),
        }
        | ({"suspected": True} if r.suspected else {})
        for r in rejections
    ]
    return json.dumps(kept, separators=(",", ":"), ensure_ascii=False)


def _named(rejection: Mapping[str, Any]) -> str:
    """Of a verdict that outlived its status the revision alone is known."""
    name, revision = rejection["promptVersion"], rejection["revision"]
    return f"{name} ({revision})" if name else str(revision)


def rejections_in(text: str) -> tuple[Rejection, ...]:
    """The rejections on a kept record. Raises ValueError, KeyError or TypeError where somebody else has written there."""
    return tuple(
        Rejection(
            Revision(str(r["revision"]), prompt_version=str(r["promptVersion"]), prompt_digest=str(r["promptDigest"])),
            reason=str(r["reason"]),
            message=f"{_named(r)} was rolled back for {r['reason']} at {r['at']}",
            at=parse_time(r["at"]),
            suspected=r.get("suspected") is True,
        )
        for r in json.loads(text)
    )


def remembered_of(prompt: Declared | None, *, by: str, wish: Wish, place: Place) -> Memory:
    """What the wanted revision's prompt version says of it, where the policy of this name would roll it out: a place has one stable."""
    wanted = wish.revision.value if isinstance(wish.revision, Known) else None
    if prompt is None or wanted is None or place.stable is None or place.canary is not None:
        return NOTHING_KEPT
    if wanted.name == place.stable.revision.name or place.rejection_of(wanted.name) is not None:
        return NOTHING_KEPT
    return Memory(None, tuple(r for r in rejections_by(by, prompt=prompt) if r.revision.name == wanted.name))


class KeptRecords:
    """Reads kept records, and ends them when their time is over."""

    def __init__(self, writes: Writes, *, store: Store) -> None:
        self._writes = writes
        self._store = store

    async def memory(self, key: PolicyKey) -> Memory:
        """What is left of a former policy of this name: of its kept record, and of the PromptVersions that it rejected."""
        rejected = [r for prompt in self._store.prompts_in(key.namespace) for r in rejections_by(key.name, prompt=prompt)]
        record = max(self._kept(key), key=lambda c: c.annotations[ACCEPTED_AT], default=None)
        if record is None:
            return Memory(None, tuple(rejected))
        body = await self._writes.get(CONFIG_MAPS, namespace=key.namespace, name=record.name)
        if body is None:
            return Memory(None, tuple(rejected))
        try:
            contents = json.loads(body["data"][RECORD_KEY])
            accepted = Revision(
                str(contents["revision"]), prompt_version=str(contents["promptVersion"]), prompt_digest=str(contents["promptDigest"])
            )
            also = rejections_in(record.annotations.get(REJECTED, "[]"))
        except (ValueError, KeyError, TypeError) as error:
            told = fields(namespace=key.namespace, policy=key.name, record=record.name, error=repr(error))
            _log.warning("the record of the last accepted revision cannot be read, and is not used", extra=told)
            return Memory(None, tuple(rejected))
        known = {r.revision.name for r in rejected}
        both = [*rejected, *(r for r in also if r.revision.name not in known)]
        # What was accepted last was accepted after it was rejected: a person asked for it.
        return Memory(accepted, tuple(r for r in both if r.revision.name != accepted.name))

    async def outlive(self, key: PolicyKey, *, now: float) -> float | None:
        """The policy is gone: its kept records say until when they stay, and go then. Returns when to look again; None: when asked.

        Raises KubeError.
        """
        again = None
        for record in self._kept(key):
            if self._store.child(DEPLOYMENTS, namespace=key.namespace, name=record.name) is not None:
                continue  # its pods were left to run without their policy, and they need it; when they go, this is asked again
            until = _until(record)
            if until is None:
                until = now + KEEP_SECONDS
                try:
                    await self._writes.metadata(record, patch={"annotations": {KEEP_UNTIL: render_time(until)}})
                except (Conflict, NotFound):
                    await self._writes.refresh(CONFIG_MAPS, namespace=key.namespace, name=record.name, by=key)
                    raise
            elif until <= now:
                await self._writes.delete(record)
                continue
            again = until if again is None else min(again, until)
        return again

    def _kept(self, key: PolicyKey) -> list[Child]:
        return [c for c in self._store.children(key, resource=CONFIG_MAPS) if is_kept(c) and not c.deleting]


def _until(record: Child) -> float | None:
    """Until when it is kept; None where that is not said, or not in words that can be read."""
    try:
        return parse_time(record.annotations[KEEP_UNTIL])
    except (KeyError, ValueError):
        return None
