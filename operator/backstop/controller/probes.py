"""The Jobs of probes: what is seen of them, which are made, and which are ended. An idle policy costs no request.

A Job belongs to one rollout, by an annotation: another try of the same revision runs its own. One that failed stays until its time
to live is over, for its whole log; of all others none outlives what it was made for.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from ..api.clock import render_time
from ..api.names import PROBE_CONTAINER
from ..api.probe import Probe
from ..kube.errors import Conflict, KubeError, Rejected
from ..kube.resources import JOBS
from ..rendering.owner import Owner
from ..rendering.probe import probe_object
from ..rollout.observed import Known, ProbeSeen, ProbeState, Unknown
from ..rollout.place import CanaryPlace, FirstPlace
from .belonging import is_ours
from .keys import PolicyKey
from .probeend import LAST_LINES, MOST_LOG_BYTES, how_failed, last_lines
from .seen import JobSeen
from .store import Store
from .subject import Problem, Subject, not_ours, refusal
from .writes import Writes

ProbesSeen = Mapping[str, Known[ProbeSeen] | Unknown]
Probed = CanaryPlace | FirstPlace | None

KEPT_ENDS: Final = 1024


class Probes:
    """Probes of all policies. `image`: what sends requests beside callers'; `pull_secrets`: names of Secrets for pulling images."""

    def __init__(self, writes: Writes, *, store: Store, image: str, pull_secrets: Sequence[str]) -> None:
        self._writes = writes
        self._store = store
        self._image = image
        self._pull_secrets = pull_secrets
        # How probes failed, by the uid of their Jobs, so that a log is read once.
        self._ends: OrderedDict[str, str] = OrderedDict()

    async def look(self, key: PolicyKey, *, owner: str, probed: Probed) -> ProbesSeen:
        """What is known of the probes of this rollout. `owner`: uid of the policy. Reads the log of one that has just failed."""
        if probed is None:
            return {}
        found: dict[str, Known[ProbeSeen] | Unknown] = {}
        for job in self._store.jobs(key):
            if job.deleting or not _is_of(job, probed=probed):
                continue
            if not is_ours(job, owner=owner, policy=key.name):
                found[job.probe] = Unknown(f"Job `{job.name}` belongs to something else")
            else:
                how = await self._how(job) if job.state is ProbeState.FAILED else ""
                found[job.probe] = Known(ProbeSeen(job.state, how, mark=job.mark))
        return found

    def must_read(self, key: PolicyKey, *, probed: Probed) -> bool:
        """Whether `look` would ask the API server for how one failed."""
        failed = (job for job in self._store.jobs(key) if job.state is ProbeState.FAILED and not job.deleting)
        return probed is not None and any(_is_of(job, probed=probed) and job.uid not in self._ends for job in failed)

    async def run(self, subject: Subject) -> Problem | None:
        """Make the Jobs that the plan names, and end those that it does not. Returns the first problem."""
        probed, plan = subject.plan.place.probed, subject.plan
        declared = {probe.name: probe for probe in subject.wish.spec.canary.probes}
        wanted = {name: declared[name].mark for name in plan.probes}
        owner, policy = subject.policy.uid, subject.key.name
        mine = [job for job in self._store.jobs(subject.key) if is_ours(job, owner=owner, policy=policy)]
        jobs = {job.name: job for job in mine if not job.deleting}
        problem = None
        for job in [job for job in jobs.values() if not _is_kept(job, probed=probed, wanted=wanted)]:
            try:
                await self._writes.delete(job)
                del jobs[job.name]
            except Rejected as refused:
                problem = problem or refusal(JOBS, name=job.name, why=refused)
        if probed is None:
            return problem
        for name in plan.probes:
            problem = await self._begin(subject, probed, probe=declared[name], jobs=jobs) or problem
        return problem

    async def _begin(
        self, subject: Subject, probed: CanaryPlace | FirstPlace, *, probe: Probe, jobs: Mapping[str, JobSeen]
    ) -> Problem | None:
        owner = Owner(subject.key.namespace, subject.key.name, subject.policy.uid)
        body = probe_object(
            owner,
            revision=probed.revision.name,
            prompt_version=probed.revision.prompt_version,
            rollout=_rollout(probed),
            probe=probe,
            image=self._image,
            pull_secrets=self._pull_secrets,
            own=subject.wish.spec.serving.workload is not None,
        )
        name = body["metadata"]["name"]
        if name in jobs:
            return None
        try:
            await self._writes.create(JOBS, body=body)
        except Rejected as refused:
            return refusal(JOBS, name=name, why=refused)
        except Conflict:
            # A former one that is still on its way out comes with news of its end, and then there is room.
            there = await self._writes.get(JOBS, namespace=subject.key.namespace, name=name)
            owners = ((there or {}).get("metadata") or {}).get("ownerReferences") or ()
            if there is not None and subject.policy.uid not in {reference["uid"] for reference in owners}:
                return not_ours(JOBS, name=name)
            raise
        return None

    async def _how(self, job: JobSeen) -> str:
        if (known := self._ends.get(job.uid)) is not None:
            return known
        try:
            pods = await self._writes.pods_by(namespace=job.namespace, labels=f"batch.kubernetes.io/controller-uid={job.uid}")
            ran = max(pods, key=lambda body: str(body["metadata"].get("creationTimestamp", "")), default=None)
            if ran is None:
                how = how_failed(job, ran=None, log="it left no pod, and so no log")
            else:
                how = how_failed(job, ran=ran, log=await self._log(job, pod=ran["metadata"]["name"]))
        except KubeError as error:
            return how_failed(job, ran=None, log=f"its pods cannot be listed ({error})")
        self._ends[job.uid] = how
        if len(self._ends) > KEPT_ENDS:
            self._ends.popitem(last=False)
        return how

    async def _log(self, job: JobSeen, *, pod: str) -> str:
        try:
            raw = await self._writes.log(
                namespace=job.namespace, pod=pod, container=PROBE_CONTAINER, lines=LAST_LINES * 2, most_bytes=MOST_LOG_BYTES
            )
        except KubeError as error:
            return f"its log cannot be read ({error})"
        return last_lines(raw)


def _rollout(probed: CanaryPlace | FirstPlace) -> str:
    return render_time(probed.started_at)


def _is_of(job: JobSeen, *, probed: CanaryPlace | FirstPlace) -> bool:
    return job.revision == probed.revision.name and job.rollout == _rollout(probed)


def _is_kept(job: JobSeen, *, probed: Probed, wanted: Mapping[str, str]) -> bool:
    """`wanted`: the marks of the probes that must run, by name."""
    present = probed is not None and _is_of(job, probed=probed)
    if present and job.probe in wanted and job.mark != wanted[job.probe]:
        return False  # it was made of what the probe was before it was edited
    match job.state:
        case ProbeState.RUNNING:
            return present and job.probe in wanted
        case ProbeState.PASSED:
            return present
        case ProbeState.FAILED:  # its name may be needed again
            return present or job.probe not in wanted or probed is None or job.revision != probed.revision.name
