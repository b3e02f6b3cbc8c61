"""Errors as the OpenAI API spells them. Never holds a key, a prompt or an answer. PURE."""

from dataclasses import dataclass
from typing import Final

import msgspec

from ..api.metricnames import FailureMode

JSON_TYPE: Final = "application/json"
REASON_HEADER: Final = "x-backstop-reason"
OVERLOAD: Final = "Overload"  # said in REASON_HEADER of a 429 or 503 that is a gateway's own
LONGEST_NAME: Final = 64  # characters of a caller's own that an error says again


class CallerError(ValueError):
    """The request is the caller's mistake; the text names what and says what to do."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.status = status
        self.code = code


def named(name: str) -> str:
    """What a caller has named something, as far as an error says it again."""
    return name[:LONGEST_NAME]


def envelope(message: str, *, kind: str, code: str | None = None, param: str | None = None) -> bytes:
    """The body of an error answer. What no UTF-8 can spell of a caller's words (lone surrogates) is a `?`."""
    param = None if param is None else _spellable(param)
    return msgspec.json.encode({"error": {"message": _spellable(message), "type": kind, "param": param, "code": code}})


def _spellable(text: str) -> str:
    return text.encode(errors="replace").decode()


def caller_error_body(error: CallerError) -> bytes:
    """The body for a CallerError."""
    kind = "authentication_error" if error.status == 401 else "invalid_request_error"
    return envelope(str(error), kind=kind, code=error.code, param=error.param)


# The tier was not for this request: nothing has failed.
NOT_FOR_THIS: Final = (FailureMode.PROMPT_ERROR, FailureMode.POLICY_VIOLATION)


@dataclass(frozen=True)
class Failure:
    """Why a tier gave no answer. `status` is the target's own, where it sent one; `detail` is for the caller, in our words.

    `left_alone`: it was not asked, because of how it failed before. `final`: nobody else is to be asked either. `own`: it is this gateway
    that could not ask.
    """

    mode: FailureMode
    detail: str
    status: int | None = None
    left_alone: bool = False
    final: bool = False
    own: bool = False

    @property
    def reason(self) -> str:
        """As answers and metrics say it."""
        return OVERLOAD if self.own else self.mode.value


def exhausted(failure: Failure) -> tuple[int, bytes]:
    """Status and body when no tier answered: the error class of the first target."""
    message = f"no tier of the chain answered: {failure.detail}"
    if failure.own:
        return 503, envelope(message, kind="server_error", code="overload")
    if failure.left_alone:
        return 503, envelope(message, kind="server_error", code=failure.mode.value)
    match failure.mode:
        case FailureMode.LATENCY_BREACH:
            return 504, envelope(message, kind="timeout", code=failure.mode.value)
        case FailureMode.RESOURCE_EXHAUSTION:
            return failure.status or 503, envelope(
                message, kind="rate_limit_error" if failure.status == 429 else "server_error", code=failure.mode.value
            )
        case FailureMode.PROMPT_ERROR:
            return 501, envelope(message, kind="invalid_request_error", code=failure.mode.value)
        case FailureMode.POLICY_VIOLATION:
            return 403, envelope(message, kind="permission_error", code=failure.mode.value)
        case _:
            return 502, envelope(message, kind="server_error", code=failure.mode.value)


def error_event(message: str, *, code: str) -> bytes:
    """The in-band end of a stream that failed after its first content; no `[DONE]` follows."""
    return b"data: " + envelope(message, kind="server_error", code=code) + b"\n\n"


# The caller took its answer so slowly that the target's time was over. An entry hop knows a peer's by its very bytes.
SLOW_CALLER_EVENT: Final = error_event("the answer is incomplete: it was read too slowly", code="slow_caller")
