"""The whole pass as a state machine: two operators, one policy, and everything that can go wrong between them and the API server.

Which invariant of the design is held where: 1, 3, 9, 10 and 12 of every write (`witness`); 2, 4, 6 and 11 by rules that let all
trouble end first; 7 and 8 at the end of every run; 5 by `tests.rollout.test_invariants`, which needs no cluster for it.
"""

import logging

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backstop.controller.reconcile import LONGEST_LEAVE_SECONDS
from backstop.kube.resources import Body
from backstop.rendering.route import revisions_of
from backstop.rollout.look import pods_for_share
from backstop.rollout.move import LEAST_SUSPICION_SECONDS
from backstop.rollout.place import Revision
from backstop.rollout.route import share_of
from backstop.rollout.verdict import verdict_on_prompt

from .cluster import POLICY_ID, Cluster
from .process import EVALUATION_SECONDS, LEASE_SECONDS, SWEEP_SECONDS
from .wire import Fault
from .wishes import MISSING, REPLICAS, SEEING, UNSEEING, Edit, spec
from .witness import Witness

VERSIONS = ("v1", "v2", "v3")
OPERATORS = st.sampled_from((0, 1))
SECONDS = st.sampled_from((8.0, 18.0, 28.0))  # for a first step, or as many as fit
# Until somebody leads again and knows all there is: a lost Lease, the longest pause between attempts, and a sweep.
RECOVERY_SECONDS = 2 * LEASE_SECONDS + 30.0 + SWEEP_SECONDS + 5.0
AT_ONCE_SECONDS = EVALUATION_SECONDS + 2.0


class WholePasses(RuleBasedStateMachine):
    """A policy, two operators and their API server."""

    steps = 0  # of all runs of the class

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.ERROR)
        self.cluster = Cluster()
        self.witness = Witness(self.cluster)
        self.asked = 0
        self.wanted = "v1"
        self.mode, self.approval, self.paused = "Automatic", (), False  # type: str, tuple[int, ...], bool
        self.bar: int | None = None
        self.source = SEEING

    @initialize(
        mode=st.sampled_from(("Automatic", "Automatic", "Pause")),
        approval=st.sampled_from(((), (), (50,))),
        bar=st.sampled_from((None, None, 90)),
        own=st.sampled_from((False, False, True)),
    )
    def version_1_is_stable(self, mode: str, approval: tuple[int, ...], bar: int | None = None, own: bool = False) -> None:
        """`own`: with a workload of its author's own."""
        self.mode, self.approval, self.bar, self.cluster.own = mode, approval, bar, own
        for name in VERSIONS:
            self.cluster.prompt(name)
        self._apply()
        self.cluster.heal()
        self._pass_time(10)
        assert self.cluster.place.stable is not None

    # What people do

    @rule(version=st.sampled_from(VERSIONS))
    def the_spec_names(self, version: str) -> None:
        self.wanted = version
        self._apply()

    @precondition(lambda self: self.cluster.place.canary is None)
    @rule(version=st.sampled_from(VERSIONS[1:]))
    def a_canary_begins(self, version: str) -> None:
        self.the_spec_names(version)
        self._pass_time(6)

    @rule()
    def somebody_pauses_or_goes_on(self) -> None:
        self.paused = not self.paused
        self._apply()

    @rule(bar=st.sampled_from((None, 90, 95)))
    def the_bar_of_the_probe_is(self, bar: int | None) -> None:
        self.bar = bar
        self._apply()

    @rule(source=st.sampled_from((SEEING, SEEING, UNSEEING, MISSING)))
    def metrics_come_from(self, source: str) -> None:
        self.source = source
        self._apply()

    @precondition(lambda self: self.cluster.exists)
    @rule(anew=st.booleans())
    def somebody_deletes_the_policy(self, anew: bool) -> None:
        """`anew`: and has it created again as soon as it has gone."""
        self.cluster.delete_policy()
        if anew:
            self._pass_time(20)
            if not self.cluster.exists:
                self._apply()

    @precondition(lambda self: self.cluster.exists)
    @rule(token=st.sampled_from(("approve", "promote", "abort", "retry", "skip-step")))
    def somebody_asks(self, token: str) -> None:
        self.asked += 1
        self.witness.tokens |= token in ("promote", "retry")
        self.witness.promoted_by_hand |= token == "promote"
        self.witness.skips += token == "skip-step"
        self.cluster.ask(token, str(self.asked))

    @rule(route=st.booleans())
    def somebody_touches(self, route: bool) -> None:
        self.cluster.touch(self.cluster.traffic_id if route else POLICY_ID)

    @precondition(lambda self: self.cluster.exists)
    @rule()
    def the_status_is_lost(self) -> None:
        self.cluster.lose_status()

    @rule(edit=st.sampled_from(Edit))
    def somebody_edits_the_route(self, edit: Edit) -> None:
        self.cluster.edit_route(edit)

    @precondition(lambda self: self.cluster.exists)
    @rule()
    def owners_are_lost(self) -> None:
        self.cluster.lose_owners()

    @precondition(lambda self: self.cluster.exists and self.cluster.place.stable is not None)
    @rule(seconds=st.sampled_from((0.5, 12.0, 65.0)))
    def something_else_controls_the_route(self, seconds: float) -> None:
        """For a while, in which nobody loses status: one damage at a time."""
        self.cluster.take_route()
        self._pass_time(seconds)
        self.cluster.give_route_back()

    # What the world does

    @rule(seconds=st.sampled_from((0.1, 0.5, 2.0, 5.0, 9.0, 12.0, 65.0)))
    def time_passes(self, seconds: float) -> None:
        self._pass_time(seconds)

    @rule(version=st.sampled_from(VERSIONS), verdict=st.sampled_from(("healthy", "healthy", "breached", "unseen", "silent")))
    def metrics_say(self, version: str, verdict: str) -> None:
        self.cluster.judge(version, verdict)

    @rule(version=st.sampled_from(VERSIONS[1:]))
    def pods_break_or_recover(self, version: str) -> None:
        self.cluster.broken ^= {version}

    @rule(seconds=st.sampled_from((1.0, 12.0, 30.0)))
    def pods_take(self, seconds: float) -> None:
        self.cluster.pods_take = seconds

    @precondition(lambda self: self.cluster.exists)
    @rule(verdict=st.sampled_from(("unseen", "silent", "breached", "healthy")), seconds=SECONDS)
    def metrics_change_while_pods_come_up(self, verdict: str, seconds: float) -> None:
        """3: what is found meanwhile is found of the step that holds."""
        canary = self._under_way(2.0)
        if canary is None:
            return
        self.cluster.pods_take = 20.0
        self._pass_time(15.0)
        self.cluster.judge(self.cluster.prompts[canary], verdict)
        self._pass_time(seconds)
        self.cluster.pods_take = 1.0
        self._pass_time(12.0)

    @rule(version=st.sampled_from(VERSIONS), end=st.sampled_from(("Complete", "Complete", "Failed", None)))
    def probes_come_to(self, version: str, end: str | None) -> None:
        self.cluster.come_to[version] = end

    @rule()
    def jobs_vanish(self) -> None:
        self.cluster.lose_jobs()

    @precondition(lambda self: self.cluster.place.canary is not None)
    @rule(crash=st.booleans())
    def pods_of_the_canary_crash_or_go(self, crash: bool) -> None:
        canary = self._canary()
        assert canary is not None
        (self.cluster.crash_container if crash else self.cluster.lose_pods)(canary)

    @rule()
    def gateways_turn_deaf_or_hear_again(self) -> None:
        self.cluster.deaf = not self.cluster.deaf

    # What befalls the operators

    @rule(number=OPERATORS, faults=st.lists(st.one_of(st.none(), st.sampled_from(Fault)), min_size=1, max_size=5))
    def the_next_writes_meet(self, number: int, faults: list[Fault | None]) -> None:
        self.witness.refused |= Fault.FORBIDDEN in faults
        self.cluster.processes[number].wire.faults.extend(faults)

    @rule(number=OPERATORS)
    def an_operator_is_killed(self, number: int) -> None:
        self.cluster.processes[number].die()

    @rule(number=OPERATORS)
    def an_operator_starts(self, number: int) -> None:
        self.cluster.processes[number].start()

    @rule(number=OPERATORS, seconds=st.sampled_from((3.0, 20.0)))
    def an_operator_is_cut_off(self, number: int, seconds: float) -> None:
        self.cluster.processes[number].wire.cut = True
        self._pass_time(seconds)

    @rule(number=OPERATORS)
    def watches_freeze(self, number: int) -> None:
        self.cluster.processes[number].frozen = True

    @rule(number=OPERATORS, gone=st.booleans())
    def watches_go_on(self, number: int, gone: bool) -> None:
        """`gone`: what they missed is too long ago to be told (410)."""
        self.cluster.processes[number].resume()
        if gone:
            self.cluster.processes[number].relist_without_deletions()

    @rule(number=OPERATORS, latency=st.sampled_from((0.02, 1.5)), delay=st.sampled_from((0.05, 3.0, 15.0)))
    def the_network_is(self, number: int, latency: float, delay: float) -> None:
        self.cluster.processes[number].wire.latency = latency
        self.cluster.processes[number].watch_delay = delay

    # What must hold once the trouble is over

    @precondition(lambda self: self.cluster.exists and self.mode == "Automatic")
    @rule(seconds=SECONDS)
    def a_breach_leaves_at_once(self, seconds: float) -> None:
        """4: within one applied pass of a reachable API."""
        canary = self._under_way(seconds)
        if canary is None:
            return
        self.cluster.judge(self.cluster.prompts[canary], "breached")
        self._pass_time(AT_ONCE_SECONDS)
        assert self.cluster.share(canary) == 0, f"4: {canary} breached and has {self.cluster.share(canary)} ‰"
        self._pass_time(AT_ONCE_SECONDS)
        self._prompt_has_heard()

    @precondition(lambda self: self.cluster.exists and self.mode == "Automatic")
    @rule(seconds=SECONDS)
    def a_breach_meets_another_writer(self, seconds: float = 8.0) -> None:
        """4 and 9: the write that takes the traffic away is lost to somebody else's, and made at once over that."""
        canary = self._under_way(seconds)
        if canary is None:
            return
        for process in self.cluster.processes:
            process.wire.faults.append(Fault.CONTENDED)
        self.cluster.judge(self.cluster.prompts[canary], "breached")
        self._pass_time(AT_ONCE_SECONDS)
        assert self.cluster.share(canary) == 0, f"4: {canary} breached and has {self.cluster.share(canary)} ‰"

    @precondition(lambda self: self.cluster.exists)
    @rule(seconds=SECONDS)
    def a_canary_without_pods_has_no_traffic(self, seconds: float) -> None:
        """2: never a weight without a ready pod."""
        canary = self._under_way(seconds)
        if canary is None or not self._is_told_apart(canary):
            return
        self.cluster.broken.add(self.cluster.prompts[canary])
        self.cluster.lose_pods(canary)
        self._pass_time(AT_ONCE_SECONDS)
        traffic = self.cluster.traffic
        assert traffic is not None
        assert share_of(canary, state=traffic) == 0, f"2: {canary} has no ready pod and {share_of(canary, state=traffic)} ‰"
        assert self.cluster.reached(), "12: nobody serves callers"

    @precondition(lambda self: self.cluster.exists)
    @rule(seconds=SECONDS, alone=st.booleans())
    def the_status_of_a_rollout_is_lost(self, seconds: float, alone: bool) -> None:
        """4, 12: what nobody knows any more is taken back at once, unless (`alone`) there is nobody else who serves."""
        canary = self._under_way(seconds)
        if canary is None:
            return
        before, place = self.cluster.traffic, self.cluster.place.canary
        assert before is not None
        assert place is not None
        begins = place.step_started_at is None or place.weight * 10 != before.permille
        if begins or place.promoting_since is not None or not self._is_told_apart(canary):
            return  # the write that gives it more may be under way
        if alone:
            self.cluster.broken.add(self.cluster.prompts[before.stable])
            self.cluster.lose_pods(before.stable)
            self._pass_time(1.0)
        self.cluster.lose_status()
        known = len(self.witness.routes)
        self._pass_time(AT_ONCE_SECONDS)
        after = self.witness.routes[known:]
        if alone:
            given = [state for state in after if share_of(before.stable, state=state) > share_of(before.stable, state=before)]
            assert not given, f"12: {before.stable} has no ready pod and is given more: {given} after {before}"
        else:
            # What is wanted may have begun anew.
            assert after, f"4: nobody knows {canary}, and it has traffic: {before}"
            assert share_of(canary, state=after[0]) == 0, f"4: nobody knows {canary}, and it has traffic: {after}"
            assert after[0].stable == before.stable, f"1: {after} after {before}, and nobody knows why"

    @precondition(lambda self: self.cluster.own)
    @rule()
    def callers_reach_whom_the_route_names(self) -> None:
        """1 and 10: of the share that ready pods really make, whatever the route says of itself."""
        self._well_again()
        canary, traffic, reached = self.cluster.place.canary, self.cluster.traffic, self.cluster.reached()
        if traffic is None or not self.cluster.exists:  # a Service that is somebody else's by now outlives the policy
            return
        assert set(reached) <= set(revisions_of(traffic)), f"1: {reached} are reached at {traffic}"
        if canary is not None and traffic.permille < 1000:
            weight = (5, 50, 100)[canary.step]
            most = pods_for_share(weight, beside=max(REPLICAS, self.cluster.replicas(traffic.stable) or 0))
            assert reached[canary.revision.name] <= most, f"1: {reached} are reached on the way to {weight} %"
        assert reached, "12: nobody serves callers"

    @rule()
    def what_is_at_rest_stays_so(self) -> None:
        """6, 8 and 11: an idle policy is not written, not even by operators that have just begun."""
        self.cluster.heal()
        self._pass_time(RECOVERY_SECONDS)
        if self.cluster.place.canary is not None:
            return
        self._pass_time(65)
        place = self.cluster.place
        if place.canary is None and place.guard is None and place.stable is not None:
            self._idle()

    # Always

    @invariant()
    def nothing_is_broken(self) -> None:
        type(self).steps += 1
        self.witness.check()
        self.cluster.check()
        assert sum(process.bugs for process in self.cluster.processes) == 0, "a pass raised what nobody expected"
        for process in self.cluster.processes:
            assert not process.wire.hot, f"11: {process.name} writes on and on: {process.wire.writes[-5:]}"

    def teardown(self) -> None:
        """7 and 8: left alone, all is as if nothing had happened on the way; and then nothing is written."""
        try:
            if not self.witness.broken and not any(process.wire.hot for process in self.cluster.processes):
                self._end()
                self.nothing_is_broken()
        finally:
            self.cluster.end()
            logging.disable(logging.NOTSET)

    def _end(self) -> None:
        cluster = self.cluster
        self.mode, self.approval, self.paused, self.source = "Automatic", (), False, SEEING
        self._apply()
        cluster.heal()
        for version in VERSIONS:
            cluster.judge(version, "healthy")
        cluster.come_to.clear()
        self._pass_time(RECOVERY_SECONDS)
        if cluster.exists and "deletionTimestamp" in cluster.policy["metadata"]:
            self._pass_time(LONGEST_LEAVE_SECONDS + 10.0)
        if not cluster.exists:
            self._apply()
            self._pass_time(RECOVERY_SECONDS)
        assert "deletionTimestamp" not in cluster.policy["metadata"], "7: a policy that is deleted never goes"
        if cluster.place.first is not None and cluster.place.first.failed is not None:
            self.somebody_asks("retry")
        if (canary := cluster.place.canary) is not None and canary.halted is not None:
            self.somebody_asks("abort")
        self._pass_time(200)
        if cluster.place.guard is not None:
            self._pass_time(LEAST_SUSPICION_SECONDS)
        self.witness.check()
        place, traffic = cluster.place, cluster.traffic
        assert place.canary is None, f"7: it never ends: {cluster.status.reason}: {place.canary}"
        jobs = [job["metadata"]["name"] for job in cluster.api.of("jobs") if not job.get("status")]
        assert not jobs, f"7: {jobs} run on"
        if place.stable is None:  # nothing is left of what was accepted before, and a person is asked
            rejected = {r.revision.prompt_version for r in place.rejected}
            assert self.wanted in rejected, f"7: {self.wanted} is neither stable nor rejected: {cluster.status.reason}"
            return
        assert traffic is not None
        assert (traffic.stable, traffic.permille) == (place.stable.revision.name, 0), f"7: {traffic} beside {place.stable}"
        assert place.guard is None, "7: a verdict is never made certain"
        if place.stable.revision.prompt_version != self.wanted and place.incident is None:
            rejected = {r.revision.prompt_version for r in place.rejected}
            assert self.wanted in rejected, f"7: {self.wanted} is neither stable nor rejected: {cluster.status.reason}"
        if not self.witness.tokens:
            lost = self.witness.rejected - {r.revision.name for r in place.rejected}
            assert not lost, f"7: {lost} was rejected, and status does not know it"
        self._prompt_has_heard()
        stable = place.stable.revision.name
        self._lose_unseen(stable)
        assert cluster.replicas(stable) == self._full_size()
        assert set(cluster.selected().values()) <= {stable, "none"}, cluster.selected()
        ready = {c.type: c.status for c in cluster.status.conditions}["Ready"]
        assert ready == ("True" if self._is_wanted(place.stable.revision) else "False")
        self._idle()
        assert not cluster.orphans(), f"7: {cluster.orphans()} outlive the policy"
        deployments = {body["metadata"]["name"] for body in cluster.api.of("deployments")}
        assert deployments == {f"support-{stable}"}, f"7: ghosts: {deployments}"

    def _lose_unseen(self, stable: str) -> None:
        """7: its Deployment is deleted, and no watch ever tells of it."""
        for process in self.cluster.processes:
            process.frozen = True
        self.cluster.lose_deployment(stable)
        self._pass_time(1.0)
        for process in self.cluster.processes:
            process.resume()
            process.relist_without_deletions()
        self._pass_time(RECOVERY_SECONDS)

    def _is_wanted(self, stable: Revision) -> bool:
        return stable.prompt_version == self.wanted

    def _prompt_has_heard(self) -> None:
        verdict = verdict_on_prompt(self.cluster.place)
        if verdict is not None:
            told = {r["revision"] for r in self.cluster.prompt_status(verdict.revision.prompt_version).get("rejections", ())}
            assert verdict.revision.name in told, f"7: {verdict.revision.prompt_version} does not know that it was rejected"

    def _idle(self) -> None:
        for process in self.cluster.processes:
            process.die()
            process.start()
        before = [list(process.wire.writes) for process in self.cluster.processes]
        self._pass_time(120)
        for process, known in zip(self.cluster.processes, before, strict=True):
            assert process.wire.writes == known, f"11: an idle policy is written: {process.wire.writes[len(known) :]}"

    def _apply(self) -> None:
        self.witness.bars.append((self.cluster.now(), self.bar))
        self.witness.sees(self.source == SEEING)
        self.cluster.apply(self._spec())

    def _spec(self) -> Body:
        own, mode, source = self.cluster.own, self.mode, self.source
        return spec(self.wanted, own=own, mode=mode, approval=self.approval, paused=self.paused, bar=self.bar, source=source)

    def _full_size(self) -> int:
        """Pods that stable has when all is well."""
        return REPLICAS

    def _pass_time(self, seconds: float) -> None:
        self.cluster.loop.let_pass(seconds)

    def _canary(self) -> str | None:
        canary = self.cluster.place.canary
        return canary.revision.name if canary is not None else None

    def _is_told_apart(self, canary: str) -> bool:
        """Whether its pods may break, and not those of stable: what they are like goes by the version."""
        stable = self.cluster.place.stable
        return stable is not None and stable.revision.prompt_version != self.cluster.prompts[canary]

    def _canary_has_traffic(self) -> bool:
        canary, traffic = self._canary(), self.cluster.traffic
        return canary is not None and traffic is not None and traffic.permille > 0 and share_of(canary, state=traffic) > 0

    def _under_way(self, seconds: float) -> str | None:
        """Trouble ends, and a rollout has traffic: the one that there is, or another one after this time. None where there is none."""
        canary = self._well_again()
        if self._canary_has_traffic():
            return canary
        place = self.cluster.place
        done = {rejection.revision.prompt_version for rejection in place.rejected}
        done |= {place.stable.revision.prompt_version} if place.stable is not None else set()
        version = next((version for version in VERSIONS if version not in done), None)
        if version is None or not self.cluster.exists:
            return None
        self.paused = False
        self.cluster.come_to.clear()
        for other in VERSIONS:
            self.cluster.judge(other, "healthy")
        self.the_spec_names(version)
        self._pass_time(seconds)
        for other in VERSIONS:
            self.cluster.judge(other, "unseen")
        self._pass_time(EVALUATION_SECONDS)
        return self._canary() if self._canary_has_traffic() else None

    def _well_again(self) -> str | None:
        """Trouble ends while the rollout holds; returns the canary."""
        for version in VERSIONS:
            self.cluster.judge(version, "unseen")
        if self.source != SEEING:
            self.metrics_come_from(SEEING)
        self.cluster.heal()
        self._pass_time(RECOVERY_SECONDS)
        return self._canary()
