"""A policy's children: what should exist, what does, and the writes between the two. An idle policy costs none.

A child is compared with what was rendered: by the hash that the write left in an annotation, and by what the object says now. A
Deployment's template is not kept in memory: it is compared again, against the record, when the Deployment has another generation
than the one that was last found right. An object that something else controls is never written.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from ..api.gatewayvariable import GatewayVariable
from ..api.names import GROUP, LABEL_POLICY, OPERATOR_MANAGER, revision_object
from ..api.reasons import Reason
from ..api.record import canonical
from ..kube.errors import Conflict, NotFound, Rejected, Unavailable
from ..kube.resources import AUTOSCALERS, CONFIG_MAPS, DEPLOYMENTS, DISRUPTION_BUDGETS, SERVICES, Body, Resource, resource_of
from ..rendering.owner import Owner
from ..rendering.revision import deployment, record_object, revision_service, template_of
from ..rendering.scaling import autoscaler, disruption_budget
from ..rendering.services import caller_services, role_services
from ..rendering.shared import account
from ..rollout.observed import Known
from .belonging import is_ours
from .compare import covers
from .kept import is_of_revision, metadata_wanted
from .keys import PolicyKey
from .seen import Child, DeploymentSeen, Seen, child
from .store import Store, newest_first
from .subject import Problem, Subject, not_ours, refusal
from .wanted import Wish
from .writes import Writes

APPLIED: Final = f"{GROUP}/applied"


class _Blocked(Exception):  # noqa: N818 - carried to the end of the pass, where it is told
    """A child cannot be written."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Children:
    """Writes the children of policies. `image`: of gateways whose policy names none; `pull_secrets`: names of Secrets for pulling it;
    `variables`: of gateways, those that their policy does not set.
    """

    def __init__(
        self, writes: Writes, *, store: Store, image: str, pull_secrets: Sequence[str], variables: Sequence[GatewayVariable] = ()
    ) -> None:
        self._writes = writes
        self._store = store
        self._image = image
        self._pull_secrets = pull_secrets
        self._variables = variables
        # The generation at which each Deployment was last found right, by uid; per policy, to be forgotten with it.
        self._right: dict[PolicyKey, dict[str, int]] = {}

    def learn(self, live: Body, *, rendered: Body) -> None:
        """A Deployment's pods are as they were rendered: if it was written from that, it need not be compared again."""
        metadata = live["metadata"]
        if (metadata.get("annotations") or {}).get(APPLIED) == stamp_of(rendered):
            key = PolicyKey(metadata["namespace"], metadata["labels"][LABEL_POLICY])
            self._right.setdefault(key, {})[metadata["uid"]] = metadata.get("generation", 0)

    def forget(self, key: PolicyKey) -> None:
        """The policy is gone."""
        self._right.pop(key, None)

    def record_body(self, owner: Owner, *, wish: Wish) -> Body:
        """The record of the revision that is asked for, which must be known, with its texts. Raises RevisionTooLarge."""
        return record_object(
            owner,
            policy=wish.spec,
            prompt=wish.prompt,
            refresh=wish.refresh,
            contents=wish.texts,
            image=self._image,
            pull_secrets=self._pull_secrets,
            variables=self._variables,
        )

    async def revisions(self, subject: Subject) -> Problem | None:
        """What the pods of every live revision need. Returns the first problem; the others are written nevertheless."""
        if not subject.plan.sizes:
            return None
        # Pods that are not gateways ask the API server nothing.
        problem = await self._all(subject, account(_owner(subject)) if subject.wish.spec.serving.workload is None else ())
        for revision, replicas in sorted(subject.plan.sizes.items()):
            try:
                await self._revision(subject, revision, replicas=replicas)
            except _Blocked as blocked:
                problem = problem or blocked.problem
        return problem

    async def callers(self, subject: Subject) -> Problem | None:
        """The Services that applications, routers and people call."""
        plan, owner = subject.plan, _owner(subject)
        if plan.serving is None:
            return None
        if subject.wish.spec.serving.workload is None:
            return await self._all(subject, caller_services(owner, serving=plan.serving, canary=plan.canary))
        # The one that callers use is the route, and written with it alone.
        return await self._all(subject, role_services(owner, serving=plan.serving, canary=plan.canary))

    async def release(self, subject: Subject) -> Problem | None:
        """Take the autoscaler away where none is asked for any more: before the size that is declared is written.

        Not while it cannot be told what serves.
        """
        if subject.plan.autoscaled is not None or subject.plan.serving is None:
            return None
        return await self._delete(self._mine(subject, resource=AUTOSCALERS))

    async def autoscale(self, subject: Subject) -> Problem | None:
        """Let the autoscaler scale the revision that serves: after that has the size of the one before."""
        plan, owner = subject.plan, _owner(subject)
        if plan.autoscaled is None:
            return None
        return await self._all(
            subject, [autoscaler(owner, serving=subject.wish.spec.serving, revision=plan.autoscaled, may_shrink=plan.may_shrink)]
        )

    async def records(self, subject: Subject) -> Problem | None:
        """See to it that the record of what was accepted last outlives the policy, and that others go with it. Returns the first problem.

        The one that is to stay first: a death in between leaves one too many, never none.
        """
        place, owner, problem = subject.plan.place, _owner(subject), None
        stable = place.stable.revision.name if place.stable is not None else None
        records = [c for c in self._mine(subject, resource=CONFIG_MAPS) if is_of_revision(c)]
        for record in sorted(records, key=lambda c: (c.revision != stable, c.name)):
            if not (patch := metadata_wanted(record, place=place, owner=owner)):
                continue
            try:
                await self._writes.metadata(record, patch=patch)
            except (Conflict, NotFound):
                await self._writes.refresh(CONFIG_MAPS, namespace=record.namespace, name=record.name, by=subject.key)
                raise
            except Rejected as refused:
                problem = problem or refusal(CONFIG_MAPS, name=record.name, why=refused)
        return problem

    async def clear_away(self, subject: Subject) -> Problem | None:
        """Delete what revisions that are not live need no more, and the oldest records. Returns the first problem.

        Only beside a stable revision: without one it cannot be told what serves.
        """
        if subject.plan.place.stable is None:
            return None
        live = subject.plan.sizes
        deployments = [d for d in self._mine(subject, resource=DEPLOYMENTS) if d.revision not in live]
        services = [s for s in self._mine(subject, resource=SERVICES) if s.revision not in live and is_of_revision(s)]
        budgets = [b for b in self._mine(subject, resource=DISRUPTION_BUDGETS) if b.revision not in live]
        kept = {subject.wish.revision.value.name} if isinstance(subject.wish.revision, Known) else set()
        if subject.plan.place.previous is not None:
            kept.add(subject.plan.place.previous.revision.name)  # its pods may be gone, and wanted again
        records = [c for c in self._mine(subject, resource=CONFIG_MAPS) if is_of_revision(c) and c.revision not in {*live, *kept}]
        old = newest_first(records)[subject.wish.spec.rollback.revisionHistoryLimit :]
        return await self._delete([*deployments, *services, *budgets, *old])

    async def _delete(self, children: Iterable[Child]) -> Problem | None:
        problem = None
        for gone in children:
            try:
                await self._writes.delete(gone)
            except Rejected as refused:
                problem = problem or refusal(gone.resource, name=gone.name, why=refused)
        return problem

    async def _revision(self, subject: Subject, revision: str, *, replicas: int) -> None:
        """What one revision needs. The record first: a Deployment is made from it, once and for all."""
        key, owner = subject.key, _owner(subject)
        known = await self._known(subject, DEPLOYMENTS, name=revision_object(key.name, revision=revision))
        if known is None and replicas == 0:
            return
        record = await self._record(subject, revision)
        right = self._right.setdefault(key, {})
        if known is None or known.owner is None or right.get(known.uid) != _generation(known):
            known = await self._deployment(subject, revision, replicas=replicas, record=record)
            right[known.uid] = _generation(known)
        await self._size(subject, known, replicas=replicas)
        await self._ensure(subject, revision_service(owner, revision=revision))
        await self._ensure(subject, disruption_budget(owner, revision=revision))

    async def _deployment(self, subject: Subject, revision: str, *, replicas: int, record: Body | None) -> Child:
        """See to it that the Deployment is as its record says; a new one begins with so many replicas."""
        name = revision_object(subject.key.name, revision=revision)
        record = record or await self._read(CONFIG_MAPS, key=subject.key, name=name)
        if record is None:
            raise _Blocked(_record_missing(name))
        body = deployment(_owner(subject), revision=revision, template=template_of(record))
        known = await self._known(subject, DEPLOYMENTS, name=name)
        if known is None and (live := await self._read(DEPLOYMENTS, key=subject.key, name=name)) is not None:
            known = self._take_if_ours(subject, live)
        if known is None:
            whole = stamped(body) | {"spec": body["spec"] | {"replicas": replicas}}
            return child(await self._create(whole), resource=DEPLOYMENTS)
        return await self._ensure(subject, body, compare_live=True)

    async def _size(self, subject: Subject, known: Child, *, replicas: int) -> None:
        """The number of pods, where nobody else sets it. An autoscaler leaves alone what has no pods at all."""
        if not isinstance(known, DeploymentSeen) or known.deleting or known.replicas == replicas:
            return
        if known.revision == subject.plan.autoscaled and known.replicas > 0:
            return
        try:
            written = await self._writes.scale(known, replicas=replicas)
        except Rejected as refused:
            raise _Blocked(refusal(DEPLOYMENTS, name=known.name, why=refused)) from None
        # One generation more is this write; more than that is somebody else's too, and is compared again.
        if _generation(written) == known.generation + 1:
            self._right[subject.key][known.uid] = known.generation + 1

    async def _record(self, subject: Subject, revision: str) -> Body | None:
        """See to it that the record exists; returns it if it was just written."""
        key, wish = subject.key, subject.wish
        name = revision_object(key.name, revision=revision)
        if await self._known(subject, CONFIG_MAPS, name=name) is not None:
            return None
        found = await self._read(CONFIG_MAPS, key=key, name=name)
        if found is not None:
            self._take_if_ours(subject, found)
            return found
        if not isinstance(wish.revision, Known) or wish.revision.value.name != revision:
            raise _Blocked(_record_missing(name))
        if wish.texts.keys() != wish.digests.keys():
            # It was there when this pass began: the next one reads what it is written of.
            raise Unavailable(f"ConfigMap `{name}`, the record of a revision, has just gone")
        return await self._create(self.record_body(_owner(subject), wish=wish))

    async def _all(self, subject: Subject, bodies: Iterable[Body]) -> Problem | None:
        problem = None
        for body in bodies:
            try:
                await self._ensure(subject, body)
            except _Blocked as blocked:
                problem = problem or blocked.problem
        return problem

    async def _ensure(self, subject: Subject, body: Body, *, compare_live: bool = False) -> Child:
        """See to it that the child is as rendered. `compare_live`: what the store keeps of it is not enough to tell."""
        resource, name = resource_of(body), body["metadata"]["name"]
        stamp = stamp_of(body)
        known = await self._known(subject, resource, name=name)
        live: Body | None = None
        if known is None or compare_live:
            live = await self._read(resource, key=subject.key, name=name)
            taken = self._take_if_ours(subject, live) if live is not None else None
            if taken is not None and known is not None and live is not None:
                known = taken
                if known.deleting or (_is_written(known, stamp=stamp) and covers(live["spec"], wanted=body["spec"])):
                    return known
        elif known.deleting or (_is_written(known, stamp=stamp) and covers(known.content, wanted=_kept(body, of=known))):
            return known
        wanted = stamped(body)
        if known is not None:
            wanted["metadata"]["uid"] = known.uid
        if live is not None and _sizes_by_apply(live):
            wanted["spec"] = wanted["spec"] | {"replicas": live["spec"]["replicas"]}
        try:
            return child(await self._writes.apply(resource, body=wanted), resource=resource)
        except Rejected as refused:
            raise _Blocked(refusal(resource, name=name, why=refused)) from None

    async def _create(self, body: Body) -> Body:
        resource, name = resource_of(body), body["metadata"]["name"]
        try:
            return await self._writes.create(resource, body=body)
        except Rejected as refused:
            raise _Blocked(refusal(resource, name=name, why=refused)) from None

    async def _read(self, resource: Resource, *, key: PolicyKey, name: str) -> Body | None:
        return await self._writes.get(resource, namespace=key.namespace, name=name)

    async def _known(self, subject: Subject, resource: Resource, *, name: str) -> Child | None:
        namespace = subject.key.namespace
        known = self._store.child(resource, namespace=namespace, name=name)
        if known is None or _is_ours(subject, known):
            return known
        # Not everything is watched: it may have gone with a former policy.
        await self._writes.refresh(resource, namespace=namespace, name=name, by=subject.key)
        known = self._store.child(resource, namespace=namespace, name=name)
        if known is not None:
            _demand_ours(subject, known)
        return known

    def _take_if_ours(self, subject: Subject, body: Body) -> Child:
        resource = resource_of(body)
        found = child(body, resource=resource)
        _demand_ours(subject, found)
        self._writes.take(body, resource=resource)
        return found

    def _mine(self, subject: Subject, *, resource: Resource) -> list[Child]:
        """What may be deleted: of what nobody controls only what has a name that the policy gives."""
        mine = [c for c in self._store.children(subject.key, resource=resource) if _is_ours(subject, c) and not c.deleting]
        return [c for c in mine if c.owner is not None or is_of_revision(c)]


def stamp_of(body: Body) -> str:
    """Tells one rendered body from another."""
    return hashlib.sha256(canonical(body)).hexdigest()[:16]


def stamped(body: Body) -> Body:
    """The body as it is written: with its stamp, by which it is known again."""
    return body | {"metadata": body["metadata"] | {"annotations": body["metadata"].get("annotations", {}) | {APPLIED: stamp_of(body)}}}


def _sizes_by_apply(live: Body) -> bool:
    """Whether its number of pods was applied, by an earlier operator: one that is applied no more falls back to 1."""
    return any(
        entry.get("manager") == OPERATOR_MANAGER
        and entry.get("operation") == "Apply"
        and "f:replicas" in entry["fieldsV1"].get("f:spec", {})
        for entry in live["metadata"].get("managedFields") or ()
    )


def _is_written(known: Child, *, stamp: str) -> bool:
    """Whether it was last written from the body with this stamp, and has its owner still."""
    return known.owner is not None and known.annotations.get(APPLIED) == stamp


def _generation(of: Seen) -> int:
    return of.generation if isinstance(of, DeploymentSeen) else 0


def _owner(subject: Subject) -> Owner:
    return Owner(subject.key.namespace, subject.key.name, subject.policy.uid)


def _is_ours(subject: Subject, found: Child) -> bool:
    return is_ours(found, owner=subject.policy.uid, policy=subject.key.name)


def _demand_ours(subject: Subject, found: Child) -> None:
    """Raises _Blocked for an object of something else; Unavailable while one is left of a former policy of this name."""
    if _is_ours(subject, found):
        return
    if found.owning_policy == subject.key.name:
        raise Unavailable(f"{found.resource.kind} `{found.name}` is still there of the former policy of this name, and goes with it")
    raise _Blocked(not_ours(found.resource, name=found.name))


def _kept(body: Body, *, of: Child) -> Body:
    """The part of a rendered body that the store keeps of the live object."""
    return {key: body[key] for key in of.content if key in body}


def _record_missing(name: str) -> Problem:
    message = f"ConfigMap `{name}`, the record of a live revision, is gone; its pods run on, but cannot be made anew"
    return Problem(Reason.RECORD_MISSING, message)
