"""The rest of the world: kubelet, gateways, traffic, people. Everything here is the truth; operators see it late or not at all."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from backstop.analysis.reading import SLOReading, Waiting
from backstop.api.clock import render_time
from backstop.api.names import (
    ACCEPTED_AT,
    API_VERSION,
    GROUP,
    LABEL_POLICY,
    LABEL_REVISION,
    RECORD_KEY,
    callers_service,
    canary_service,
    stable_service,
)
from backstop.api.policystatus import FallbackPolicyStatus
from backstop.api.traffic import TrafficState
from backstop.kube.resources import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    JOBS,
    PODS,
    POLICIES,
    PROMPT_VERSIONS,
    REPORTS,
    SERVICES,
    Body,
)
from backstop.rollout.observed import Known
from backstop.rollout.place import Place
from backstop.rollout.route import share_of
from backstop.rollout.statusmap import place_of
from backstop.traffic import router
from backstop.traffic.replicas import OF_SERVICE
from tests.rollout.world import BREACHED, HEALTHY, START, UNSEEN, reading

from .api import Api, Id
from .loop import SimulatedLoop
from .process import Process
from .wishes import EDITS, POLICY, REPLICAS, SEEING, Edit

NAMESPACE: Final = "shop"
VERDICTS: Final = {"healthy": (HEALTHY,), "waiting": (reading(Waiting(20)),), "breached": (BREACHED,), "unseen": (UNSEEN,), "silent": ()}
POLICY_ID: Final[Id] = (POLICIES.plural, NAMESPACE, POLICY)
SERVICE_ID: Final[Id] = (SERVICES.plural, NAMESPACE, callers_service(POLICY))
SLICE_ID: Final[Id] = (ENDPOINT_SLICES.plural, NAMESPACE, f"{POLICY}-slice")


@dataclass
class Cluster:
    """One policy and its pods. Sets of names are PromptVersions, or images of the same names where `own`."""

    loop: SimulatedLoop = field(default_factory=SimulatedLoop)
    namespace: str = NAMESPACE
    own: bool = False
    broken: set[str] = field(default_factory=set)
    pods_take: float = 1.0  # seconds, from when a pod begins to when it is ready
    verdicts: dict[str, str] = field(default_factory=dict)
    healthy_until: dict[str, float] = field(default_factory=dict)  # of those that are not healthy now
    open: dict[str, float] = field(default_factory=dict)  # seconds for which they could be seen, and were not healthy
    load: int = REPLICAS  # pods that an autoscaler would have
    deaf: bool = False
    prompts: dict[str, str] = field(default_factory=dict)  # revision → PromptVersion
    come_to: dict[str, str | None] = field(default_factory=dict)  # PromptVersion → how its probes end; None: they hang
    passed: set[tuple[str, str]] = field(default_factory=set)  # revision and bar that a probe has passed
    _acts_on: dict[str, int] = field(default_factory=dict)  # pod → generation
    _since: dict[str, float] = field(default_factory=dict)  # pod or Job → when it began
    _judged_at: dict[str, float] = field(default_factory=dict)
    _pods: int = 0
    _was_broken: set[str] = field(default_factory=set)
    _starting: bool = False

    def __post_init__(self) -> None:
        self.api = Api(clock=lambda: render_time(self.now()))
        self.processes = [Process(self, loop=self.loop, name=f"operator-{n}", seed=n) for n in (1, 2)]
        self._life = self.loop.create_task(self._live())

    def now(self) -> float:
        """Seconds since the epoch."""
        return START + self.loop.time()

    # What operators ask

    def readings(self, canary: str, *, since: float | None, source: str) -> tuple[SLOReading, ...]:
        """What the SLO says of this revision: nothing before its weight is verified, but for a breach."""
        verdict = self.verdicts.get(self.prompts.get(canary, ""), "healthy") if source == SEEING else "unseen"
        if since is None and verdict != "breached":
            return ()
        return VERDICTS[verdict]

    def acting(self, pods: list[str]) -> list[int | None]:
        """The generations of these gateways."""
        return [self._acts_on.get(pod) for pod in pods]

    # What people and the world do

    def prompt(self, name: str) -> None:
        """Create a PromptVersion."""
        prompt = {"prompt": POLICY, "version": f"1.0.0-{name}", "messages": [{"role": "system", "content": f"You are {name}."}]}
        body = {"apiVersion": API_VERSION, "kind": "PromptVersion", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": prompt}
        self.api.write((PROMPT_VERSIONS.plural, NAMESPACE, name), body, who="person")

    def apply(self, wanted: Body) -> None:
        """The policy's spec, as applied from Git."""
        metadata = {"name": POLICY, "namespace": NAMESPACE}
        present = self.api.objects.get(POLICY_ID)
        if present is not None:
            metadata = present["metadata"]
        body = {"apiVersion": API_VERSION, "kind": "FallbackPolicy", "metadata": metadata, "spec": wanted}
        self.api.write(POLICY_ID, body, who="person")

    def ask(self, token: str, value: str) -> None:
        """Annotate the policy."""
        present = self.api.objects[POLICY_ID]["metadata"]
        annotations = present.get("annotations", {}) | {f"{GROUP}/{token}": value}
        self.api.write(POLICY_ID, {"metadata": present | {"annotations": annotations}}, who="person")

    def touch(self, id_: Id) -> None:
        """Somebody writes something of no importance into the object."""
        self.api.touch(id_)

    def judge(self, prompt: str, verdict: str) -> None:
        """From now on its requests are like this."""
        before, now = self.verdicts.get(prompt, "healthy"), self.now()
        if before == "healthy" and verdict != "healthy":
            self.healthy_until[prompt] = now
        if before in ("waiting", "breached"):
            self.open[prompt] = self.open_for(prompt)
        self.verdicts[prompt], self._judged_at[prompt] = verdict, now

    def open_for(self, prompt: str) -> float:
        """For how many seconds, in all, its requests could be seen, and were not healthy."""
        is_open = self.verdicts.get(prompt) in ("waiting", "breached")
        return self.open.get(prompt, 0.0) + (self.now() - self._judged_at[prompt] if is_open else 0.0)

    def crash_container(self, revision: str) -> None:
        """A container of this revision exits with a failure, and runs again."""
        for pod in self.pods(revision)[:1]:
            status = dict(pod["status"])
            (container,) = status["containerStatuses"]
            ended = {"terminated": {"exitCode": 1}}
            status["containerStatuses"] = [container | {"restartCount": container["restartCount"] + 1, "lastState": ended}]
            self.api.write((PODS.plural, NAMESPACE, pod["metadata"]["name"]), {"status": status}, who="kubelet")

    def lose_pods(self, revision: str) -> None:
        """All its pods go, and are made anew."""
        for pod in self.pods(revision):
            self.api.delete((PODS.plural, NAMESPACE, pod["metadata"]["name"]), who="kubelet")

    def lose_deployment(self, revision: str) -> None:
        """Somebody deletes it; its pods go with it."""
        self.api.delete((DEPLOYMENTS.plural, NAMESPACE, f"{POLICY}-{revision}"), who="person")

    def delete_policy(self) -> None:
        """It is gone at once, or when nothing holds it any more; what it owned goes with it."""
        if self.exists and "deletionTimestamp" not in self.policy["metadata"]:
            self.api.delete(POLICY_ID, who="person")

    def lose_status(self) -> None:
        """A backup is restored that has no status."""
        self.api.write(POLICY_ID, {"status": {}}, who="person")

    def edit_route(self, edit: Edit) -> None:
        """Somebody changes what the route does, or takes its labels off; not what it says."""
        present = self.api.objects.get(self.traffic_id)
        if present is None:
            return
        change: Body = {"metadata": present["metadata"] | {"labels": {}}}
        if edit is not Edit.LABELS and self.own:
            change = {"spec": present["spec"] | EDITS[edit]}
        elif not present["metadata"].get("ownerReferences"):
            return  # nothing would say any more whose it is
        self.api.write(self.traffic_id, change, who="person")

    def lose_owners(self) -> None:
        """A tool copies what the policy owns, and leaves out whose it is. Not of reports, which nobody looks at again."""
        for id_, body in list(self.api.objects.items()):
            owners = body["metadata"].get("ownerReferences") or ()
            marked = bool(body["metadata"].get("labels"))  # else nothing would say any more whose it is
            if marked and id_[0] != REPORTS.plural and any(owner["uid"] == self.policy["metadata"]["uid"] for owner in owners):
                self.api.write(id_, {"metadata": body["metadata"] | {"ownerReferences": []}}, who="person")

    def take_route(self) -> None:
        """Something else controls the object of the route from now on, and leaves it as it is."""
        present = self.api.objects.get(self.traffic_id)
        if present is not None and present["metadata"].get("labels"):
            uid = self.api.objects[PROMPT_VERSIONS.plural, NAMESPACE, "v1"]["metadata"]["uid"]
            owner = {"uid": uid, "kind": "Helper", "name": "else", "controller": True}
            self.api.write(self.traffic_id, {"metadata": present["metadata"] | {"ownerReferences": [owner]}}, who="person")

    def is_foreign(self, body: Body | None) -> bool:
        """Whether something else controls it."""
        owners = body["metadata"].get("ownerReferences") or () if body is not None else ()
        return any(owner.get("kind") == "Helper" for owner in owners)

    def give_route_back(self) -> None:
        """What controlled it lets go of it."""
        present = self.api.objects.get(self.traffic_id)
        if present is not None and self.is_foreign(present):
            self.api.write(self.traffic_id, {"metadata": present["metadata"] | {"ownerReferences": []}}, who="person")

    def orphans(self) -> list[str]:
        """What says that it is the policy's, and has no owner; but for the record that outlives it, and Jobs whose time to live runs."""
        labelled = [body for body in self.api.objects.values() if LABEL_POLICY in (body["metadata"].get("labels") or {})]
        labelled = [body for body in labelled if "ttlSecondsAfterFinished" not in body.get("spec", {}) or not body.get("status")]
        kept = [body for body in labelled if ACCEPTED_AT not in (body["metadata"].get("annotations") or {})]
        return [body["metadata"]["name"] for body in kept if not body["metadata"].get("ownerReferences")]

    def lose_jobs(self) -> None:
        """Somebody cleans up."""
        for job in self.api.of(JOBS.plural):
            self.api.delete((JOBS.plural, NAMESPACE, job["metadata"]["name"]), who="person")

    # What is there

    @property
    def exists(self) -> bool:
        """Whether there is a policy, though it may be going."""
        return POLICY_ID in self.api.objects

    def pods(self, revision: str) -> list[Body]:
        """Pods of this revision."""
        return [pod for pod in self.api.of(PODS.plural) if pod["metadata"]["labels"].get(LABEL_REVISION) == revision]

    def ready(self, revision: str) -> int:
        """Ready pods of this revision."""
        return sum(_is_ready(pod) for pod in self.pods(revision))

    def replicas(self, revision: str) -> int | None:
        """Replicas of its Deployment; None when it has none."""
        body = self.api.get(DEPLOYMENTS.plural, f"{POLICY}-{revision}", namespace=NAMESPACE)
        return int(body["spec"]["replicas"]) if body is not None else None

    def selected(self) -> dict[str, str | None]:
        """The revision that each of the callers' Services selects."""
        found = {}
        for name in (POLICY, stable_service(POLICY), canary_service(POLICY)):
            body = self.api.get(SERVICES.plural, name, namespace=NAMESPACE)
            found[name] = body["spec"]["selector"].get(LABEL_REVISION) if body is not None else None
        return found

    @property
    def policy(self) -> Body:
        """The policy."""
        return self.api.objects[POLICY_ID]

    @property
    def status(self) -> FallbackPolicyStatus:
        """The policy's status; empty while there is none."""
        return FallbackPolicyStatus.model_validate(self.policy.get("status", {}) if self.exists else {})

    @property
    def place(self) -> Place:
        """The place in its status."""
        return place_of(self.status)

    def prompt_status(self, name: str) -> Body:
        """The status of a PromptVersion."""
        status: Body = self.api.objects[PROMPT_VERSIONS.plural, NAMESPACE, name].get("status", {})
        return status

    @property
    def traffic_id(self) -> Id:
        """Where the traffic state is written."""
        kind = router.REPLICAS if self.own else router.GATEWAYS
        return kind.resource.plural, NAMESPACE, kind.name(POLICY)

    @property
    def traffic(self) -> TrafficState | None:
        """The traffic state; None where there is none that could be read."""
        body = self.api.objects.get(self.traffic_id)
        return state_in(body, own=self.own) if body is not None else None

    def reached(self) -> Counter[str]:
        """Ready pods, by revision, that connections of callers go to."""
        return Counter(pod["metadata"]["labels"][LABEL_REVISION] for pod in self._endpoints())

    def share(self, revision: str) -> int:
        """Thousandths of what callers send that this revision gets: as gateways are told, or as the pods really make it."""
        if not self.own:
            return share_of(revision, state=self.traffic) if self.traffic is not None else 0
        reached = self.reached()
        return 1000 * reached[revision] // max(1, reached.total())

    def _endpoints(self) -> list[Body]:
        """The ready pods that the callers' Service selects."""
        service = self.api.objects.get(SERVICE_ID)
        if service is None or service["spec"]["type"] != "ClusterIP":
            return []
        wanted = service["spec"]["selector"].items()
        return [pod for pod in self.api.of(PODS.plural) if _is_ready(pod) and wanted <= pod["metadata"]["labels"].items()]

    def heal(self) -> None:
        """Nothing is wrong any more with the network, the processes, the gateways and the pods."""
        for process in self.processes:
            process.wire.faults.clear()
            process.wire.latency, process.watch_delay = 0.02, 0.05
            process.resume()
            process.start()
        self.deaf = False
        self.broken.clear()
        self.pods_take = 1.0
        self.give_route_back()

    def check(self) -> None:
        """Raises what ended the rest of the world, if anything did."""
        if self._life.done():
            self._life.result()

    def end(self) -> None:
        """Nothing runs any more."""
        for process in self.processes:
            process.die()
        self._life.cancel()
        self.loop.let_pass(0.1)
        self.loop.close()

    # Kubelet, Deployment controller, gateways

    async def _live(self) -> None:
        settled = -1
        while True:
            if self.api.version != settled or self.broken != self._was_broken or self._starting:
                settled, self._was_broken = self.api.version, set(self.broken)
                self._collect_garbage()
                self._run_pods()
            self._run_jobs()
            self._scale()
            if self.own and not self.deaf:
                self._fill_slice()
            traffic = self.traffic
            if traffic is not None and not self.deaf:
                for pod in self.api.of(PODS.plural):
                    name = pod["metadata"]["name"]
                    self._acts_on[name] = max(traffic.generation, self._acts_on.get(name, 0))
            await asyncio.sleep(0.5)

    def _collect_garbage(self) -> None:
        """What belongs to nothing that is there goes."""
        there = {body["metadata"]["uid"] for body in self.api.objects.values()}
        for id_, body in list(self.api.objects.items()):
            owners = body["metadata"].get("ownerReferences") or ()
            if owners and id_[0] != PODS.plural and not any(owner["uid"] in there for owner in owners):
                self.api.delete(id_, who="collector")

    def _fill_slice(self) -> None:
        """The ready pods that the callers' Service selects are its endpoints."""
        service, present = self.api.objects.get(SERVICE_ID), self.api.objects.get(SLICE_ID)
        if service is None:
            return
        endpoints = [{"targetRef": {"name": pod["metadata"]["name"]}, "conditions": {"ready": True}} for pod in self._endpoints()]
        if present is None:
            metadata = {"name": SLICE_ID[2], "namespace": NAMESPACE, "labels": {OF_SERVICE: POLICY}}
            owned = {"ownerReferences": [{"uid": service["metadata"]["uid"]}]}
            self.api.write(SLICE_ID, {"metadata": metadata | owned, "endpoints": endpoints}, who="endpoints")
        else:
            self.api.write(SLICE_ID, {"endpoints": endpoints}, who="endpoints")

    def _run_jobs(self) -> None:
        """Two seconds after its begin a probe ends, as it is to."""
        for job in self.api.of(JOBS.plural):
            metadata, name = job["metadata"], job["metadata"]["name"]
            since = self._since.setdefault(metadata["uid"], self.now())
            revision, (bar,) = metadata["labels"][LABEL_REVISION], job["spec"]["template"]["spec"]["containers"][0]["args"]
            end = self.come_to.get(self.prompts.get(revision, ""), "Complete")
            if end is None or self.now() - since < 2.0 or job.get("status") or "deletionTimestamp" in metadata:
                continue
            if end == "Complete":
                self.passed.add((revision, bar))
            condition = {"type": end, "status": "True", "reason": "" if end == "Complete" else "BackoffLimitExceeded"}
            self.api.write((JOBS.plural, NAMESPACE, name), {"status": {"conditions": [condition]}}, who="kubelet")

    def _scale(self) -> None:
        """Autoscalers follow the load, as far as they may."""
        for autoscaler in self.api.of(AUTOSCALERS.plural):
            spec = autoscaler["spec"]
            id_ = DEPLOYMENTS.plural, NAMESPACE, spec["scaleTargetRef"]["name"]
            if (scaled := self.api.objects.get(id_)) is None or (present := scaled["spec"]["replicas"]) == 0:
                continue
            wanted = min(max(self.load, spec["minReplicas"]), spec["maxReplicas"])
            if wanted > present or (wanted < present and spec["behavior"]["scaleDown"]["selectPolicy"] != "Disabled"):
                self.api.write(id_, {"spec": scaled["spec"] | {"replicas": wanted}}, who="autoscaler")

    def _run_pods(self) -> None:
        self._starting = False
        deployments = {body["metadata"]["uid"]: body for body in self.api.of(DEPLOYMENTS.plural)}
        mine: dict[str, list[Body]] = {uid: [] for uid in deployments}
        for pod in self.api.of(PODS.plural):
            owner = pod["metadata"]["ownerReferences"][0]["uid"]
            if owner in mine:
                mine[owner].append(pod)
            else:
                self.api.delete((PODS.plural, NAMESPACE, pod["metadata"]["name"]), who="kubelet")
        for uid, deployment in deployments.items():
            replicas = deployment["spec"]["replicas"]
            for pod in mine[uid][replicas:]:
                self.api.delete((PODS.plural, NAMESPACE, pod["metadata"]["name"]), who="kubelet")
            for _ in range(replicas - len(mine[uid])):
                self._make_pod(deployment)
            for pod in mine[uid][:replicas]:
                self._keep_ready(pod)

    def _make_pod(self, deployment: Body) -> None:
        self._pods += 1
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        name = f"{deployment['metadata']['name']}-{self._pods}"
        self._mount(name, labels[LABEL_REVISION])
        metadata = {"name": name, "namespace": NAMESPACE, "labels": labels, "ownerReferences": [{"uid": deployment["metadata"]["uid"]}]}
        self.api.write((PODS.plural, NAMESPACE, name), {"metadata": metadata, "status": _pod_status(ready=False)}, who="kubelet")

    def _keep_ready(self, pod: Body) -> None:
        name, revision = pod["metadata"]["name"], pod["metadata"]["labels"][LABEL_REVISION]
        if name not in self._since and not self._mount(name, revision):
            return
        young = self.now() - self._since[name] < self.pods_take
        self._starting |= young
        ready = self.prompts[revision] not in self.broken and not young
        if ready is not _is_ready(pod):
            status = pod["status"] | {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
            self.api.write((PODS.plural, NAMESPACE, name), {"status": status}, who="kubelet")

    def _mount(self, name: str, revision: str) -> bool:
        """Start this pod, if the record that it needs is there."""
        self._starting = True
        record = self.api.objects.get((CONFIG_MAPS.plural, NAMESPACE, f"{POLICY}-{revision}"))
        if record is None:
            return False
        self._since[name] = self.now()
        self.prompts[revision] = str(json.loads(record["data"][RECORD_KEY])["promptVersion"])
        return True


def state_in(body: Body, *, own: bool) -> TrafficState | None:
    """The traffic state in the object that carries it."""
    kind = router.REPLICAS if own else router.GATEWAYS
    said = kind.observe(body.get("data", {}), annotations=body["metadata"].get("annotations", {}))
    return said.value if isinstance(said, Known) else None


def _is_ready(pod: Body) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])


def _pod_status(*, ready: bool) -> dict[str, Any]:
    container = {"name": "gateway", "image": "gateway:test", "ready": ready, "restartCount": 0, "state": {"running": {}}}
    return {
        "phase": "Running",
        "podIP": "127.0.0.1",
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        "containerStatuses": [container],
    }
