"""Telling a transition: one event, one log line, one count, all with the reason of the one table. Decides nothing."""

import logging
from collections.abc import Mapping
from typing import Any

from ..api.fallbackpolicy import PolicyOwner
from ..api.policystatus import Phase
from ..api.reasons import advice_for, event_type
from ..kube.errors import KubeError
from ..reports.owner import owner_annotations, owner_sentence
from ..rollout.plan import Announcement
from ..telemetry.log import fields
from ..telemetry.metrics import Metrics
from .changes import prompt_changes_told
from .seen import Declared
from .writes import Writes

_log = logging.getLogger(__name__)


class Telling:
    """What users hear of policies and prompt versions."""

    def __init__(self, writes: Writes, *, metrics: Metrics) -> None:
        self._writes = writes
        self._metrics = metrics

    async def tell(
        self, policy: Declared, announcement: Announcement, *, owner: PolicyOwner | None, phase: Phase, weight: int, now: float
    ) -> None:
        """Tell it. `owner`: who is named with a warning; `phase` and `weight`: of the policy after it; `now`: when it happened."""
        said = fields(namespace=policy.namespace, policy=policy.name, reason=announcement.reason, phase=phase, weight=weight)
        await self._tell(policy, announcement, said=said, owner=owner, now=now)

    async def tell_of_prompt(self, prompt: Declared, *, before: Mapping[str, Any], after: Mapping[str, Any], now: float) -> None:
        """Tell what has changed with this status, which was just written."""
        for change in prompt_changes_told(before, after=after):
            said = fields(namespace=prompt.namespace, promptVersion=prompt.name, reason=change.reason)
            await self._tell(prompt, change, said=said, owner=None, now=now)

    async def _tell(
        self, about: Declared, announcement: Announcement, *, said: dict[str, Any], owner: PolicyOwner | None, now: float
    ) -> None:
        reason, kind = announcement.reason, event_type(announcement.reason)
        self._metrics.transitions.labels(about.resource.kind, reason).inc()
        advice = advice_for(reason)
        _log.info(announcement.message + advice, extra=said)
        whom = owner if kind == "Warning" else None
        try:
            await self._writes.event(
                about,
                reason=reason,
                message=announcement.message,
                event_type=kind,
                now=now,
                ending=advice + owner_sentence(whom),
                annotations=owner_annotations(whom),
            )
        except KubeError as error:
            # The transition has happened and stands in status; an event is only told once, or not.
            _log.warning("event not written", extra=fields(reason=reason, error=str(error)))
