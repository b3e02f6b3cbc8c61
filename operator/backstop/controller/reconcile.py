"""One pass: look at the store, decide, apply. Knows the order of things in a pass; what is decided and how it is written is elsewhere."""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from ..api.clock import parse_time
from ..api.fallbackpolicy import FallbackPolicySpec
from ..api.names import FINALIZER, revision_object
from ..api.policystatus import FallbackPolicyStatus, Phase
from ..api.problems import InputError, parse_strictly
from ..api.reasons import Reason
from ..api.record import Reference, references_of
from ..kube.errors import Conflict, KubeError, NotFound
from ..kube.resources import CONFIG_MAPS, POLICIES, PROMPT_VERSIONS
from ..rendering.owner import Owner
from ..rendering.revision import RevisionTooLarge
from ..rollout.decide import decide
from ..rollout.judged import WATCH_SHIFT_SECONDS, same_subject
from ..rollout.observed import Foreign, Known, Unknown, Unresolved
from ..rollout.place import Place, awaited_generation, is_losing
from ..rollout.statusmap import place_of
from ..telemetry.log import fields
from ..telemetry.metrics import Metrics
from ..traffic.router import router_of
from .apply import Apply, Overtaken
from .blocked import blocked_states, blocked_status, problem_in
from .changes import changes_told
from .children import Children
from .contents import NOT_READ, Content, Contents, Found, MapKey
from .judging import Judging, readings_for, requests_of
from .kept import NOTHING_KEPT, KeptRecords, Memory, remembered_of
from .keys import Key, PolicyKey, PromptKey
from .observe import observe
from .probes import Probes, ProbesSeen
from .prompts import is_unreadable, judged_status
from .queue import KeyQueue
from .references import MapName, maps_of
from .repairs import Repairs
from .reporting import Reports
from .seen import Declared
from .shown import phase_in, shown_of
from .store import Store
from .subject import Problem, Subject, refused_deployments
from .telling import Telling
from .unseen import Unseen
from .uses import changed_uses
from .verification import Verification
from .wanted import Wish, conflict_of, unambiguous, wish_of, without_content, without_spec
from .writes import Writes
from .written import conditions_in, read_policy

_log = logging.getLogger(__name__)

# After this much of a deletion the policy goes, whatever could not be written: longer than its shift is watched for.
LONGEST_LEAVE_SECONDS: Final = WATCH_SHIFT_SECONDS + 30.0
# So often in a row the last writes of a deleted policy are tried: whoever writes without end leaves a gap between two writes.
LETTING_GO_TRIES: Final = 10
# A prompt version hears this late of whom it is used by, so that many policies that move at once cost it one write.
USES_PAUSE_SECONDS: Final = 0.5


class Reconcile:
    """Passes over keys."""

    def __init__(
        self,
        *,
        store: Store,
        queue: KeyQueue[Key],
        writes: Writes,
        apply: Apply,
        children: Children,
        contents: Contents,
        probes: Probes,
        kept: KeptRecords,
        reports: Reports,
        telling: Telling,
        judging: Judging,
        verification: Verification,
        metrics: Metrics,
        repairs: Repairs,
        doubt: Callable[[], None],
        sources: frozenset[str],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._queue = queue
        self._writes = writes
        self._apply = apply
        self._children = children
        self._contents = contents
        self._probes = probes
        self._kept = kept
        self._reports = reports
        self._telling = telling
        self._judging = judging
        self._verification = verification
        self._metrics = metrics
        self._sources = sources
        self._clock = clock
        self._repairs = repairs
        self._doubt = doubt
        self._unseen = Unseen(store=store, writes=writes, queue=queue, clock=clock)
        self._problems: dict[PolicyKey, Problem | None] = {}
        # Each policy as it was when its spec was last valid: nothing of it is kept in memory that the store does not keep.
        self._valid: dict[PolicyKey, Declared] = {}

    async def __call__(self, key: Key) -> bool:
        """One pass. Returns whether it shall be repeated after a pause. Raises KubeError, Overtaken."""
        match key:
            case PolicyKey():
                return await self._policy(key)
            case PromptKey():
                return await self._prompt(key)

    async def _prompt(self, key: PromptKey) -> bool:
        prompt = self._store.prompt(key)
        if prompt is None or prompt.deleting:
            return False
        now = self._clock()
        status = judged_status(prompt, older=self._store.older(prompt), users=self._store.users(key), now=now)
        try:
            written = await self._writes.status(prompt, status=status)
        except (Conflict, NotFound):
            await self._writes.refresh(PROMPT_VERSIONS, namespace=key.namespace, name=key.name, by=key)
            raise Overtaken from None
        if is_unreadable(status):
            self._doubt()
        if written:
            await self._telling.tell_of_prompt(prompt, before=prompt.status, after=status, now=now)
        return False

    async def _policy(self, key: PolicyKey) -> bool:
        policy = self._store.policy(key)
        if policy is None:
            await self._gone(key)
            return False
        if policy.deleting and FINALIZER not in policy.finalizers:
            self._forget(key)
            return False
        read = read_policy(policy)
        if isinstance(read, Unresolved):
            if not policy.deleting:
                await self._block(policy, status=None, why=read)
                return False
            read = FallbackPolicyStatus(), Place()  # as one that was lost: which revision is stable, the route says
        status, place = read
        named = policy.spec.get("promptVersion")
        prompt = self._store.prompt(PromptKey(key.namespace, named)) if isinstance(named, str) else None
        references = _references(policy)
        contents = self._contents.look(references, by=key)
        wish = self._wish(policy, prompt=prompt, place=place, contents=contents or dict.fromkeys(references, NOT_READ))
        if isinstance(wish, Unresolved):
            if not policy.deleting:
                await self._block(policy, status=status, why=wish)
                return False
            wish = without_spec(policy, why=wish)
        fitting = self._fitting(policy, wish=wish) if contents is not None else None
        missing = self._unseen.missing(policy, wish=wish)
        # Before anything is read or written, for either may hang: after a restart nothing is judged yet.
        self._judging.watch(key, spec=wish.spec, place=place, analysis=self._analysis(key, status=status))
        try:
            if fitting is None or missing is not None or place.stable is None or self._probes.must_read(key, probed=place.probed):
                # Reading may take long, and what takes traffic away does not wait for it. The decision is made again with what was read.
                await self._apply.ahead(self._look(policy, wish=wish, status=status, place=place, memory=NOTHING_KEPT, probes={}))
            if fitting is None:
                return True
            wish = fitting
            if missing is not None and await self._unseen.look(missing, key=key):
                self._queue.add(key)
                return False
            probes = await self._probes.look(key, owner=policy.uid, probed=place.probed)
            memory = await self._kept.memory(key) if place.stable is None else remembered_of(prompt, by=key.name, wish=wish, place=place)
            subject = self._look(policy, wish=wish, status=status, place=place, memory=memory, probes=probes)
            return await self._decide(subject) or wish.unread
        except (KubeError, Overtaken) as error:
            if not self._is_overdue(policy):
                raise
            told = fields(namespace=key.namespace, policy=key.name, error=str(error))
            _log.warning("the policy is let go though its rollout could not be ended", extra=told)
            return await self._at_last(lambda: self._apply.release(policy)) is not None

    async def _gone(self, key: PolicyKey) -> None:
        self._forget(key)
        if (again := await self._kept.outlive(key, now=self._clock())) is not None:
            self._queue.add_at(key, at=again)

    async def _at_last(self, write: Callable[[], Awaitable[Problem | None]]) -> Problem | None:
        """What a deleted policy waits for, though somebody keeps writing: over what each refused attempt has read. Raises Overtaken."""
        for _ in range(LETTING_GO_TRIES - 1):
            with contextlib.suppress(Overtaken):
                return await write()
        return await write()

    def _is_overdue(self, policy: Declared) -> bool:
        """Whether a deletion has waited for as long as it may for writes that fail."""
        return policy.deleted_at is not None and self._clock() - parse_time(policy.deleted_at) >= LONGEST_LEAVE_SECONDS

    def _wish(self, policy: Declared, *, prompt: Declared | None, place: Place, contents: Mapping[MapKey, Content]) -> Wish | Unresolved:
        """What the policy asks for; Unresolved where its spec is not valid, and never was."""
        key = PolicyKey(policy.namespace, policy.name)
        wish = wish_of(policy, prompt=prompt, sources=self._sources, refresh=place.acknowledged.refresh or "", contents=contents)
        if isinstance(wish, Unresolved):
            self._doubt()
        if isinstance(wish, Wish):
            self._valid[key] = policy
        elif (valid := self._valid.get(key)) is None:
            return wish
        else:
            # A canary that runs is judged by the last spec that was valid, and goes no further.
            last = wish_of(valid, prompt=None, sources=self._sources)
            assert isinstance(last, Wish), "it was valid, whatever else has gone"
            wish = replace(last, revision=wish, prompt=None)
        if prompt is None:
            return wish
        conflict = conflict_of(prompt, older=self._store.older(prompt))
        return unambiguous(wish, conflict=conflict, stable=place.stable.revision.name if place.stable else None)

    def _is_recorded(self, policy: Declared, *, wish: Wish) -> bool:
        if not isinstance(wish.revision, Known):
            return False
        name = revision_object(policy.name, revision=wish.revision.value.name)
        return self._store.child(CONFIG_MAPS, namespace=policy.namespace, name=name) is not None

    def _with_texts(self, policy: Declared, *, wish: Wish) -> Wish | None:
        """The wish with what its revision is recorded with; None while that is read. Raises Overtaken where it has become another."""
        references, texts = references_of(wish.spec), dict[str, str]()
        where = {tier: _place_of(reference, namespace=policy.namespace) for tier, reference in references.items()}
        found = self._contents.texts(list(where.values()), by=PolicyKey(policy.namespace, policy.name))
        if found is None:
            return None
        for tier, reference in references.items():
            content, texts[tier] = found[where[tier]]
            if not isinstance(content, Found):
                return without_content(wish.spec, reference=reference, content=content, namespace=policy.namespace)
            if content.digest != wish.digests[tier]:
                raise Overtaken
        return replace(wish, texts=texts)

    def _fitting(self, policy: Declared, *, wish: Wish) -> Wish | None:
        """The wish, unless its revision is too large to be recorded; asked only while there is no record. None while its texts are read."""
        if not isinstance(wish.revision, Known) or self._is_recorded(policy, wish=wish):
            return wish
        written = self._with_texts(policy, wish=wish)
        if written is None or not isinstance(written.revision, Known):
            return written
        wish = written
        try:
            self._children.record_body(Owner(policy.namespace, policy.name, policy.uid), wish=wish)
        except RevisionTooLarge as error:
            return replace(wish, revision=Unresolved(Reason.REVISION_TOO_LARGE, str(error)))
        return wish

    def _look(
        self, policy: Declared, *, wish: Wish, status: FallbackPolicyStatus, place: Place, memory: Memory, probes: ProbesSeen
    ) -> Subject:
        key = PolicyKey(policy.namespace, policy.name)
        known = self._problems[key] if key in self._problems else problem_in(status)
        live = [r.revision.name for r in (place.canary, place.stable, place.previous) if r is not None]
        live += [wish.revision.value.name] if isinstance(wish.revision, Known) else []
        now, judgement = self._clock(), self._judging.judgement(key)
        router = router_of(wish.spec)
        traffic = self._store.child(router.resource, namespace=key.namespace, name=router.name(key.name))
        observed = observe(
            place=place,
            wanted=wish.revision,
            traffic=traffic,
            router=router,
            owner=policy.uid,
            policy=policy.name,
            deployments=self._store.deployments(key),
            pods=self._store.pods(key),
            acting=self._verification.acting(key),
            acting_since=self._verification.acting_since(key),
            readings=readings_for(place, spec=wish.spec, judgement=judgement, sources=self._sources),
            annotations=policy.annotations,
            probes=probes,
            leaving=policy.deleting,
            memory=memory,
            requests=requests_of(place.canary, judgement=judgement),
            reporting=self._reports.reporting(key, status=status),
            refused=refused_deployments(known, policy=key.name, revisions=live),
        )
        if observed.strays and (due := self._repairs.due_at(key, now=now)) > now:
            self._queue.add_at(key, at=due)
            observed = replace(observed, strays=False)
        plan = decide(observed, policy=wish.spec, now=now)
        return Subject(key=key, policy=policy, wish=wish, status=status, observed=observed, plan=plan, now=now, traffic=traffic)

    async def _decide(self, subject: Subject) -> bool:
        key, plan = subject.key, subject.plan
        if _rests_on_route(subject) and await self._unseen.route_moved(subject.policy, wish=subject.wish, seen=subject.traffic):
            raise Overtaken
        analysis = self._analysis(key, status=subject.status)
        if not same_subject(subject.observed.place, plan.place):
            analysis = None
        # Until this process has tried for itself, what status says is what is known.
        known = self._problems[key] if key in self._problems else problem_in(subject.status)
        # Gateways act on a route before status tells of it, and are seen to.
        problem = await self._apply.place(subject, known=known, analysis=analysis, on_fall=lambda: self._ask(subject, place=plan.place))
        for prompt in changed_uses(subject.policy, after=self._store.policy(key)):
            self._queue.add_at(prompt, at=subject.now + USES_PAUSE_SECONDS)
        # From here on the place is what it is, whatever becomes of the rest of this pass: it is judged, and gateways are asked.
        place = plan.place if problem is None else subject.observed.place
        self._judging.watch(key, spec=subject.wish.spec, place=place, analysis=analysis)
        self._ask(subject, place=place)
        phase = plan.phase if problem is None else phase_in(subject.status, otherwise=plan.phase)
        self._metrics.show_policy(key.namespace, key.name, shown=shown_of(place, phase=phase, chain=subject.wish.spec.chain))
        if problem is None:
            problem = await self._apply.cluster(subject, known=known)
        elif subject.policy.deleting:
            # What is refused now is refused again: gateways whose canary goes serve its requests themselves.
            problem = await self._at_last(lambda: self._apply.give_up(subject))
        self._problems[key] = problem
        # What is refused comes again after a pause. That is no reason for what has moved, or is timed, to wait.
        if plan.wake_at is not None and (problem is None or place != subject.observed.place or plan.wake_at > subject.now):
            self._queue.add_at(key, at=plan.wake_at)
        # Where a pass did not get as far as the report, its time may be over already.
        if problem is None and not subject.policy.deleting and (again := self._reports.again_at(key)) is not None:
            self._queue.add_at(key, at=again)
        # A problem that comes or goes is said at once; one in other words, or in the place of another, with the next attempt: the pauses
        # between attempts grow, whatever their answers say.
        if (problem is None) != (known is None) or self._reports.reporting(key, status=subject.status) != subject.observed.reporting:
            self._queue.add(key)
        return problem is not None

    def _ask(self, subject: Subject, *, place: Place) -> None:
        route, by_endpoints = subject.observed.route, subject.wish.spec.serving.workload is not None
        awaits = awaited_generation(place) is not None
        # What an operator wrote last before it died is known to gateways alone where the route cannot be read.
        unread = isinstance(route, Unknown) and not isinstance(route, Foreign) and not by_endpoints
        self._verification.keep_asking(
            subject.key,
            waiting=awaits or unread,
            falling=awaits and is_losing(place),
            by_endpoints=by_endpoints,
            decided=place.generation,
        )

    def _analysis(self, key: PolicyKey, *, status: FallbackPolicyStatus) -> str | None:
        """The packed state of the tests, as it is now, or as it was last written."""
        judgement = self._judging.judgement(key)
        return judgement.analysis if judgement is not None and judgement.analysis is not None else status.analysis

    async def _block(self, policy: Declared, *, status: FallbackPolicyStatus | None, why: Unresolved) -> None:
        """Nothing can be decided: say so, and leave the rest of the status (None: unreadable) and the traffic as they are."""
        after = blocked_status(status or FallbackPolicyStatus(), why=why, generation=policy.generation, now=self._clock())
        place = place_of(after) if status is not None else Place()
        self._metrics.show_policy(policy.namespace, policy.name, shown=shown_of(place, phase=Phase.BLOCKED))
        document = after.model_dump(mode="json", exclude_none=True)
        try:
            await self._writes.status(policy, status=document if status is not None else {**policy.status, **document})
        except (Conflict, NotFound):
            await self._writes.refresh(POLICIES, namespace=policy.namespace, name=policy.name, by=PolicyKey(policy.namespace, policy.name))
            raise Overtaken from None
        weight = place.canary.given if place.canary is not None else 0
        for change in changes_told(conditions_in(policy), after=blocked_states(why), problem=None):
            await self._telling.tell(policy, change, owner=None, phase=Phase.BLOCKED, weight=weight, now=self._clock())

    def _forget(self, key: PolicyKey) -> None:
        self._problems.pop(key, None)
        self._valid.pop(key, None)
        self._unseen.forget(key)
        self._contents.forget(key)
        self._repairs.forget(key)
        self._children.forget(key)
        self._reports.forget(key)
        self._judging.forget(key)
        self._verification.keep_asking(key, waiting=False)
        self._metrics.forget_policy(key.namespace, key.name)
        self._queue.agenda.forget(key)


def _rests_on_route(subject: Subject) -> bool:
    """Whether no write is refused where the route is another by now. Without a status it alone says what serves, also while that has no
    ready pod: Services follow it, and pods. What something else controls is not written, and a policy that is being deleted does not wait.
    """
    observed = subject.observed
    if observed.place.stable is None:
        return subject.traffic is not None or subject.plan.place.stable is not None
    return isinstance(observed.route, Foreign)


def _references(policy: Declared) -> list[MapKey]:
    """The ConfigMaps that the policy refers to, and where in them; nothing where its spec is not valid."""
    if not maps_of(policy):
        return []
    try:
        references = references_of(parse_strictly(FallbackPolicySpec, policy.spec, prefix="spec"))
    except InputError:
        return []  # as is told of it elsewhere
    return [_place_of(reference, namespace=policy.namespace) for reference in references.values()]


def _place_of(reference: Reference, *, namespace: str) -> MapKey:
    return MapKey(MapName(namespace, reference.key.name), reference.key.key, reference.kind)
