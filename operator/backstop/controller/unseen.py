"""What a pass needs and no watch has told of, the policy's route and its prompt version: looked for by name, once each.

And the route that there is, where nothing else says what serves.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..api.reasons import Reason
from ..kube.errors import KubeError
from ..kube.resources import PROMPT_VERSIONS, Resource
from ..rollout.observed import Known
from ..telemetry.log import fields
from ..traffic.router import Router, router_of
from .keys import Key, PolicyKey, PromptKey
from .queue import KeyQueue
from .seen import Child, Declared
from .store import Store
from .wanted import Wish
from .writes import Writes

_log = logging.getLogger(__name__)

# How long an object of somebody else under the name of a policy's route is believed to be there still.
FOREIGN_ROUTE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Missing:
    """What is not seen of a policy; one of both at least."""

    route: Router | None
    prompt: PromptKey | None


class Unseen:
    """What was looked for, and was not there."""

    def __init__(self, *, store: Store, writes: Writes, queue: KeyQueue[Key], clock: Callable[[], float]) -> None:
        self._store = store
        self._writes = writes
        self._queue = queue
        self._clock = clock
        self._no_route: set[PolicyKey] = set()
        self._no_prompt: dict[PolicyKey, PromptKey] = {}

    def missing(self, policy: Declared, *, wish: Wish) -> Missing | None:
        """What is to be looked for before the policy's cluster is said to be without it; None: all is seen, or known not to be there."""
        key = PolicyKey(policy.namespace, policy.name)
        route, prompt = self._route(key, policy=policy, wish=wish), self._prompt(key, policy=policy, wish=wish)
        return Missing(route, prompt) if route is not None or prompt is not None else None

    async def look(self, missing: Missing, *, key: PolicyKey) -> bool:
        """Look for it. Returns whether the pass is to begin anew: with the prompt version that is there.

        Where something cannot be read the pass goes on without: what is made over a route that is there is refused, then read.
        """
        if missing.prompt is not None and await self._could_read(PROMPT_VERSIONS, missing.prompt.name, what="prompt version", key=key):
            if self._store.prompt(missing.prompt) is not None:
                return True
            self._no_prompt[key] = missing.prompt
        if missing.route is not None:
            await self._look_for_route(missing.route, key=key)
        return False

    async def route_moved(self, policy: Declared, *, wish: Wish, seen: Child | None) -> bool:
        """Whether the route is another than the one that was `seen`, which is then taken over. Raises KubeError.

        For what has no status to be refused over: watches that are behind would show a canary's weight from before. Where none was seen
        and it cannot be read, what is made over one that is there is refused.
        """
        router = router_of(wish.spec)
        name, key = router.name(policy.name), PolicyKey(policy.namespace, policy.name)
        if seen is not None:
            await self._writes.refresh(router.resource, namespace=policy.namespace, name=name, by=key)
        elif not await self._could_read(router.resource, name, what="route", key=key):
            return False
        found = self._store.child(router.resource, namespace=policy.namespace, name=name)
        return _version(found) != _version(seen)

    def forget(self, key: PolicyKey) -> None:
        """The policy is gone."""
        self._no_route.discard(key)
        self._no_prompt.pop(key, None)

    def _prompt(self, key: PolicyKey, *, policy: Declared, wish: Wish) -> PromptKey | None:
        """The prompt version: its watch may be behind that of policies."""
        name, why = wish.spec.promptVersion, wish.revision
        if name is None or isinstance(why, Known) or why.reason is not Reason.PROMPT_VERSION_NOT_FOUND or policy.deleting:
            self._no_prompt.pop(key, None)
            return None
        named = PromptKey(key.namespace, name)
        # One that is seen, and is going away, is as good as gone.
        return None if self._no_prompt.get(key) == named or self._store.prompt(named) is not None else named

    def _route(self, key: PolicyKey, *, policy: Declared, wish: Wish) -> Router | None:
        """The router whose object is not seen: it may be there without the labels that it is watched by, or be somebody else's, of whose
        going no watch tells.
        """
        router = router_of(wish.spec)
        seen = self._store.child(router.resource, namespace=key.namespace, name=router.name(key.name))
        if seen is not None:
            self._no_route.discard(key)
            return router if seen.owner != policy.uid and seen.policy != key.name else None
        return None if key in self._no_route else router

    async def _look_for_route(self, router: Router, *, key: PolicyKey) -> None:
        name = router.name(key.name)
        if not await self._could_read(router.resource, name, what="route", key=key):
            return
        found = self._store.child(router.resource, namespace=key.namespace, name=name)
        if found is None:
            self._no_route.add(key)
        elif found.policy != key.name:
            self._queue.add_at(key, at=self._clock() + FOREIGN_ROUTE_SECONDS)

    async def _could_read(self, resource: Resource, name: str, *, what: str, key: PolicyKey) -> bool:
        try:
            await self._writes.refresh(resource, namespace=key.namespace, name=name, by=key)
        except KubeError as error:
            told = fields(namespace=key.namespace, policy=key.name, error=str(error))
            _log.warning(f"{resource.kind} `{name}`, the policy's {what}, cannot be read; going on without", extra=told)
            return False
        return True


def _version(route: Child | None) -> tuple[str, str] | None:
    return (route.uid, route.version) if route is not None else None
