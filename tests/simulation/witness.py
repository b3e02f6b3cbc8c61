"""What is asserted of every write that reaches the API server, whoever sent it and whatever it knew. Numbers: invariants of the design."""

from dataclasses import dataclass, field

from backstop.api.clock import parse_time
from backstop.api.names import REJECTED
from backstop.api.reasons import Reason
from backstop.api.traffic import TrafficState
from backstop.controller.kept import rejections_in
from backstop.controller.reconcile import LONGEST_LEAVE_SECONDS
from backstop.kube.resources import CONFIG_MAPS, DEPLOYMENTS, PROMPT_VERSIONS, Body
from backstop.rendering.route import selector_of
from backstop.rollout.place import Rejection
from backstop.rollout.route import share_of
from backstop.rollout.safety import FOR_GOOD

from .api import Change, Id
from .cluster import NAMESPACE, POLICY_ID, Cluster, state_in
from .process import EVALUATION_SECONDS, SWEEP_SECONDS
from .wishes import POLICY, REPLICAS

WEIGHTS = (0, 50, 500, 1000)
# The longest that a write can be under way after it was decided: given up by its sender, and still not arrived.
UNDER_WAY_SECONDS = 40.0
# The longest that an operator goes by a spec that is no more: until its next sweep, and what it then has under way.
KNOWN_SECONDS = UNDER_WAY_SECONDS + SWEEP_SECONDS + 10.0
# The longest that what was healthy in another step waits for an evaluation of this one.
SETTLING_SECONDS = 2 * EVALUATION_SECONDS


@dataclass
class Witness:
    """Looks at every write. A broken invariant is kept in `broken`, because the writer is not to blame for an exception here."""

    cluster: Cluster
    tokens: bool = False  # somebody has asked for a rejected revision
    promoted_by_hand: bool = False
    skips: int = 0  # steps that a person has asked to be skipped, and that may still be
    dry: bool = False  # a verdict is only reported
    most: int | None = None  # seconds for which a step may be held
    broken: list[str] = field(default_factory=list)
    rejected: set[str] = field(default_factory=set)
    rejected_in_status: set[str] = field(default_factory=set)
    routes: list[TrafficState] = field(default_factory=list)
    _reached: dict[str, int] = field(default_factory=dict)
    _newest: int = 0
    _latest: TrafficState | None = None
    refused: bool = False  # the API server has refused a write
    stable_once: set[str] = field(default_factory=set)
    # canary that has passed a step → which comes next, and for how many seconds it was not healthy then
    _passed: dict[str, tuple[int, float]] = field(default_factory=dict)
    bars: list[tuple[float, int | None]] = field(default_factory=list)  # what probes ask for, from when on
    unseen_since: float | None = None  # from when on the spec has named no metric source that sees anything

    def __post_init__(self) -> None:
        self.cluster.api.on_change.append(self.look)

    def look(self, change: Change) -> None:
        """One change."""
        try:
            if change.id == self.cluster.traffic_id and change.who.startswith("operator"):
                assert not self.cluster.is_foreign(change.before), "9: what something else controls is written over"
            if change.id == self.cluster.traffic_id and change.after is not None and change.who.startswith("operator"):
                if self._is_of_this_policy(change.after):
                    self._wrote(change.after)
            elif change.id == POLICY_ID and change.before is not None and change.after is None:
                self._gone(change.before)
            elif change.id == POLICY_ID:
                if change.who == "person" and not self.cluster.policy.get("status"):
                    self._forget()
                self._remember()
                if change.who.startswith("operator") and change.after is not None:
                    self._route_came_first()
            elif change.id[0] == DEPLOYMENTS.plural and change.who.startswith("operator"):
                self._deployment(change)
        except AssertionError as error:
            self.broken.append(f"at {self.cluster.loop.time():.2f} s, by {change.who}: {error}")

    def _is_of_this_policy(self, body: Body) -> bool:
        """Not what arrives late of a former one, and goes with it; nor what something else controls."""
        owners = {owner["uid"] for owner in body["metadata"].get("ownerReferences", ())}
        return self.cluster.exists and (not owners or self.cluster.policy["metadata"]["uid"] in owners)

    def _is_adopted(self, body: Body) -> bool:
        """Not what something else has let go of a moment ago, either."""
        return bool(body["metadata"].get("ownerReferences")) and self._is_of_this_policy(body)

    def _gone(self, policy: Body) -> None:
        """A policy goes when its canary has no traffic any more, or could not be taken back for long; the next one begins anew."""
        traffic, since = self.cluster.traffic, policy["metadata"].get("deletionTimestamp")
        waited = self.cluster.now() - parse_time(since) if since is not None else 0.0
        if traffic is not None and traffic.permille:
            # Where status was lost, and what is to take the canary's traffic back has no pod that could.
            nobody = policy.get("status", {}).get("stable") is None and self.cluster.ready(traffic.stable) == 0
            foreign = self.cluster.is_foreign(self.cluster.api.objects.get(self.cluster.traffic_id))  # so that nobody may take it back
            unmet = since is None and not policy.get("status")  # it went before any operator had a pass over it
            excused = self.refused or nobody or foreign or unmet
            assert excused or waited >= LONGEST_LEAVE_SECONDS, f"the policy went after {waited:.0f} s with {traffic}"
        self.routes.clear()
        self._reached.clear()
        # What was rejected is known to the next policy of the name, from what is left of this one.
        if self.refused or waited >= LONGEST_LEAVE_SECONDS:
            self.rejected.clear()
        self.rejected_in_status.clear()

    def _forget(self) -> None:
        """Status was lost: what was rejected is known if it stands anywhere else."""
        cluster, known = self.cluster, set[str]()
        if cluster.traffic is not None and cluster.traffic.aborted is not None:
            known.add(cluster.traffic.aborted.revision)
        for record in cluster.api.of(CONFIG_MAPS.plural):
            known |= {r.revision.name for r in rejections_in(record["metadata"].get("annotations", {}).get(REJECTED, "[]"))}
        for prompt in cluster.api.of(PROMPT_VERSIONS.plural):
            known |= {r["revision"] for r in prompt.get("status", {}).get("rejections", ())}
        self.rejected &= known
        self.rejected_in_status.clear()

    def check(self) -> None:
        """Raise what has been seen."""
        assert not self.broken, "\n".join(self.broken)
        assert not self.cluster.loop.failures, self.cluster.loop.failures

    def _wrote(self, body: Body) -> None:
        after = state_in(body, own=self.cluster.own)
        assert after is not None, "what an operator writes can be read"
        if after == self._latest:
            self.routes += [] if self.routes else [after]  # of a former policy, and taken over
            return  # what it does was put right
        self._latest = after
        if self.cluster.own:
            assert body["spec"]["selector"] == selector_of(POLICY, state=after), f"the Service does something else than {after}"
        self._route(after)

    def _route(self, after: TrafficState) -> None:
        before = self.routes[-1] if self.routes else None
        self.routes.append(after)
        assert after.generation > self._newest, f"generation {after.generation} after {self._newest}: gateways would not look at it"
        self._newest = after.generation
        self._steps(after, before=before)
        if after.aborted is not None:
            self.rejected.add(after.aborted.revision)
        self._nothing_rejected(after)
        # 12: whoever gets requests has its pods.
        for name in {after.stable, *([after.canary] if after.canary and after.permille else [])}:
            assert self.cluster.replicas(name), f"12: {name} gets requests and has no Deployment"
        if before is not None and after.stable != before.stable:
            assert (self.cluster.replicas(after.stable) or 0) >= REPLICAS, f"12: {after.stable} becomes stable below full size"

    def _steps(self, after: TrafficState, *, before: TrafficState | None) -> None:
        """1 and 3: along one step, to 0, or by a person's word; never without having seen that all is well."""
        assert after.permille in WEIGHTS, f"1: {after.permille} ‰ is no step"
        if before is None:
            assert after.permille == 0, "1: the first write gives a canary traffic"
            self._has_passed(after.stable)
            return
        if after.stable != before.stable:
            back = any(after.stable == earlier.stable for earlier in self.routes[:-2])
            # That it is the canary was decided, and may never have been written: something else had the object then.
            canary, skipped = self.cluster.place.canary, after.generation > before.generation + 1
            unwritten = before.canary is None and skipped and canary is not None and canary.revision.name == after.stable
            is_canary = after.stable == before.canary or (unwritten and self.promoted_by_hand)
            forward = is_canary and (before.permille == 1000 or self.promoted_by_hand)
            assert forward or back, f"1: {after.stable} becomes stable after {before}"
            if not back and not self.promoted_by_hand:
                self._seen_to_be_well(after.stable)
            return
        if after.canary is None:
            return
        if after.canary != before.canary:
            self._reached[after.canary] = 0
        reached = self._reached.get(after.canary, 0)
        allowed = WEIGHTS[min(WEIGHTS.index(reached) + 1, len(WEIGHTS) - 1)]
        assert after.permille <= allowed, f"1: {after.canary} goes from {reached} ‰ to {after.permille} ‰"
        if after.permille > reached:
            if reached == 0:
                self._has_passed(after.canary)
            if reached > 0 and not self.promoted_by_hand:
                self._seen_to_be_well(after.canary)
            self._reached[after.canary] = after.permille

    def sees(self, seeing: bool) -> None:
        """From now on the spec names a metric source that sees what is going on, or one that does not."""
        self.unseen_since = None if seeing else self.unseen_since or self.cluster.now()

    def _seen_to_be_well(self, revision: str) -> None:
        """Or sent on by a person, one step for each time that one asked."""
        cluster = self.cluster
        blind = cluster.now() - self.unseen_since if self.unseen_since is not None else 0.0
        prompt = cluster.prompts[revision]
        # Where pods make the share a step is passed before they are there: what waits for requests then has shown what it had to.
        waits = cluster.own and cluster.verdicts.get(prompt) == "waiting" and revision in self._passed
        ill = self._passed[revision][1] if waits else self._ill(prompt)
        if self.skips and (blind >= KNOWN_SECONDS or ill >= UNDER_WAY_SECONDS):
            self.skips -= 1
            return
        assert blind < KNOWN_SECONDS, f"3: {revision} advances, and nothing has been seen of it for {blind:.0f} s"
        assert ill < UNDER_WAY_SECONDS, f"3: {prompt} advances, and was last healthy {ill:.0f} s ago"

    def _ill(self, prompt: str) -> float:
        """Seconds since it was last healthy."""
        is_well = self.cluster.verdicts.get(prompt, "healthy") == "healthy"
        return 0.0 if is_well else self.cluster.now() - self.cluster.healthy_until[prompt]

    def _has_passed(self, revision: str) -> None:
        """3: before callers reach it, by one of the bars that an operator may have known of."""
        if self.promoted_by_hand or revision in self.stable_once:
            return
        oldest = self.cluster.now() - KNOWN_SECONDS
        later = [since for since, _ in self.bars[1:]] + [float("inf")]
        bars = [bar for (_, bar), until in zip(self.bars, later, strict=True) if until >= oldest]
        passed = any(bar is None or (revision, str(bar)) in self.cluster.passed for bar in bars)
        assert passed, f"3: {revision} has not passed its probe, and is reached: {bars}, {self.cluster.passed}"

    def _remember(self) -> None:
        """9 and 10: nothing that was rejected is forgotten, and none of it has traffic."""
        place = self.cluster.place
        if place.stable is not None:
            self.stable_once.add(place.stable.revision.name)
        canary = place.canary
        if canary is None:
            self._passed.clear()
        elif canary.weight > 0 and (canary.step_started_at is None or canary.promoting_since is not None):
            name, to = canary.revision.name, canary.step + (canary.promoting_since is not None)
            if name in self.cluster.prompts and self._passed.get(name, (0, 0.0))[0] != to:
                self._passed[name] = to, self._ill(self.cluster.prompts[name])
        now = {rejection.revision.name for rejection in place.rejected}
        for rejection in place.rejected:
            if rejection.revision.name not in self.rejected_in_status:
                self._may_be_rejected(rejection)
        # What the revision before it shares is no verdict.
        shared = {place.incident.revision.name} if place.incident is not None else set()
        self.rejected -= shared
        if not self.tokens:
            assert self.rejected_in_status - shared <= now, f"9: {self.rejected_in_status - now} is rejected no more"
        self.rejected_in_status = now
        self.rejected |= now
        traffic, body = self.cluster.traffic, self.cluster.api.objects.get(self.cluster.traffic_id)
        # What a former policy left, and something else has controlled since, is not this one's before it is adopted.
        if traffic is not None and body is not None and self._is_adopted(body):
            self._nothing_rejected(traffic)

    def _may_be_rejected(self, rejection: Rejection) -> None:
        """3: for what was seen of it; in a dry run for nothing that is a verdict."""
        name, reason = rejection.revision.name, rejection.reason
        assert not self.dry or reason in FOR_GOOD, f"a dry run has taken {name} back for {reason}"
        if reason == Reason.HELD_TOO_LONG:
            seen = self.cluster.open_for(self.cluster.prompts[name])
            assert self.most is not None, f"{name} is rejected for what the policy does not ask for"
            assert seen >= self.most - SETTLING_SECONDS, f"3: {name} was held for too long, and seen for {seen:.0f} s of {self.most}"

    def _route_came_first(self) -> None:
        """4 and 7: status ends a canary when its traffic is gone, so that whoever comes next finds it gone."""
        place, traffic = self.cluster.place, self.cluster.traffic
        body = self.cluster.api.objects.get(self.cluster.traffic_id)
        if body is None or not body["metadata"].get("labels") or not self._is_adopted(body):
            return  # for operators there is none, or none that they know to be theirs yet
        if place.stable is not None and place.canary is None and traffic is not None:
            assert traffic.permille == 0, f"4: status knows no canary, and gateways are told {traffic}"

    def _nothing_rejected(self, route: TrafficState) -> None:
        names = {rejection.revision.name for rejection in self.cluster.place.rejected}
        names |= {route.aborted.revision} if route.aborted is not None else set()
        for name in names if self.tokens else names | self.rejected:
            assert share_of(name, state=route) == 0, f"10: {name} was rejected and has traffic"

    def _deployment(self, change: Change) -> None:
        """12: what callers reach keeps its pods."""
        traffic = self.cluster.traffic
        if traffic is None or change.before is None:
            return
        revision = change.id[2].removeprefix(f"{POLICY}-")
        replicas = change.after["spec"]["replicas"] if change.after is not None else 0
        if revision == traffic.stable:
            assert replicas >= REPLICAS, f"12: stable {revision} is scaled to {replicas}"
        elif revision == traffic.canary and traffic.permille:
            needed = -(-REPLICAS * traffic.permille // 1000)
            assert replicas >= needed, f"12: {revision} is scaled to {replicas} at {traffic.permille} ‰"


def deployment_id(revision: str) -> Id:
    """Where the Deployment of a revision is."""
    return DEPLOYMENTS.plural, NAMESPACE, f"{POLICY}-{revision}"
