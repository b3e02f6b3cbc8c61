"""What callers say of answers: ids that are signed when an answer leaves, and read again when its caller has something to say of it. PURE.

An id holds the revision that answered and when, so nothing is stored. All gateways of a policy have the same keys, and take each other's
ids.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from ..api.metricnames import FeedbackLabel
from .errors import CallerError

FEEDBACK_PATH: Final = "/v1/feedback"
LONGEST_FEEDBACK: Final = 16_384  # bytes
# Shorter ones can be guessed.
SHORTEST_KEY: Final = 32
MOST_KEYS: Final = 8
LONGEST_COMMENT: Final = 4096
# Ids that were used already, by one pod: of a caller that sends the same again, and again.
MOST_USED: Final = 16_384
# Clocks of nodes differ by that much.
CLOCK_SLACK: Final = 60.0
_HEAD: Final = struct.Struct(">BQI")  # whether it counts, random bytes, seconds since 2020
_EPOCH: Final = 1_577_836_800
_MAC_BYTES: Final = 16
_LONGEST: Final = 256  # characters of an id
_LONGEST_REASON: Final = 128  # characters of what is wrong, in which there may be a name of the caller's


class FeedbackKeys:
    """The keys of a policy's ids. `scope` tells policies apart that share a Secret; `longest`: seconds that an id holds."""

    def __init__(self, text: str, *, scope: str, longest: float) -> None:
        """`text`: a key, or several, one a line. Raises ValueError."""
        keys = [line.strip() for line in text.splitlines() if line.strip()]
        if not keys or any(len(key) < SHORTEST_KEY for key in keys):
            raise ValueError(f"each key needs {SHORTEST_KEY} characters or more; make another, of random ones")
        if len(keys) > MOST_KEYS:
            raise ValueError(f"there are more than {MOST_KEYS} keys; take old ones out")
        # A key of its own for this use and this policy.
        self._keys = [hmac.digest(key.encode(), b"backstop feedback v1\0" + scope.encode(), hashlib.sha256) for key in keys]
        self.longest = longest

    def sign(self, identity: str, *, revision: str, now: float, nonce: int, counts: bool) -> str:
        """The id of an answer of this revision: that of its request, and what is signed.

        `nonce`: 64 random bits; `counts`: whether its feedback is to be counted.
        """
        content = _HEAD.pack(counts, nonce, max(0, int(now) - _EPOCH)) + revision.encode()
        signed = base64.urlsafe_b64encode(content + _mac(self._keys[0], content, identity)).rstrip(b"=").decode()
        return f"{identity}.{signed}"

    def read(self, identity: str, *, now: float) -> "SignedId | None":
        """What an id says; None where it was not signed with one of these keys, or too long ago."""
        request, _, spelled = identity.rpartition(".")
        if len(identity) > _LONGEST:
            return None
        try:
            raw = base64.b64decode(spelled + "=" * (-len(spelled) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        content, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if len(content) <= _HEAD.size or not self._is_signed(content, mac=mac, request=request):
            return None
        counts, nonce, seconds = _HEAD.unpack_from(content)
        age = now - (seconds + _EPOCH)
        if not -CLOCK_SLACK <= age <= self.longest:
            return None
        return SignedId(revision=content[_HEAD.size :].decode(), nonce=nonce, counts=bool(counts))

    def _is_signed(self, content: bytes, *, mac: bytes, request: str) -> bool:
        return any(hmac.compare_digest(_mac(key, content, request), mac) for key in self._keys)


@dataclass(frozen=True)
class SignedId:
    """An id that one of the policy's gateways gave."""

    revision: str
    nonce: int
    counts: bool


class UsedIds:
    """Ids that something was said of already. Bounded: what was used first is forgotten first."""

    def __init__(self) -> None:
        self._used: OrderedDict[int, None] = OrderedDict()

    def take(self, nonce: int) -> bool:
        """Whether it is used for the first time, as far as is known here."""
        if nonce in self._used:
            return False
        self._used[nonce] = None
        if len(self._used) > MOST_USED:
            self._used.popitem(last=False)
        return True


class _Feedback(msgspec.Struct, forbid_unknown_fields=True):
    request_id: str
    score: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    label: FeedbackLabel | None = None
    comment: Annotated[str, msgspec.Meta(max_length=LONGEST_COMMENT)] | None = None


_DECODER: Final = msgspec.json.Decoder(_Feedback)


def read_feedback(body: bytes) -> tuple[str, FeedbackLabel]:
    """Id and label of what a caller sends. Raises CallerError. Its comment goes nowhere: what users write is not kept here."""
    try:
        said = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise CallerError(f"the feedback cannot be read: {_lowered(str(error)[:_LONGEST_REASON])}; {_SHAPE}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise CallerError(f"the body is not valid JSON; {_SHAPE}") from None
    if (said.score is None) == (said.label is None):
        raise CallerError(f"exactly one of `label` and `score` is needed; {_SHAPE}", param="label")
    return said.request_id, said.label if said.label is not None else _label_of(said.score)


_SHAPE: Final = (
    "send `request_id`, as `x-backstop-request-id` of the answer says it, and `label` (`positive`, `negative`, `neutral`) or `score` "
    "(from 0 to 1)"
)


def _label_of(score: float | None) -> FeedbackLabel:
    if score is None or score == 0.5:
        return FeedbackLabel.NEUTRAL
    return FeedbackLabel.POSITIVE if score > 0.5 else FeedbackLabel.NEGATIVE


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _mac(key: bytes, content: bytes, request: str) -> bytes:
    """Of both; the byte between them, which no revision and no request's id has, is where one ends and the other begins."""
    return hmac.digest(key, content + b"\0" + request.encode(errors="replace"), hashlib.sha256)[:_MAC_BYTES]
