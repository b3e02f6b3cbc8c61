"""Writing reports of rollouts that have ended, and taking away the oldest. Knows no order of writes in a pass.

That a report is written is remembered until status says so; it is found out again by writing it once more, under the same name. What
goes wrong here is told once and counted, and is no problem of the policy: no pass fails for a report, and it is tried again.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..api.names import LABEL_POLICY, OPERATOR_MANAGER
from ..api.policystatus import FallbackPolicyStatus
from ..api.reasons import Reason
from ..kube.client import Client
from ..kube.errors import Conflict, KubeError, NotFound, NotLeading, Rejected
from ..kube.resources import REPORTS, Body
from ..rendering.owner import Owner
from ..reports.report import report_name, report_of
from ..rollout.observed import Failed, NotTried, Reporting, Written
from ..rollout.plan import Announcement
from ..telemetry.metrics import Metrics
from .keys import PolicyKey
from .subject import Subject

# No answer is no refusal: another rollout waits for so many attempts.
ATTEMPTS: Final = 3
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 300.0


@dataclass(frozen=True)
class _Trouble:
    """A report that could not be written: how often it was tried, when it is tried again, and whether it counts as failed."""

    name: str
    attempts: int
    again_at: float
    failed: bool


class Reports:
    """The reports of policies; they are not watched."""

    def __init__(self, client: Client, *, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._client = client
        self._metrics = metrics
        self._clock = clock
        self._written: dict[PolicyKey, str] = {}
        self._trouble: dict[PolicyKey, _Trouble] = {}

    def forget(self, key: PolicyKey) -> None:
        """The policy is gone."""
        self._written.pop(key, None)
        self._trouble.pop(key, None)

    def reporting(self, key: PolicyKey, *, status: FallbackPolicyStatus) -> Reporting:
        """What has become of the report of the rollout that this status says has ended."""
        if status.lastRollout is None or status.lastRollout.report is not None:
            self.forget(key)
            return NotTried()
        name = report_name(key.name, last=status.lastRollout)
        if self._written.get(key) == name:
            return Written(name)
        trouble = self._trouble.get(key)
        return Failed() if trouble is not None and trouble.name == name and trouble.failed else NotTried()

    def again_at(self, key: PolicyKey) -> float | None:
        """When a report that could not be written is to be tried again; None: there is none."""
        trouble = self._trouble.get(key)
        return trouble.again_at if trouble is not None else None

    async def write(self, subject: Subject) -> Announcement | None:
        """Write the report that is due, and take away what is beyond the limit. Returns what is to be told: once for each report.

        Raises NotLeading, and no other KubeError.
        """
        if not subject.plan.report or subject.status.lastRollout is None:
            self._trouble.pop(subject.key, None)
            return None
        key, name = subject.key, report_name(subject.key.name, last=subject.status.lastRollout)
        before = self._trouble.get(key)
        if before is not None and before.name == name and self._clock() < before.again_at:
            return None
        try:
            await self._create(subject)
        except NotLeading:
            raise
        except KubeError as error:
            return self._failed(key, name=name, why=error)
        self._trouble.pop(key, None)
        self._written[key] = name
        try:
            await self._clear_away(subject)
        except NotLeading:
            raise
        except KubeError as error:
            self._metrics.report_failures.inc()
            message = f"RolloutReports beyond `spec.rollback.reportHistoryLimit` could not be taken away: {error}"
            return Announcement(Reason.REPORT_FAILED, message)
        return None

    def _failed(self, key: PolicyKey, *, name: str, why: KubeError) -> Announcement | None:
        self._metrics.report_failures.inc()
        before = self._trouble.get(key)
        attempts = before.attempts + 1 if before is not None and before.name == name else 1
        # That the definition of reports is missing is an answer, too.
        failed = attempts >= ATTEMPTS or isinstance(why, Rejected | NotFound)
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(attempts - 1, 16), LONGEST_PAUSE_SECONDS)
        self._trouble[key] = _Trouble(name, attempts, again_at=self._clock() + pause, failed=failed)
        told = before is not None and before.name == name and before.failed
        if told or not failed:
            return None
        return Announcement(Reason.REPORT_FAILED, f"RolloutReport `{name}` could not be written: {why}")

    async def _create(self, subject: Subject) -> None:
        policy = subject.policy
        owner = Owner(policy.namespace, policy.name, policy.uid)
        body = report_of(subject.status, policy=owner, owner=subject.wish.spec.owner)
        with contextlib.suppress(Conflict):  # written before, by an operator that could not say so any more
            await self._client.create(REPORTS, body=body, manager=OPERATOR_MANAGER)

    async def _clear_away(self, subject: Subject) -> None:
        labels = f"{LABEL_POLICY}={subject.key.name}"
        found, _ = await self._client.list(REPORTS, namespace=subject.key.namespace, labels=labels)
        mine = sorted((body for body in found if _belongs_to(body, uid=subject.policy.uid)), key=_age, reverse=True)
        for body in mine[subject.wish.spec.rollback.reportHistoryLimit :]:
            name, uid = body["metadata"]["name"], body["metadata"]["uid"]
            with contextlib.suppress(NotFound, Conflict):  # it is gone, or another one by now
                await self._client.delete(REPORTS, namespace=subject.key.namespace, name=name, uid=uid)


def _belongs_to(body: Body, *, uid: str) -> bool:
    return any(ref["uid"] == uid and ref.get("controller") for ref in body["metadata"].get("ownerReferences") or ())


def _age(body: Body) -> tuple[str, str]:
    return str(body["spec"].get("endedAt", "")), body["metadata"]["name"]
