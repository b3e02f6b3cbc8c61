"""What a pass is about: one policy or one prompt version."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True, slots=True)
class PolicyKey:
    """A FallbackPolicy by name."""

    namespace: str
    name: str


@dataclass(frozen=True, order=True, slots=True)
class PromptKey:
    """A PromptVersion by name."""

    namespace: str
    name: str


Key = PolicyKey | PromptKey
