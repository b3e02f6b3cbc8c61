"""Writing reports of rollouts that have ended, and taking away the oldest. Knows no order of writes in a pass.

That a report is written is remembered until status says so; it is found out again by writing it once more, under the same name.
"""

import contextlib
from typing import Final

from ..api.names import LABEL_POLICY, OPERATOR_MANAGER
from ..api.policystatus import FallbackPolicyStatus
from ..kube.client import Client
from ..kube.errors import Conflict, KubeError, NotFound, Rejected
from ..kube.resources import REPORTS, Body
from ..rendering.owner import Owner
from ..reports.report import report_name, report_of
from ..rollout.observed import Failed, NotTried, Reporting, Written
from .keys import PolicyKey
from .subject import Problem, Subject, refusal

# No answer is no refusal: another rollout waits for so many attempts.
ATTEMPTS: Final = 3


class Reports:
    """The reports of policies; they are not watched."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._written: dict[PolicyKey, str] = {}
        self._failed: dict[PolicyKey, tuple[str, int]] = {}

    def forget(self, key: PolicyKey) -> None:
        """The policy is gone."""
        self._written.pop(key, None)
        self._failed.pop(key, None)

    def reporting(self, key: PolicyKey, *, status: FallbackPolicyStatus) -> Reporting:
        """What has become of the report of the rollout that this status says has ended."""
        if status.lastRollout is None or status.lastRollout.report is not None:
            self.forget(key)
            return NotTried()
        name = report_name(key.name, last=status.lastRollout)
        if self._written.get(key) == name:
            return Written(name)
        failed, attempts = self._failed.get(key, ("", 0))
        return Failed() if failed == name and attempts >= ATTEMPTS else NotTried()

    async def write(self, subject: Subject) -> Problem | None:
        """Write the report that is due, and take away what is beyond the limit. Raises KubeError but Rejected, which is the problem."""
        if not subject.plan.report or subject.status.lastRollout is None:
            return None
        key, name = subject.key, report_name(subject.key.name, last=subject.status.lastRollout)
        try:
            await self._create(subject)
            await self._clear_away(subject)
        except Rejected as refused:
            self._failed[key] = name, ATTEMPTS
            return refusal(REPORTS, name=name, why=refused)
        except KubeError:
            before, attempts = self._failed.get(key, (name, 0))
            self._failed[key] = name, attempts + 1 if before == name else 1
            raise
        self._failed.pop(key, None)
        self._written[key] = name
        return None

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
