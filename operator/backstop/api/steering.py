"""How callers are told apart: the headers by which a request stays on one track, or names it. Knows names of headers, no values."""

from typing import Annotated, Final

from pydantic import Field

from .model import ApiModel, Rule

TRACK_HEADER: Final = "x-backstop-track"
# Said between gateways, or gone on the way (RFC 9110, "Connection"), or a credential: nothing to tell callers apart by.
RESERVED: Final = (
    "accept-encoding", "authorization", "connection", "content-encoding", "content-length", "content-type", "cookie", "expect", "host",
    "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "set-cookie", "te", "traceparent", "tracestate",
    "trailer", "transfer-encoding", "upgrade",
)  # fmt: skip

# A token of RFC 9110.
HeaderName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")]


def is_free(name: str | None, *, but: str = "") -> bool:
    """Whether a header of this name may tell callers apart; `but`: one of the gateways' own that may."""
    lowered = (name or "").lower()
    return lowered not in RESERVED and (not lowered.startswith("x-backstop-") or lowered == but)


_RESERVED_CEL: Final = "[" + ", ".join(f"'{name}'" for name in RESERVED) + "]"


class CanaryTraffic(ApiModel):
    """Headers by which callers are told apart while a canary runs. Their names are case-insensitive."""

    stickyHeader: HeaderName | None = Field(
        None,
        description="Requests with the same value of this header, such as a user's id, are served by the same revision as long as the "
        "canary's share does not shrink. A request without it is drawn by chance. Unset: every request is.",
    )
    pinHeader: HeaderName | None = Field(
        None,
        description="A request says with this header that `canary` or `stable` shall serve it, for testers: a canary that is ready and not "
        "rolled back, also before its first weight. Such a request is not judged. Unset: nobody can.",
    )
    rules = (
        Rule(
            cel=f"!has(self.stickyHeader) || !(self.stickyHeader.lowerAscii() in {_RESERVED_CEL}"
            " || self.stickyHeader.lowerAscii().startsWith('x-backstop-'))",
            message="`spec.canary.traffic.stickyHeader`: a credential, a header of the connection or of the gateways cannot be used;"
            " name one that your callers set",
            holds=lambda t: is_free(t.stickyHeader),
        ),
        Rule(
            cel=f"!has(self.pinHeader) || !(self.pinHeader.lowerAscii() in {_RESERVED_CEL}"
            f" || (self.pinHeader.lowerAscii().startsWith('x-backstop-') && self.pinHeader.lowerAscii() != '{TRACK_HEADER}'))",
            message="`spec.canary.traffic.pinHeader`: a credential, a header of the connection or of the gateways cannot be used;"
            f" name one that your testers set, such as `{TRACK_HEADER}`",
            holds=lambda t: is_free(t.pinHeader, but=TRACK_HEADER),
        ),
        Rule(
            cel="!has(self.stickyHeader) || !has(self.pinHeader) || self.stickyHeader.lowerAscii() != self.pinHeader.lowerAscii()",
            message="`spec.canary.traffic`: `stickyHeader` and `pinHeader` must be two headers",
            holds=lambda t: not t.stickyHeader or not t.pinHeader or t.stickyHeader.lower() != t.pinHeader.lower(),
        ),
    )
