"""Invariants of the engine under any order of events, with crashes between any two writes.

Over 400 lines, because each machine adds its rules to those of the first one, and all of them are held to the same invariants.
"""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backstop.analysis.reading import Breaching, Waiting
from backstop.api.reasons import Reason
from backstop.rollout.decide import decide
from backstop.rollout.observed import Arm, Known, ProbeState, Unresolved
from backstop.rollout.place import awaited_generation
from backstop.rollout.route import share_of
from tests.rollout.kstatus import agree_with_kstatus
from tests.rollout.witness import WatchedWorld
from tests.rollout.world import BREACHED, HEALTHY, START, UNSEEN, World, policy, reading

STEPS = (50, 500, 1000)
GUARD = 90
AT_ONCE = 1000  # pods in a moment
STARVED, BREACHING = reading(Waiting(more=7)), reading(Breaching(since=START))
MISSING = Unresolved(Reason.PROMPT_VERSION_NOT_FOUND, "`spec.promptVersion` names `v9`, which does not exist; create it")
THOROUGH = settings.get_current_profile_name() == "found"


def returns_at_once(world: World) -> bool:
    """Whether a breach of stable, as its next look finds it, leads back: it is watched, and what served before it has a ready pod."""
    place = world.place
    guard, previous = place.guard, place.previous
    watched = (
        not world.deleting
        and place.canary is None
        and guard is not None
        and guard.suspect is None
        and not guard.by_hand
        and guard.returning is None
    )
    return watched and previous is not None and world.observe().arm(previous.revision.name).ready > 0


class Rollouts(RuleBasedStateMachine):
    """A policy that lives through everything at once."""

    steps = 0  # of all runs of the class

    def __init__(self) -> None:
        super().__init__()
        self.world = WatchedWorld(policy=policy(steps=((5, 20), (50, 20), (100, 20)), replicas=4, deadline=60, guard=GUARD))
        self.seen = 0
        self.rejected: set[str] = set()
        self.withdrawn: dict[str, int] = {}  # as in `World`, of all looks

    @rule(version=st.sampled_from("1234"))
    def the_spec_names(self, version: str) -> None:
        self.world.want(version)

    @rule()
    def the_spec_names_what_is_not_there(self) -> None:
        self.world.wanted = MISSING

    @rule()
    def the_policy_is_deleted(self) -> None:
        """One that nothing holds is gone at once, with its traffic object."""
        if self.world.exists and not self.world.finalizer:
            self._lose_what_only_the_route_says()
            self._lose_what_only_status_says()
        self.world.delete()

    @precondition(lambda self: not self.world.exists)
    @rule(expired=st.booleans())
    def a_policy_of_its_name_is_created(self, expired: bool) -> None:
        if expired:
            self.world.kept = None
            # What was only suspected stands on no prompt version.
            self.rejected = {verdict.revision.name for verdict in self.world.verdicts}
        self.world.create_anew()

    @rule(seconds=st.sampled_from((0.2, 1.0, 5.0, 21.0, 61.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.now = round(self.world.now + seconds, 3)

    @rule()
    def the_cluster_settles(self) -> None:
        self.world.settle()

    @rule(judged=st.sampled_from((HEALTHY, HEALTHY, BREACHED, UNSEEN, None)))
    def metrics_say(self, judged) -> None:  # type: ignore[no-untyped-def]
        self.world.judged = judged

    def _nothing_is_wrong(self) -> None:
        self.world.judged, self.world.deaf, self.world.unread, self.world.pace = HEALTHY, False, False, AT_ONCE
        self.world.broken.clear()

    @rule()
    def pods_take_their_time_or_not(self) -> None:
        self.world.pace = 0 if self.world.pace else AT_ONCE

    @precondition(lambda self: self.world.place.canary is not None and self.world.place.canary.weight > 0)
    @rule(judged=st.sampled_from((HEALTHY, UNSEEN, STARVED, BREACHING, None)))
    def metrics_change_while_pods_come_up(self, judged) -> None:  # type: ignore[no-untyped-def]
        """3: what is found meanwhile is found of the step that holds."""
        self._nothing_is_wrong()
        self.world.pace = 0
        self.world.run(24, tick=3)
        self.world.judged = judged
        self.world.run(6, tick=3)
        self.world.pace = AT_ONCE
        self.world.run(9, tick=3)

    @rule(version=st.sampled_from("234"))
    def pods_break(self, version: str) -> None:
        self.world.broken ^= {f"rev{version}"}

    @precondition(lambda self: self.world.place.canary is not None and self.world.place.canary.revision.name in self.world.arms)
    @rule()
    def a_container_crashes(self) -> None:
        canary = self.world.place.canary
        assert canary is not None
        self.world.crash(canary.revision.prompt_version)

    @rule()
    def gateways_turn_deaf_or_hear_again(self) -> None:
        self.world.deaf = not self.world.deaf

    @precondition(lambda self: self.world.exists)
    @rule(writes=st.integers(0, 8))
    def a_pass_dies_after(self, writes: int) -> None:
        self.world.one_pass(stop_after=writes)

    @precondition(lambda self: self.world.exists)
    @rule()
    def a_pass(self) -> None:
        observed = self.world.observe()
        plan = self.world.one_pass()
        types = [condition.type for condition in plan.conditions]
        assert len(types) == len(set(types))
        agree_with_kstatus(plan)
        awaited = awaited_generation(self.world.place)
        if awaited is not None and self.world.exists and not self.world.unread:
            assert self.world.route is not None
            assert awaited <= self.world.route.generation, "what is waited for was written"
        # 5: the same look gives the same plan.
        assert plan == decide(observed, policy=self.world.policy, now=self.world.now)

    @precondition(lambda self: self.world.exists and self.world.place.canary is None)
    @rule(version=st.sampled_from("234"), seconds=st.sampled_from((9, 36, 66, 96)))
    def a_rollout_gets_as_far_as(self, version: str, seconds: int) -> None:
        """Its first step, or as many as fit into the time."""
        self.world.want(version)
        self._nothing_is_wrong()
        self.world.run(seconds, tick=3)

    @precondition(lambda self: self.world.exists and self.world.route is not None)
    @rule()
    def the_traffic_object_cannot_be_read_or_can_again(self) -> None:
        """A second after the last write at least: generations that begin anew are seconds."""
        self._lose_what_only_the_route_says()
        self.world.unread = not self.world.unread
        self.world.now = round(self.world.now + 1, 3)

    def _lose_what_only_the_route_says(self) -> None:
        """The verdict of an operator that died before it wrote status."""
        aborted = self.world.route.aborted if self.world.route is not None else None
        if aborted is not None and self.world.place.rejection_of(aborted.revision) is None:
            self.rejected -= {aborted.revision} - {verdict.revision.name for verdict in self.world.verdicts}

    def _lose_what_only_status_says(self) -> None:
        """The same of one that died right after it: what outlives a policy is written behind status."""
        _, beside = self.world.kept or (None, ())
        outlive = {r.revision.name for r in beside} | {verdict.revision.name for verdict in self.world.verdicts}
        self.rejected -= {r.revision.name for r in self.world.place.rejected} - outlive

    @rule()
    def several_seconds_of_life(self) -> None:
        self.world.run(30, tick=3)

    @precondition(lambda self: self.world.place.canary is not None and self.world.place.canary.weight > 0)
    @rule()
    def a_breach_leaves_within_one_pass(self) -> None:
        """4: after a breach the share is 0 within one applied pass."""
        judged, self.world.judged = self.world.judged, BREACHED
        canary = self.world.place.canary
        assert canary is not None
        stays = self.world.has_nobody_else(self.world.place, arms=self.world.arms)
        self.world.one_pass()
        self.world.judged = judged
        if not self.world.exists or stays:
            return
        assert self.world.route is not None
        assert share_of(canary.revision.name, state=self.world.route) == 0

    @precondition(lambda self: self.world.place.canary is not None and self.world.place.canary.weight > 0)
    @rule()
    def the_operator_dies_right_after_the_route_write_of_an_abort(self) -> None:
        """7: whoever comes next knows what was decided, though status does not."""
        judged = self.world.judged
        canary = self.world.place.canary
        assert canary is not None
        self._breaches(canary.revision.name, writes=1)
        self.world.judged = judged

    def _breaches(self, name: str, *, writes: int | None) -> None:
        """In a pass that dies after so many writes: what has lost its traffic was rejected, whatever status says."""
        self.world.judged = BREACHED
        before = self.world.route
        self.world.one_pass(stop_after=writes)
        after = self.world.route
        if before is not None and after is not None and not self.world.unread:
            self.rejected |= {name} if share_of(name, state=after) < share_of(name, state=before) else set()

    @precondition(lambda self: self.world.exists and self.world.place.stable is not None)
    @rule(version=st.sampled_from("234"), podless=st.booleans(), dies=st.booleans())
    def a_stable_that_is_watched_breaches(self, version: str, podless: bool, dies: bool) -> None:
        """7, 12: `podless`: what served before it has no pod; `dies`: the operator does, after its first write."""
        self._nothing_is_wrong()
        self.world.want(version)
        self.world.run(90, tick=3)
        previous = self.world.place.previous
        if previous is None or not self.world.exists:
            return
        if podless:
            self.world.broken.add(previous.revision.name)
            self.world.settle()
        assert self.world.place.stable is not None
        self._breaches(self.world.place.stable.revision.name, writes=1 if dies else None)
        self.world.judged = HEALTHY
        self.world.run(6, tick=3)

    @precondition(lambda self: returns_at_once(self.world))
    @rule()
    def a_breach_of_a_watched_stable_goes_back_within_one_pass(self) -> None:
        """4, 12: to the revision before it, which has a ready pod."""
        judged, self.world.judged = self.world.judged, BREACHED
        place = self.world.place
        assert place.stable is not None
        assert place.previous is not None
        self.world.one_pass()
        self.world.judged = judged
        assert self.world.route is not None
        assert share_of(place.stable.revision.name, state=self.world.route) == 0
        assert self.world.route.stable == place.previous.revision.name

    @precondition(lambda self: returns_at_once(self.world))
    @rule()
    def the_operator_dies_right_after_the_route_write_of_a_way_back(self) -> None:
        judged, self.world.judged = self.world.judged, BREACHED
        self.world.one_pass(stop_after=1)
        self.world.judged = judged

    @precondition(lambda self: self.world.place.canary is not None and self.world.place.canary.weight > 0)
    @rule()
    def all_pods_of_the_canary_go(self) -> None:
        """2: never a weight without a ready pod. Where pods make the shares and stable has none either, whichever has one first serves."""
        canary, stable = self.world.place.canary, self.world.place.stable
        assert canary is not None
        assert stable is not None
        name = canary.revision.name
        before = share_of(name, state=self.world.route) if self.world.route is not None else 0
        stable_is_without = self.world.policy.serving.workload is not None and self.world.arms[stable.revision.name].ready == 0
        self.world.arms[name] = replace(self.world.arms[name], ready=0)
        self.world.one_pass()
        assert self.world.exists
        assert self.world.route is not None
        assert share_of(name, state=self.world.route) in ((0, before) if stable_is_without else (0,))

    @invariant()
    def steps_are_counted(self) -> None:
        type(self).steps += 1

    @invariant()
    def the_share_moves_along_the_steps_or_to_0(self) -> None:
        """1: no share that is not a step's."""
        for _, _, _, permille in self.world.shares[self.seen :]:
            assert permille in (0, *STEPS)
        self.seen = len(self.world.shares)

    @invariant()
    def no_rejected_revision_has_traffic(self) -> None:
        """7, 10: a revision that status or the traffic object rejected never gets traffic again."""
        route, rejected = self.world.route, {rejection.revision.name for rejection in self.world.place.rejected}
        self.rejected |= rejected
        if self.world.place.incident is not None:  # the verdict is withdrawn
            self.rejected.discard(self.world.place.incident.revision.name)
        # As is that of an incident which has come and gone since the last look.
        withdrawn = {name: generation for name, generation in self.world.withdrawn.items() if name not in rejected}
        self.rejected -= withdrawn.keys()
        self.withdrawn |= withdrawn
        self.world.withdrawn.clear()
        if route is not None and route.aborted is not None and not self.world.unread:
            name = route.aborted.revision
            if route.generation > self.withdrawn.get(name, 0):  # until then it is the one that status has withdrawn
                self.rejected.add(name)
        if route is not None:
            for name in self.rejected:
                assert share_of(name, state=route) == 0, f"{name} was rejected and has traffic"

    @invariant()
    def the_stable_revision_always_has_its_pods(self) -> None:
        """12: whoever the traffic object calls stable is at full size."""
        place = self.world.place
        if place.stable is not None and place.canary is not None and place.canary.routed_at is not None:
            assert self.world.arms[place.stable.revision.name].desired == self.world.policy.serving.replicas

    @invariant()
    def no_canary_has_traffic_without_the_finalizer(self) -> None:
        """A policy cannot go while its canary is served."""
        if self.world.route is not None and self.world.route.permille > 0:
            assert self.world.finalizer

    @invariant()
    def a_policy_that_is_gone_left_its_gateways_with_stable_alone(self) -> None:
        if self.world.left is not None:
            acted, watched_for = self.world.left
            assert acted is None or acted.permille == 0 or watched_for >= 60

    def teardown(self) -> None:
        """8: left alone with healthy metrics, it comes to rest: the wanted revision is stable, or rejected; and then nothing is written."""
        self._nothing_is_wrong()
        if self.world.wanted is MISSING:
            self.world.want("1")
        self.world.run(1200, tick=5)  # a comparison may be open for ten minutes
        if not self.world.exists:
            self.world.create_anew()
            self.world.run(1200, tick=5)
        wanted = self.world.wanted
        assert isinstance(wanted, Known)
        place = self.world.place
        assert place.canary is None
        assert not self.world.finalizer
        if place.stable is None:
            # Nothing is left of what was accepted before: a person is asked.
            assert place.rejection_of(wanted.value.name) is not None
            assert (self.world.route, self.world.serving) == (None, None)
            return
        assert place.stable is not None
        if place.rejection_of(wanted.value.name) is None and place.incident is None:
            assert place.stable.revision == wanted.value
        before = list(self.world.shares)
        self.world.run(300, tick=30)
        assert self.world.shares == before


class RolloutsByHand(Rollouts):
    """The same, with people who pause, approve, abort, retry, promote and skip at any moment."""

    steps = 0

    @initialize(mode=st.sampled_from(("Automatic", "Pause")), approval=st.sampled_from(((), (5,), (50, 100))))
    def the_policy_is(self, mode: str, approval: tuple[int, ...]) -> None:
        steps = ((5, 20), (50, 20), (100, 20))
        self.calm = policy(steps=steps, replicas=4, deadline=60, guard=GUARD)
        self.world.policy = policy(steps=steps, replicas=4, deadline=60, mode=mode, approval=approval, guard=GUARD)
        self.asked = 0
        self.overridden = False

    @rule(token=st.sampled_from(("approve", "promote", "abort", "retry", "skip_step")))
    def somebody_asks(self, token: str) -> None:
        self.asked += 1
        self.overridden |= token in ("retry", "promote")
        self.world.ask(**{token: str(self.asked)})

    @rule()
    def somebody_pauses_or_goes_on(self) -> None:
        spec = self.world.policy
        self.world.policy = spec.model_copy(update={"canary": spec.canary.model_copy(update={"paused": not spec.canary.paused})})

    @invariant()
    def no_rejected_revision_has_traffic(self) -> None:
        """10: what is rejected now has none; only a retry or promote token ends a rejection."""
        route, place = self.world.route, self.world.place
        if route is not None:
            said = {route.aborted.revision} if route.aborted is not None and not self.world.unread else set()
            for name in {rejection.revision.name for rejection in place.rejected} | said:
                assert share_of(name, state=route) == 0, f"{name} is rejected and has traffic"

    @precondition(lambda self: not self.overridden)
    @invariant()
    def nobody_asked_for_a_rejected_revision(self) -> None:
        """10: without a token, once rejected is rejected for ever."""
        Rollouts.no_rejected_revision_has_traffic(self)

    def teardown(self) -> None:
        """8: left alone, and with nobody to wait for, it comes to rest."""
        self.world.policy = self.calm
        if self.world.exists:
            self.world.ask(retry="last")
        super().teardown()


class RolloutsWithProbes(RolloutsByHand):
    """The same, with probes that pass, fail, hang, and whose Jobs vanish."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.well: set[str] = set()  # first revisions that have passed all they had to

    @initialize(mode=st.sampled_from(("Automatic", "Pause")), approval=st.sampled_from(((), (5,))))
    def the_policy_is(self, mode: str, approval: tuple[int, ...]) -> None:
        super().the_policy_is(mode, approval)
        probed = policy(probes=("golden", "smoke")).canary.probes
        for name in ("calm", "policy"):
            owner = self if name == "calm" else self.world
            spec = getattr(owner, name)
            setattr(owner, name, spec.model_copy(update={"canary": spec.canary.model_copy(update={"probes": probed})}))

    @rule(name=st.sampled_from(("golden", "smoke")), end=st.sampled_from((ProbeState.PASSED, ProbeState.PASSED, ProbeState.FAILED, None)))
    def a_probe_comes_to(self, name: str, end: ProbeState | None) -> None:
        self.world.come_to[name] = end

    @rule(name=st.sampled_from(("golden", "smoke")))
    def a_job_vanishes(self, name: str) -> None:
        self.world.jobs = {key: state for key, state in self.world.jobs.items() if key[2] != name}

    @rule(name=st.sampled_from(("golden", "smoke")))
    def a_job_cannot_be_seen_or_can_again(self, name: str) -> None:
        self.world.unseen ^= {name}

    @invariant()
    def no_weight_before_every_probe_has_passed(self) -> None:
        """3: neither a hanging, nor a failed, nor an unseen probe gives a canary its first weight."""
        canary = self.world.place.canary
        if canary is not None and canary.weight > 0:
            assert {mark.partition(":")[0] for mark in canary.passed} == {"golden", "smoke"}

    @invariant()
    def nothing_is_called_before_every_probe_has_passed(self) -> None:
        """3: a first revision, too."""
        place = self.world.place
        if place.first is not None and len(place.first.passed) == len(self.calm.canary.probes):
            self.well.add(place.first.revision.name)
        if self.world.exists and place.stable is None and self.world.route is None:
            accepted = {self.world.kept[0].name} if self.world.kept is not None else set()  # by the policy of this name before
            assert self.world.serving in {None, *self.well, *accepted}

    @invariant()
    def a_probe_speaks_for_its_own_rollout_only(self) -> None:
        canary = self.world.place.canary
        if canary is not None and canary.probes_at is None:
            assert canary.passed == ()

    def teardown(self) -> None:
        """8: and no Job is left running."""
        self.world.come_to.clear()
        self.world.unseen.clear()
        if self.world.wanted is MISSING:
            self.world.want("1")  # whose probe may have failed before: nobody knows yet, and a word that comes sooner is without effect
        self.world.run(30)
        if self.world.exists and self.world.place.first is not None:
            self.world.ask(retry="first")  # a probe of a first revision may have failed before
            self.world.run(30)
        super().teardown()
        assert ProbeState.RUNNING not in self.world.jobs.values()


class RolloutsByReplicas(RolloutsByHand):
    """The same, where numbers of ready pods make the shares, and pods outlive their Deployments for a while."""

    steps = 0

    @initialize(mode=st.sampled_from(("Automatic", "Pause")), approval=st.sampled_from(((), (5,), (50, 100))))
    def the_policy_is(self, mode: str, approval: tuple[int, ...]) -> None:
        super().the_policy_is(mode, approval)
        own = policy(own=True)
        for owner, name in ((self, "calm"), (self.world, "policy")):
            setattr(owner, name, getattr(owner, name).model_copy(update={"serving": own.serving, "slos": own.slos}))

    @rule()
    def pods_take_long_to_go_or_not(self) -> None:
        self.world.linger = not self.world.linger

    @precondition(lambda self: self.world.route is not None)
    @rule()
    def somebody_edits_the_selector(self) -> None:
        self.world.strays = True

    @invariant()
    def nobody_but_stable_and_canary_is_reached_while_they_share(self) -> None:
        route = self.world.route
        # While stable has no ready pod callers reach nobody else: without these they would reach none.
        if route is not None and 0 < route.permille < 1000 and self.world.arms.get(route.stable, Arm(0, 0)).ready > 0:
            reached = self.world.lingering | {name for name, arm in self.world.arms.items() if arm.desired > 0 or arm.ready > 0}
            assert reached <= {route.stable, route.canary}

    def teardown(self) -> None:
        """8: and the route does what it says."""
        self.world.linger = False
        super().teardown()
        assert not self.world.strays


class RolloutsEdited(Rollouts):
    """Steps are edited at any moment, and somebody deletes the traffic object or puts back an older one."""

    steps = 0

    @rule(steps=st.sampled_from((((5, 20), (50, 20), (100, 20)), ((5, 30), (50, 20), (100, 20)), ((50, 10), (100, 20)), ((100, 20),))))
    def the_steps_are_edited(self, steps: tuple[tuple[int, int], ...]) -> None:
        self.world.policy = policy(steps=steps, replicas=4, deadline=60, guard=GUARD)

    @precondition(lambda self: self.world.exists and self.world.place.stable is not None)
    @rule(
        version=st.sampled_from("234"),
        first=st.sampled_from(((50, 10), (100, 20))),
        judged=st.sampled_from((HEALTHY, UNSEEN, None)),
        slow=st.booleans(),
    )
    def steps_are_raised_while_metrics_change(self, version: str, first: tuple[int, int], judged, slow: bool) -> None:  # type: ignore[no-untyped-def]
        """3: an edit is no evidence, neither when it is made nor when its pods are there."""
        self._nothing_is_wrong()
        self.the_steps_are_edited(((5, 20), (50, 20), (100, 20)))
        self.world.want(version)
        self.world.run(12, tick=3)
        self.world.pace = 0 if slow else AT_ONCE
        self.world.judged = HEALTHY if slow else judged
        self.the_steps_are_edited((first,) if first[0] == 100 else (first, (100, 20)))
        self.world.run(6, tick=3)
        self.world.judged, self.world.pace = judged, AT_ONCE
        self.world.run(9, tick=3)

    @precondition(lambda self: self.world.exists and self.world.route is not None)
    @rule()
    def the_traffic_object_is_deleted(self) -> None:
        self._lose_what_only_the_route_says()
        self.world.traffic, self.world.unread = None, False

    @precondition(lambda self: self.world.exists and self.world.route is not None and self.world.route.generation > 5)
    @rule(behind=st.integers(1, 4), new_pod=st.booleans())
    def an_older_traffic_object_is_put_back(self, behind: int, new_pod: bool) -> None:
        route, acted = self.world.route, self.world.acted
        assert route is not None
        older = replace(route, generation=route.generation - behind)
        if acted is not None and acted.generation == older.generation and acted != older:
            return  # of a generation that gateways act on there is one object
        self._lose_what_only_the_route_says()
        self.world.put_older_route(older.generation, new_pod=new_pod)

    def teardown(self) -> None:
        """8: and gateways do what the traffic object says, whatever was done to it."""
        super().teardown()
        route, acted = self.world.route, self.world.acted
        if route is not None:
            assert acted is not None
            assert (acted.stable, acted.canary, acted.permille) == (route.stable, route.canary, route.permille)


TestRollouts = Rollouts.TestCase
TestRolloutsEdited = RolloutsEdited.TestCase
TestRolloutsByHand = RolloutsByHand.TestCase
TestRolloutsWithProbes = RolloutsWithProbes.TestCase
TestRolloutsByReplicas = RolloutsByReplicas.TestCase
TestRolloutsByReplicas.settings = TestRolloutsEdited.settings = TestRollouts.settings = TestRolloutsByHand.settings = (
    TestRolloutsWithProbes.settings
) = settings(max_examples=80 if THOROUGH else 6, stateful_step_count=40)
