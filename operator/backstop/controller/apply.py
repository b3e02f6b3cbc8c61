"""Carrying out a plan, in the one order that is safe to be cut short anywhere.

1. A route that takes traffic from the revision under judgement, with the verdict in it. 2. Status. 3. The verdict on the prompt
version. 4. Children, the finalizer while a canary lives, every other route change, the Services that callers reach; the
finalizer goes when all is taken back; the report. 5. Events, log, metrics. Of a policy that is being deleted nothing is made any more.
What was not done is done by the next pass, which finds the cluster as it is. `place` is 1 and 2, `cluster` the rest; `give_up` is 3 and the
finalizer alone, of a policy that is being deleted while 1 is refused.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..api.names import FINALIZER
from ..api.policystatus import FallbackPolicyStatus, Phase
from ..api.reasons import Reason, reason_of
from ..kube.errors import Conflict, NotFound, Rejected
from ..kube.resources import POLICIES, PROMPT_VERSIONS
from ..rendering.owner import Owner
from ..rollout.observed import Foreign
from ..rollout.place import Halt, Place, Revision, is_another_end
from ..rollout.plan import Announcement
from ..rollout.route import says_another
from ..rollout.statusmap import status_of
from ..rollout.verdict import verdict_on_prompt
from ..telemetry.log import fields
from ..telemetry.metrics import Metrics
from ..traffic.router import router_of
from .blocked import with_problem
from .changes import changes_told
from .children import Children
from .keys import PolicyKey, PromptKey
from .probes import Probes
from .prompts import digest_of, rejected_status, withdrawn_status
from .repairs import Repairs
from .reporting import Reports
from .seen import Declared
from .shown import phase_in
from .store import Store
from .subject import Problem, Subject, not_ours, refusal
from .telling import Telling
from .writes import Writes

_log = logging.getLogger(__name__)


class Overtaken(Exception):  # noqa: N818 - it is no error: the next look is made with what the other one wrote
    """Somebody else wrote first: look again, at once. `falling`: traffic has to leave the canary, so before all others."""

    def __init__(self, *, falling: bool = False) -> None:
        super().__init__("another writer was first")
        self.falling = falling


class Apply:
    """Plans → writes."""

    def __init__(
        self,
        writes: Writes,
        *,
        store: Store,
        children: Children,
        probes: Probes,
        reports: Reports,
        telling: Telling,
        metrics: Metrics,
        repairs: Repairs,
    ) -> None:
        self._writes = writes
        self._store = store
        self._children = children
        self._probes = probes
        self._reports = reports
        self._telling = telling
        self._metrics = metrics
        self._repairs = repairs

    async def ahead(self, subject: Subject) -> None:
        """Write the route, if it falls, and nothing else: a pass that is cut short there is finished by the next look. Raises Overtaken.

        What is refused is met again by `place`, and told then.
        """
        if subject.plan.route is not None and subject.plan.route.falling:
            await self._route(subject)

    async def place(self, subject: Subject, *, known: Problem | None, analysis: str | None, on_fall: Callable[[], None]) -> Problem | None:
        """Write the place. `known`: the problem that status tells of already. `on_fall`: called when the route has fallen, before
        status tells of it. Raises Overtaken.

        Returns the problem where traffic could not be taken from the canary: then the place is still the one that was observed.
        """
        route = subject.plan.route
        if route is not None and route.falling:
            if (refused := await self._route(subject)) is not None:
                before = phase_in(subject.status, otherwise=subject.plan.phase)
                await self._write_status(subject, status=subject.status, problem=refused, served=True)
                if refused != known:
                    await self._say(subject, Announcement(refused.reason, refused.message), place=subject.observed.place, phase=before)
                return refused
            on_fall()
        status = status_of(
            subject.plan,
            previous=subject.status,
            generation=subject.policy.generation,
            readings=subject.observed.readings,
            analysis=analysis,
            arms=subject.observed.arms,
            now=subject.now,
        )
        await self._write_status(subject, status=status, problem=known)
        return None

    async def cluster(self, subject: Subject, *, known: Problem | None) -> Problem | None:
        """Make the cluster follow the place that was written. Returns the first problem there is now. Raises Overtaken."""
        route = subject.plan.route
        problem = known
        leaving = subject.policy.deleting
        try:
            problem = await self._verdict(subject)
            if not leaving:
                problem = await self._children.release(subject) or problem
                problem = await self._children.revisions(subject) or problem
            unheld = await self._hold_on(subject)
            problem = unheld or problem
            # Also where nothing is to be written: what has its name is in the way of the next write.
            foreign = _foreign(subject)
            problem = foreign or problem
            if route is not None and not route.falling and unheld is None and foreign is None:
                problem = await self._route(subject) or problem
            problem = await self._children.records(subject) or problem
            if not leaving:
                problem = await self._children.callers(subject) or problem
                problem = await self._children.autoscale(subject) or problem
                problem = await self._children.clear_away(subject) or problem
            problem = await self._probes.run(subject) or problem
            problem = await self._let_go(subject) or problem
            if not leaving and (unreported := await self._reports.write(subject)) is not None:
                await self._announce(subject, unreported)
        finally:
            last = subject.plan.place.last
            if last is not None and is_another_end(last, before=subject.observed.place.last):
                self._metrics.rollouts.labels(last.outcome, reason_of(last.reason)).inc()
            # What status says has happened, whatever became of the rest: the next pass has nothing left to tell.
            moves = subject.plan.announcements
            changes = changes_told(subject.status.conditions, after=subject.plan.conditions, problem=known, moves=moves)
            for announcement in (*moves, *changes):
                await self._announce(subject, announcement)
            if problem is not None and problem != known:
                await self._announce(subject, Announcement(problem.reason, problem.message))
        return problem

    async def _hold_on(self, subject: Subject) -> Problem | None:
        """The finalizer, before the canary's first weight. Returns why it could not be put on: then no weight may rise."""
        policy = self._current(subject.policy)
        if not subject.plan.finalizer or policy.deleting or FINALIZER in policy.finalizers:
            return None
        return await self._finalizers(policy, finalizers=(*policy.finalizers, FINALIZER))

    async def _let_go(self, subject: Subject) -> Problem | None:
        """No finalizer on a policy without a rollout. After all that takes something back: with it, a deleted policy is gone."""
        return None if subject.plan.finalizer else await self.release(subject.policy)

    async def give_up(self, subject: Subject) -> Problem | None:
        """Let a deleted policy go whose traffic could not be taken back. What was found of its canary outlives it. Raises Overtaken."""
        unwritten = await self._verdict(subject)
        try:
            unwritten = await self._children.records(subject) or unwritten
        except (Conflict, NotFound):
            raise Overtaken from None
        return await self.release(subject.policy) or unwritten

    async def release(self, policy: Declared) -> Problem | None:
        """Take off the finalizer; no write if it is not there. Raises Overtaken."""
        policy = self._current(policy)
        if FINALIZER not in policy.finalizers:
            return None
        return await self._finalizers(policy, finalizers=tuple(name for name in policy.finalizers if name != FINALIZER))

    def _current(self, policy: Declared) -> Declared:
        """The policy with what this pass has written of it. Raises Overtaken if it is gone, or another one by now."""
        current = self._store.policy(PolicyKey(policy.namespace, policy.name))
        if current is None or current.uid != policy.uid:
            raise Overtaken
        return current

    async def _finalizers(self, policy: Declared, *, finalizers: tuple[str, ...]) -> Problem | None:
        try:
            await self._writes.finalizers(policy, finalizers=finalizers)
        except (Conflict, NotFound):
            await self._writes.refresh(POLICIES, namespace=policy.namespace, name=policy.name, by=PolicyKey(policy.namespace, policy.name))
            raise Overtaken from None
        except Rejected as error:
            return refusal(POLICIES, name=policy.name, why=error)
        return None

    async def _route(self, subject: Subject) -> Problem | None:
        assert subject.plan.route is not None
        # Over what the decision was made from, not over what has come in since.
        key, seen, router = subject.key, subject.traffic, router_of(subject.wish.spec)
        name = router.name(key.name)
        if (foreign := _foreign(subject)) is not None:
            return foreign
        body = router.render(Owner(key.namespace, key.name, subject.policy.uid), state=subject.plan.route.state)
        try:
            await self._writes.route(router, body=body, over=seen, falling=subject.plan.route.falling)
        except (Conflict, NotFound):
            await self._writes.refresh(router.resource, namespace=key.namespace, name=name, by=key)
            raise Overtaken(falling=subject.plan.route.falling) from None
        except Rejected as error:
            refused = refusal(router.resource, name=name, why=error)
            return replace(refused, message=f"{refused.message}; callers are served with the weights from before")
        if subject.observed.strays and not says_another(subject.plan.route, than=subject.observed.route):
            self._put_right(subject)
        return None

    def _put_right(self, subject: Subject) -> None:
        """The route was written again with the same words."""
        key = subject.key
        if (waited := self._repairs.made(key, now=subject.now)) > 0:
            what = f"{router_of(subject.wish.spec).resource.kind} of its route"
            _log.warning(f"somebody keeps changing the {what}", extra=fields(namespace=key.namespace, policy=key.name, waited=waited))

    async def _write_status(self, subject: Subject, *, status: FallbackPolicyStatus, problem: Problem | None, served: bool = False) -> None:
        policy = subject.policy
        conditions = with_problem(
            status.conditions,
            problem=problem,
            previous=subject.status.conditions,
            generation=policy.generation,
            now=subject.now,
            served=served,
        )
        status = status.model_copy(update={"conditions": conditions})
        try:
            await self._writes.status(policy, status=status.model_dump(mode="json", exclude_none=True))
        except (Conflict, NotFound):
            await self._writes.refresh(POLICIES, namespace=policy.namespace, name=policy.name, by=PolicyKey(policy.namespace, policy.name))
            raise Overtaken from None

    async def _verdict(self, subject: Subject) -> Problem | None:
        """The last rollout's verdict on its prompt version, or that it was withdrawn: from the place, so that a restart finishes it."""
        place = subject.plan.place
        problem = None
        if (verdict := verdict_on_prompt(place)) is not None:
            prompt = self._prompt(subject, verdict.revision)
            if prompt is not None:
                status = rejected_status(prompt, policy=subject.key.name, verdict=verdict, now=subject.now)
                problem = await self._write_prompt(prompt, status=status, subject=subject)
        tried = place.canary.revision if place.canary is not None and place.canary.halted is None else None
        # A stable revision is not rejected: a person has made it the first one nevertheless.
        revision = tried or (place.stable.revision if place.stable is not None else None)
        if revision is not None:
            prompt = self._prompt(subject, revision)
            if prompt is not None:
                status = withdrawn_status(prompt, policy=subject.key.name, revision=revision.name, now=subject.now)
                problem = await self._write_prompt(prompt, status=status, subject=subject) or problem
        return problem

    def _prompt(self, subject: Subject, revision: Revision) -> Declared | None:
        """The prompt version of a revision, if it still is the one that the revision was made of."""
        if not revision.prompt_digest:
            return None
        prompt = self._store.prompt(PromptKey(subject.key.namespace, revision.prompt_version))
        return prompt if prompt is not None and digest_of(prompt) == revision.prompt_digest else None

    async def _write_prompt(self, prompt: Declared, *, status: dict[str, Any], subject: Subject) -> Problem | None:
        try:
            written = await self._writes.status(prompt, status=status)
        except (Conflict, NotFound):
            await self._writes.refresh(PROMPT_VERSIONS, namespace=prompt.namespace, name=prompt.name, by=subject.key)
            raise Overtaken from None
        except Rejected as error:
            return refusal(PROMPT_VERSIONS, name=prompt.name, why=error)
        if written:
            await self._telling.tell_of_prompt(prompt, before=prompt.status, after=status, now=subject.now)
        return None

    async def _announce(self, subject: Subject, announcement: Announcement) -> None:
        place = subject.plan.place
        if announcement.reason is Reason.TRAFFIC_SHIFTED and (took := _shift(place, before=subject.observed.place)) is not None:
            self._metrics.shift.observe(max(0.0, took))
        await self._say(subject, announcement, place=place, phase=subject.plan.phase)

    async def _say(self, subject: Subject, announcement: Announcement, *, place: Place, phase: Phase) -> None:
        """Tell it, beside where the policy is."""
        weight, owner = place.canary.given if place.canary else 0, subject.wish.spec.owner
        await self._telling.tell(subject.policy, announcement, owner=owner, phase=phase, weight=weight, now=subject.now)


def _foreign(subject: Subject) -> Problem | None:
    """That something else has the name of the policy's route."""
    if not isinstance(subject.observed.route, Foreign):
        return None
    router = router_of(subject.wish.spec)
    return not_ours(router.resource, name=router.name(subject.key.name))


def _shift(place: Place, *, before: Place) -> float | None:
    """Seconds from a decision, to end a rollout or to halt it, until every gateway was seen to act on it; where that was just seen."""
    halt, known = _halt_of(place), _halt_of(before)
    if halt is not None and halt.shifted_at is not None and (known is None or known.shifted_at is None):
        return halt.shifted_at - halt.at
    last = place.last
    if last is None or last.shifted_at is None or (before.last is not None and before.last.shifted_at is not None):
        return None
    return last.shifted_at - last.detected_at


def _halt_of(place: Place) -> Halt | None:
    return place.canary.halted if place.canary is not None else None
