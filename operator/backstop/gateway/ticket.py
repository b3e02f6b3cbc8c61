"""Tickets: what a person is told of a request, how that is signed, and when it is tried again. PURE."""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..api.humantier import TICKET
from .jsontext import join_object, quoted
from .revision import HumanTier, Revision

# Of the messages, and of the variables; what does not fit is left out.
MOST_BYTES: Final = 36 << 10
FIRST_RETRY_SECONDS: Final = 1.0
LONGEST_RETRY_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Ticket:
    """A ticket that waits. `tries`: how often the webhook has not taken it."""

    identity: str
    body: bytes
    tries: int = 0


@dataclass(frozen=True)
class Asking:
    """What a ticket is opened for. `messages`: the caller's, as spelled; `values`: of variables, as JSON strings without quotes."""

    request: str
    question: str
    messages: Sequence[bytes]
    values: Mapping[str, bytes]
    languages: str
    reason: str


def body_of(asking: Asking, *, identity: str, opened_at: str, revision: Revision) -> bytes:
    """The JSON that the webhook is sent. The last messages count; those before them that do not fit are counted."""
    messages = _last_that_fit(asking.messages)
    variables = _first_that_fit(asking.values)
    data = {
        "ticket": quoted(identity),
        "namespace": quoted(revision.namespace),
        "policy": quoted(revision.policy),
        "revision": quoted(revision.name),
        "prompt_version": quoted(revision.prompt_version),
        "request_id": quoted(asking.request),
        "reason": quoted(asking.reason),
        "languages": quoted(asking.languages),
        "question": quoted(asking.question),
        "messages": b"[" + b",".join(messages) + b"]",
        "messages_left_out": b"%d" % (len(asking.messages) - len(messages)),
        "variables": join_object({name: b'"' + value + b'"' for name, value in variables.items()}),
        "variables_left_out": b"%d" % (len(asking.values) - len(variables)),
    }
    return join_object({"type": quoted("ticket.opened"), "timestamp": quoted(opened_at), "data": join_object(data)})


def headers_of(ticket: Ticket, *, timestamp: int, secret: bytes) -> dict[str, str]:
    """Headers of a delivery, by the Standard Webhooks specification; a ticket has one id, however often it is sent."""
    signed = b"%s.%d." % (ticket.identity.encode(), timestamp) + ticket.body
    signature = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    return {
        "Content-Type": "application/json",
        "User-Agent": "backstop",
        "Idempotency-Key": ticket.identity,
        "webhook-id": ticket.identity,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


def acknowledgement(tier: HumanTier, *, identity: str) -> str:
    """What the caller is answered."""
    return tier.acknowledgement.replace(TICKET, identity)


def retry_seconds(tries: int) -> float:
    """How long to wait after so many tries that failed: twice as long each time."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(tries - 1, 16), LONGEST_RETRY_SECONDS)


def _last_that_fit(messages: Sequence[bytes]) -> list[bytes]:
    kept, left = list[bytes](), MOST_BYTES
    for message in reversed(messages):
        left -= len(message)
        if left < 0:
            break
        kept.append(message)
    return kept[::-1]


def _first_that_fit(values: Mapping[str, bytes]) -> dict[str, bytes]:
    kept, left = dict[str, bytes](), MOST_BYTES
    for name, value in values.items():
        left -= len(value)
        if left < 0:
            break
        kept[name] = value
    return kept
