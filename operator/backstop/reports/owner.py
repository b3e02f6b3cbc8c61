"""Whom a warning is for, in words and in annotations. Pure."""

from ..api.fallbackpolicy import PolicyOwner
from ..api.names import GROUP


def owner_sentence(owner: PolicyOwner | None) -> str:
    """What is said at the end of a warning; empty where nobody is named."""
    if owner is None:
        return ""
    reached = f" ({owner.contact})" if owner.contact else ""
    runbook = f"; runbook: {owner.runbookURL}" if owner.runbookURL else ""
    return f" — owner: {owner.team}{reached}{runbook}"


def owner_annotations(owner: PolicyOwner | None) -> dict[str, str]:
    """The same for programs that forward events."""
    if owner is None:
        return {}
    said = {"team": owner.team, "contact": owner.contact, "runbook-url": owner.runbookURL}
    return {f"{GROUP}/{name}": value for name, value in said.items() if value is not None}
