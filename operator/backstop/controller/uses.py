"""Which prompt versions a policy uses, and as what: from its spec, and from what its status says is running. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..api.promptversion import PromptRole, PromptUse
from .keys import PromptKey
from .seen import Declared

_RUNNING: Final = {"stable": PromptRole.STABLE, "canary": PromptRole.CANARY, "previous": PromptRole.PREVIOUS}


@dataclass(frozen=True)
class Use:
    """One prompt version in one role. `digest`: of the text that runs; None where any text of that name is meant."""

    prompt: PromptKey
    role: PromptRole
    digest: str | None


def uses_of(policy: Declared | None) -> frozenset[Use]:
    """What the policy uses. What cannot be read in it, and a policy that is going, use nothing."""
    if policy is None or policy.deleting:
        return frozenset()
    uses = {_use(policy, policy.spec.get("promptVersion"), role=PromptRole.WANTED, digest=None)}
    status = policy.status  # unpacked each time
    for part, role in _RUNNING.items():
        running = status.get(part)
        if isinstance(running, Mapping):
            uses.add(_use(policy, running.get("promptVersion"), role=role, digest=running.get("promptDigest")))
    return frozenset(use for use in uses if use is not None)


def _use(policy: Declared, name: Any, *, role: PromptRole, digest: Any) -> Use | None:
    if not isinstance(name, str) or not name:
        return None
    return Use(PromptKey(policy.namespace, name), role, digest if isinstance(digest, str) else None)


def changed_uses(before: Declared | None, *, after: Declared | None) -> frozenset[PromptKey]:
    """The prompt versions of which two versions of a policy make different uses."""
    return frozenset(use.prompt for use in uses_of(before) ^ uses_of(after))


def users_of(prompt: PromptKey, *, digest: str | None, policies: Iterable[Declared]) -> list[PromptUse]:
    """Who uses this prompt version, by name. A revision that was made of another text under the same name does not."""
    return sorted(
        (
            PromptUse(policy=policy.name, role=use.role.value)
            for policy in policies
            for use in uses_of(policy)
            if use.prompt == prompt and use.digest in (None, digest)
        ),
        key=lambda use: (use.policy, use.role),
    )
