"""A small cluster in memory: status, the traffic object, pods and gateways, as far as a decision can see them.

It carries out plans in the order of writes of the operator, and can stop after any of them, as a crash would. Everything that is
kept between passes goes through the real status mapping, so that a pass after a crash knows only what a restarted operator knows.
In one file although it is long: what a pass writes is what the next one sees.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from backstop.analysis.reading import Breached, Breaching, Counts, Healthy, SLOReading, Waiting
from backstop.analysis.reading import Unknown as Unseen
from backstop.api.fallbackpolicy import FallbackPolicySpec
from backstop.api.policystatus import FallbackPolicyStatus
from backstop.api.reasons import Reason
from backstop.api.traffic import TrafficState, parse, render
from backstop.rendering.owner import Owner
from backstop.reports.report import report_name, report_of
from backstop.rollout.decide import decide
from backstop.rollout.judged import judged
from backstop.rollout.observed import Arm, Known, NotTried, Observed, ProbeSeen, ProbeState, Reporting, Unknown, Unresolved, Written
from backstop.rollout.place import NO_TOKENS, Place, Rejection, Revision, Tokens, awaited_generation, is_another_end
from backstop.rollout.plan import Announcement, Plan
from backstop.rollout.statusmap import place_of, status_of
from backstop.rollout.verdict import Verdict, verdict_on_prompt

START = 1_800_000_000.0
ASKED_AFTER = 0.25  # seconds, until gateways that act on a route are seen to
DIED_SECONDS = 0.01  # until the next operator looks: a process ends, and another one is told


def revision(version: str) -> Revision:
    """A revision named after its prompt version."""
    return Revision(f"rev{version}", prompt_version=version, prompt_digest=f"sha256:{version}")


GATEWAYS = {
    "promptVersion": "v1",
    "latencyBudgetMilliseconds": 400,
    "chain": [{"name": "primary", "model": {"baseURL": "http://model/v1", "name": "m"}}],
    "slos": [{"name": "latency", "indicator": "Latency", "quantilePercent": 95, "maxMilliseconds": 150, "forSeconds": 30}],
}
OWN = {"slos": [{"name": "latency", "promQL": {"bad": "late_total", "total": "all_total"}, "maxPercent": "5", "forSeconds": 30}]}


def policy(
    *,
    steps: tuple[tuple[int, int], ...] = ((5, 60), (50, 60), (100, 60)),
    replicas: int = 2,
    deadline: int = 120,
    approval: tuple[int, ...] = (),
    mode: str = "Automatic",
    paused: bool = False,
    blind: dict[str, object] | None = None,
    probes: tuple[str, ...] = (),
    autoscaling: dict[str, int] | None = None,
    guard: int = 0,
    keep: int = 60,
    own: bool = False,
) -> FallbackPolicySpec:
    """A policy with one latency SLO. `steps`: weight and hold of each; `approval`: the weights that wait for a person; `probes`: names;
    `own`: with a workload of its author's own.
    """
    return FallbackPolicySpec.model_validate(
        {
            **(OWN if own else GATEWAYS),
            "canary": {
                "steps": [{"weight": w, "holdSeconds": h, "approval": w in approval} for w, h in steps],
                "progressDeadlineSeconds": deadline,
                "paused": paused,
                "probes": [{"name": name, "job": {"image": "prober:1"}} for name in probes],
            },
            "serving": {"replicas": replicas, "autoscaling": autoscaling, "workload": {"image": "w:1", "port": 80} if own else None},
            "rollback": {"keepPreviousSeconds": keep, "guardSeconds": guard, "mode": mode, "onMetricsUnavailable": blind or {}},
        }
    )


def reading(state: Healthy | Breaching | Breached | Waiting | Unseen) -> SLOReading:
    """The latency SLO in this state."""
    return SLOReading(
        name="latency",
        state=state,
        reason=Reason.METRICS_UNAVAILABLE if isinstance(state, Unseen) else Reason.LATENCY_BREACH,
        value="14.8",
        limit="5",
        canary=Counts(bad=61, total=412),
        stable=Counts(bad=20, total=7811),
        step_requests=412,
        evidence="latency: 61 of 412 canary requests over 150 ms",
    )


HEALTHY = reading(Healthy())
BREACHED = reading(Breached(since=START))
UNSEEN = reading(Unseen("Prometheus does not answer"))


@dataclass
class World:
    """The cluster, the clock, and what has been written so far."""

    policy: FallbackPolicySpec = field(default_factory=policy)
    wanted: Known[Revision] | Unresolved = field(default_factory=lambda: Known(revision("1")))
    now: float = START
    status: FallbackPolicyStatus = field(default_factory=FallbackPolicyStatus)
    traffic: Mapping[str, str] | None = None
    arms: dict[str, Arm] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)  # revisions whose pods never get ready
    pace: int = 1000  # pods of a revision that get ready in one moment
    deaf: bool = False  # gateways do not take up new generations
    unread: bool = False  # the traffic object says what nobody understands; gateways go on with what they know
    acting: int = 0
    acting_since: float | None = None
    judged: SLOReading | None = field(default_factory=lambda: HEALTHY)
    serving: str | None = None
    # Jobs of probes, by revision, start of the rollout and name; what they come to, by name, and how often each was begun.
    jobs: dict[tuple[str, float, str], ProbeState] = field(default_factory=dict)
    made_of: dict[tuple[str, float, str], str] = field(default_factory=dict)  # marks of the probes that they were made from
    come_to: dict[str, ProbeState | None] = field(default_factory=dict)  # None: it hangs
    unseen: set[str] = field(default_factory=set)  # probes whose Jobs cannot be seen
    begun: list[str] = field(default_factory=list)
    tokens: Tokens = NO_TOKENS
    told: list[Announcement] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    reports: dict[str, Mapping[str, object]] = field(default_factory=dict)  # what they say, by name
    reported: str | None = None  # the last report that the running operator knows to be written
    writes: list[str] = field(default_factory=list)
    shares: list[tuple[float, str, str | None, int]] = field(default_factory=list)
    lingering: set[str] = field(default_factory=set)  # revisions whose Deployment is smaller or gone, and whose pods are not yet
    linger: bool = False  # they stay for as long
    strays: bool = False  # somebody has made the route do something else than it says
    new_pod: int | None = None  # the generation that one acts on which began after an older traffic object was put back
    put_back: bool = False  # somebody has put an older traffic object in the place of the newest
    # Revisions whose verdict was one on an incident that stable shared, and the traffic object's generation when status said so.
    withdrawn: dict[str, int] = field(default_factory=dict)
    deaths: float = 0  # of operators in the middle of a pass, since the traffic object was written
    exists: bool = True
    acted: TrafficState | None = None  # what gateways act on
    # What they acted on when the policy went, and how long they had been watched for it.
    left: tuple[TrafficState | None, float] | None = None
    back: float = 0.0  # by how much the operator's clock was set back, in all
    ended: float | None = None  # when status said that a canary's traffic had, by a clock that nobody sets
    deleting: bool = False
    finalizer: bool = False
    kept: tuple[Revision, tuple[Rejection, ...]] | None = None  # the record of the last accepted revision, and what stands on it
    # What was worked out for the status that was read last, and for the present policy: much asks for it.
    _read: tuple[FallbackPolicyStatus, Place] | None = field(default=None, init=False)
    _marked: tuple[FallbackPolicySpec, dict[str, str]] | None = field(default=None, init=False)

    @property
    def place(self) -> Place:
        """The place that a restarted operator would read."""
        if self._read is None or self._read[0] is not self.status:
            self._read = self.status, place_of(FallbackPolicyStatus.model_validate_json(self.status.model_dump_json()))
        return self._read[1]

    @property
    def route(self) -> TrafficState | None:
        """The traffic object."""
        return parse(self.traffic) if self.traffic is not None else None

    @property
    def lowest(self) -> int:
        """The generation that the gateway acts on which is furthest behind."""
        return self.acting if self.new_pod is None else min(self.new_pod, self.acting)

    def observe(self) -> Observed:
        """What the operator sees now."""
        place = self.place
        live = judged(place, policy=self.policy) is not None and bool(self.policy.slos)
        return Observed(
            place=place,
            wanted=self._salted(place),
            route=Unknown("it cannot be read") if self.unread else Known(self.route),
            arms=dict(self.arms),
            acting=Known(self.lowest) if self.unread or awaited_generation(place) is not None else Unknown("not asked"),
            acting_since=self.acting_since,
            newest=self.acting if self.unread or awaited_generation(place) is not None else None,
            readings=(self.judged,) if live and self.judged is not None else (),
            tokens=self.tokens,
            probes=self._probes(place),
            leaving=self.deleting,
            accepted=self.kept[0] if self.kept is not None and place.stable is None else None,
            remembered=self._remembered() if place.stable is None else self._on_prompt_version(place),
            requests=self.judged.canary.total if live and self.judged is not None else None,
            reporting=self._reporting(),
            # What a Service does whose annotations nobody can read is nobody's word.
            strays=self.strays or (self.unread and self.policy.serving.workload is not None),
            with_pods=frozenset(self.lingering | {name for name, arm in self.arms.items() if arm.ready > 0}),
        )

    def _probes(self, place: Place) -> dict[str, Known[ProbeSeen] | Unknown]:
        probed = place.probed
        if probed is None:
            return {}
        mine = {key: state for key, state in self.jobs.items() if key[:2] == (probed.revision.name, probed.started_at)}
        return {
            key[2]: Unknown("it belongs to something else")
            if key[2] in self.unseen
            else Known(ProbeSeen(state, "exited with code 3", mark=self.made_of[key]))
            for key, state in mine.items()
        }

    def _remembered(self) -> tuple[Rejection, ...]:
        accepted, beside = self.kept or (None, ())
        found = [Rejection(v.revision, reason=v.reason, message=v.message, at=v.at) for v in self.verdicts]
        known = {rejection.revision for rejection in found}
        return tuple(r for r in (*found, *(r for r in beside if r.revision not in known)) if r.revision != accepted)

    def _on_prompt_version(self, place: Place) -> tuple[Rejection, ...]:
        """What the prompt version of the wanted revision says of it, which is asked when it would be rolled out."""
        wanted = self._salted(place)
        if not isinstance(wanted, Known) or place.stable is None or place.canary is not None or wanted.value == place.stable.revision:
            return ()
        return tuple(
            Rejection(v.revision, reason=v.reason, message=v.message, at=v.at) for v in self.verdicts if v.revision == wanted.value
        )

    def _reporting(self) -> Reporting:
        last = self.status.lastRollout
        name = report_name("support", last=last) if last is not None and last.report is None else None
        return Written(name) if name is not None and name == self.reported else NotTried()

    def _salted(self, place: Place) -> Known[Revision] | Unresolved:
        """What is wanted: another revision of the same version, where it was refreshed."""
        if isinstance(self.wanted, Unresolved) or not place.acknowledged.refresh:
            return self.wanted
        return Known(replace(self.wanted.value, name=f"{self.wanted.value.name}-{place.acknowledged.refresh}"))

    def decide(self) -> Plan:
        """The plan for this moment."""
        return decide(self.observe(), policy=self.policy, now=self.now)

    def one_pass(self, *, stop_after: int | None = None) -> Plan:
        """Observe, decide, apply; with `stop_after`, die after that many writes."""
        assert self.exists
        observed = self.observe()
        plan = decide(observed, policy=self.policy, now=self.now)
        writes = self._writes(plan, readings=observed.readings)
        for name, write in writes[:stop_after]:
            write()
            self.writes.append(name)
        if stop_after is not None:
            self.now += DIED_SECONDS
            self.reported = None  # the next operator knows what is written down
            self.deaths += math.inf if self.unread else 1  # over what cannot be read, any newer generation may have been decided
        return plan

    def write_count(self) -> int:
        """How many writes the present pass consists of."""
        return len(self.write_names())

    def write_names(self) -> list[str]:
        """The writes that the present pass consists of, in order."""
        observed = self.observe()
        return [name for name, _ in self._writes(decide(observed, policy=self.policy, now=self.now), readings=observed.readings)]

    def _writes(self, plan: Plan, *, readings: tuple[SLOReading, ...]):  # type: ignore[no-untyped-def]  # closures over the world
        writes = []
        if plan.route is not None and plan.route.falling:
            writes.append(("route", lambda: self._set_route(plan)))
        status = status_of(plan, previous=self.status, generation=1, readings=readings, analysis=None, arms=self.arms, now=self.now)
        if status != self.status:
            writes.append(("status", lambda: self._set_status(status)))
        verdict = verdict_on_prompt(plan.place)
        if verdict is not None and verdict not in self.verdicts:
            writes.append(("verdict", lambda: self.verdicts.append(verdict)))
        accepted = {r.name for r in _accepted(plan.place)}
        if verdict is None and any(v.revision.name in accepted for v in self.verdicts):
            withdrawn = [v for v in self.verdicts if v.revision.name not in accepted]
            writes.append(("withdrawal", lambda: setattr(self, "verdicts", withdrawn)))
        sizes = {name: self._size(name, plan=plan) for name in plan.sizes}
        if plan.place.stable is None:  # then nothing is deleted
            sizes |= {name: arm.desired for name, arm in self.arms.items() if name not in sizes}
        grown = not self.deleting and any(self.arms.get(name, Arm(0, 0)).desired != size for name, size in sizes.items())
        if grown or set(self.arms) - set(sizes):
            writes.append(("children", lambda: self._set_sizes(sizes)))
        if plan.finalizer and not self.finalizer and not self.deleting:
            writes.append(("finalizer", lambda: setattr(self, "finalizer", True)))
        return [*writes, *self._later_writes(plan)]

    def _later_writes(self, plan: Plan):  # type: ignore[no-untyped-def]  # closures over the world
        writes = []
        if plan.route is not None and not plan.route.falling:
            writes.append(("route", lambda: self._set_route(plan)))
        if self._jobs_after(plan) != self.jobs or self._outdated(plan):
            writes.append(("jobs", lambda: self._set_jobs(plan)))
        stable = plan.place.stable
        if stable is not None and self.kept != (kept := (stable.revision, plan.place.rejected)):
            writes.append(("record", lambda: setattr(self, "kept", kept)))
        if not self.deleting and plan.serving != self.serving:
            writes.append(("services", lambda: setattr(self, "serving", plan.serving)))
        if not plan.finalizer and self.finalizer:
            writes.append(("release", self._release))
        if plan.report and not self.deleting:
            writes.append(("report", self._report(self.status)))
        writes.append(("events", lambda: self.told.extend(plan.announcements)))
        return writes

    def _release(self) -> None:
        self.finalizer = False
        if self.deleting:
            self._gone()

    def _gone(self) -> None:
        """The policy is gone, and all that it owned with it."""
        self.left, self.ended = (self.acted, 0.0 if self.ended is None else self.now + self.back - self.ended), None
        self.exists = self.deleting = self.strays = False
        self.status, self.traffic, self.arms, self.serving = FallbackPolicyStatus(), None, {}, None
        self.acting, self.acted, self.new_pod, self.tokens = 0, None, None, NO_TOKENS
        self.reports, self.reported = {}, None
        self.lingering.clear()
        self.unread = False

    def delete(self) -> None:
        """Somebody deletes the policy: it is gone at once, unless something holds it."""
        self.deleting = self.exists
        if self.exists and not self.finalizer:
            self._gone()

    def create_anew(self) -> None:
        """Somebody creates a policy of the name that is free again."""
        assert not self.exists
        self.exists, self.left = True, None

    def _report(self, status: FallbackPolicyStatus) -> Callable[[], None]:
        """Writes the report of the status that was read, once."""

        def write() -> None:
            body = report_of(status, policy=Owner("shop", "support", "uid"), owner=None)
            name = body["metadata"]["name"]
            self.reports.setdefault(name, body["spec"])  # one that exists stays as it is
            self.reported = name

        return write

    def _set_status(self, status: FallbackPolicyStatus) -> None:
        before, self.status = self.place, status
        # What waits for a person has lost its traffic, and gateways are watched for that; its end takes none away.
        if not _is_halted(before) and (_is_halted(self.place) or is_another_end(self.place.last, before=before.last)):
            self.ended = self.now + self.back
        elif _is_halted(before) and self.place.canary is None and self.place.last == before.last:
            self.ended = -math.inf  # with a person's word for what was halted nobody watches its end any more: it begins anew
        if (incident := self.place.incident) is not None:
            self.withdrawn[incident.revision.name] = self.route.generation if self.route is not None else 0

    def _set_route(self, plan: Plan) -> None:
        assert plan.route is not None
        state = plan.route.state
        if self.route is not None and not self.put_back:
            # The next one, or one for each operator more that decided a write and died before it; over what cannot be read, and where
            # gateways know a later one, any that is newer than theirs.
            newer = state.generation - self.route.generation
            assert 1 - self.strays <= newer or (self.unread and state.generation > self.acting)
            assert self.unread or newer <= 1 + self.deaths or state.generation == self.acting + 1
        self.put_back, self.deaths = False, 0
        self.traffic, self.strays, self.unread = render(state), False, False
        self.shares.append((self.now, state.stable, state.canary, state.permille))

    def _jobs_after(self, plan: Plan) -> dict[tuple[str, float, str], ProbeState]:
        probed, outdated = plan.place.probed, self._outdated(plan)
        at = (probed.revision.name, round(probed.started_at, 3)) if probed is not None else None
        kept = {
            key: state
            for key, state in self.jobs.items()
            if key not in outdated
            and (state is ProbeState.FAILED or (key[:2] == at and (key[2] in plan.probes or state is ProbeState.PASSED)))
        }
        return kept | {(*at, name): ProbeState.RUNNING for name in plan.probes if at is not None and (*at, name) not in kept}

    def _outdated(self, plan: Plan) -> set[tuple[str, float, str]]:
        """Jobs of probes that must run, and were edited since."""
        marks = self._marks()
        return {key for key in self.jobs if key[2] in plan.probes and self.made_of[key] != marks[key[2]]}

    def _set_jobs(self, plan: Plan) -> None:
        after, marks, outdated = self._jobs_after(plan), self._marks(), self._outdated(plan)
        made = [key for key in after if key not in self.jobs or key in outdated]
        self.begun += [name for (_, _, name) in made]
        self.made_of |= {key: marks[key[2]] for key in made}
        self.jobs = after

    def _marks(self) -> dict[str, str]:
        if self._marked is None or self._marked[0] is not self.policy:
            self._marked = self.policy, {probe.name: probe.mark for probe in self.policy.canary.probes}
        return self._marked[1]

    def _size(self, name: str, *, plan: Plan) -> int:
        """What the operator writes: the size of what an autoscaler scales is left as it is."""
        present = self.arms.get(name, Arm(0, 0)).desired
        return present if name == plan.autoscaled and present else plan.sizes[name]

    def _set_sizes(self, sizes: Mapping[str, int]) -> None:
        self.lingering |= {name for name, arm in self.arms.items() if arm.ready > 0 and sizes.get(name, 0) == 0}
        self.arms = {name: replace(self.arms.get(name, Arm(0, 0)), desired=size) for name, size in sizes.items()}

    def settle(self) -> None:
        """What the cluster does by itself in a moment: pods get ready, gateways take up the traffic object."""
        for name, arm in self.arms.items():
            self.arms[name] = replace(arm, ready=0 if name in self.broken else min(arm.desired, arm.ready + self.pace))
        if not self.linger:
            self.lingering.clear()
        for key, state in self.jobs.items():
            ends = self.come_to.get(key[2], ProbeState.PASSED)
            if state is ProbeState.RUNNING and ends is not None:
                self.jobs[key] = ends
        # Gateways never go back to a generation before the one that they act on.
        if self.route is not None and not self.deaf and self.new_pod is not None and self.route.generation > self.new_pod:
            self.new_pod = self.route.generation if self.route.generation < self.acting else None
            self.acting_since = self.now + ASKED_AFTER
        if self.route is not None and not self.deaf and self.route.generation > self.acting:
            self.acting, self.acted, self.acting_since = self.route.generation, self.route, self.now + ASKED_AFTER

    def run(self, seconds: float, *, tick: float = 1.0) -> None:
        """Let time pass, with passes until nothing is left to do at each tick."""
        end = self.now + seconds
        while self.now < end and self.exists:
            self.rest()
            self.settle()
            self.now = round(self.now + tick, 3)
        self.rest()

    def scale(self, version: str, *, replicas: int) -> None:
        """An autoscaler sets the number of pods of this version."""
        self.arms[revision(version).name] = replace(self.arms[revision(version).name], desired=replicas)

    def crash(self, version: str) -> None:
        """A container of this version's pods exits with a failure, and is ready again right after."""
        arm = self.arms[revision(version).name]
        self.arms[revision(version).name] = replace(arm, exits=arm.exits + 1)

    def set_back(self, seconds: float) -> None:
        """The operator's clock is."""
        self.now -= seconds
        self.back += seconds

    def rest(self) -> None:
        """Passes until one changes nothing; raises if the engine never comes to rest."""
        for _ in range(30):
            if not self.exists:
                return
            before = self._kept_things()
            plan = self.one_pass()
            if before == self._kept_things():
                assert plan.wake_at is None or plan.wake_at > self.now, "it finds nothing to do, and looks again at once, for ever"
                return
        raise AssertionError("the engine does not come to rest")

    def _kept_things(self) -> tuple[object, ...]:
        return (
            self.status,
            self.traffic,
            dict(self.arms),
            self.serving,
            self.finalizer,
            self.kept,
            self.reported,
            dict(self.jobs),
            self.strays,
        )

    def put_older_route(self, generation: int, *, new_pod: bool = False) -> None:
        """Somebody restores the traffic object as it was at this generation, with what it says now. `new_pod`: one knows no other."""
        assert self.route is not None
        self.new_pod = generation if new_pod else None
        self.traffic, self.put_back, self.unread = render(replace(self.route, generation=generation)), True, False

    def want(self, version: str) -> None:
        """The spec names another version."""
        self.wanted = Known(revision(version))

    def ask(self, **tokens: str) -> None:
        """Somebody annotates the policy."""
        self.tokens = replace(self.tokens, **tokens)

    def reasons(self) -> list[str]:
        """The reasons told so far, in order."""
        return [announcement.reason.value for announcement in self.told]


def _is_halted(place: Place) -> bool:
    return place.canary is not None and place.canary.halted is not None


def _accepted(place: Place) -> list[Revision]:
    """The revision whose rejection on its prompt version is withdrawn: it is tried again, or it is stable."""
    if place.canary is not None and place.canary.halted is None:
        return [place.canary.revision]
    return [place.stable.revision] if place.stable is not None else []


def started(**changes: object) -> World:
    """A world in which version 1 is stable; it had no probes to pass."""
    world = World(**changes)  # type: ignore[arg-type]  # fields of World, given by the test
    declared = world.policy
    world.policy = declared.model_copy(update={"canary": declared.canary.model_copy(update={"probes": []})})
    world.run(3)
    world.policy = declared
    assert world.place.stable is not None
    assert world.place.stable.revision == revision("1")
    return world


def in_rollout(**changes: object) -> World:
    """A world in which version 1 is stable, and version 2 has the share of its first step."""
    world = started(**changes)
    world.want("2")
    world.run(20)
    return world


def share(world: World) -> tuple[str | None, int]:
    """The canary that the traffic object names, and its share in thousandths."""
    assert world.route is not None
    return world.route.canary, world.route.permille


def is_stable(world: World, version: str) -> bool:
    """Whether this version is stable, and nothing under judgement."""
    return world.place.stable is not None and world.place.stable.revision == revision(version) and world.place.canary is None


def until_switched(world: World) -> None:
    """Until the canary is the stable of the traffic object, which no gateway was seen to act on yet."""
    while world.place.canary is None or world.place.canary.routed_at is None:
        world.settle()
        world.one_pass()
        world.now += 1


def breached(*, mode: str = "Automatic") -> World:
    """A world in which version 2 had its breach, and would be healthy now."""
    world = in_rollout(policy=policy(mode=mode))
    world.judged = BREACHED
    world.run(30)
    world.judged = HEALTHY
    return world
