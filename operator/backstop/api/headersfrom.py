"""Headers whose values are in Secrets, and which of them its author may set on what is sent to a model. Knows names, no values."""

from typing import Annotated, Final

from pydantic import Field

from .model import ApiModel, Rule
from .refs import SecretKeyRef
from .steering import RESERVED


class HeaderFrom(ApiModel):
    """A header, by its name and the Secret that its value is in."""

    header: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")] = Field(
        description="Its name, such as `api-key`."
    )
    secretRef: SecretKeyRef = Field(description="Where its whole value is.")


# What the gateway sets itself, or what belongs to one connection. `Authorization` is the author's where there is no `apiKeyRef`.
_OURS: Final = (*sorted({*RESERVED, "accept", "user-agent"} - {"authorization"}),)
_OURS_CEL: Final = "[" + ", ".join(f"'{name}'" for name in _OURS) + "]"

# Rules over a model target.
HEADERS_RULES: Final = (
    Rule(
        cel="!has(self.headersFrom) || self.headersFrom.all(h,"
        " self.headersFrom.filter(o, o.header.lowerAscii() == h.header.lowerAscii()).size() == 1)",
        message="`spec.chain`: each header of `model.headersFrom` can be set once, whatever its case",
        holds=lambda m: len({h.header.lower() for h in m.headersFrom}) == len(m.headersFrom),
    ),
    Rule(
        cel=f"!has(self.headersFrom) || self.headersFrom.all(h, !(h.header.lowerAscii() in {_OURS_CEL}"
        " || h.header.lowerAscii().startsWith('x-backstop-')))",
        message="`spec.chain`: `model.headersFrom` cannot set a header of the connection or one that the gateways set; take it out",
        holds=lambda m: not any(h.header.lower() in _OURS or h.header.lower().startswith("x-backstop-") for h in m.headersFrom),
    ),
    Rule(
        cel="!has(self.headersFrom) || !has(self.apiKeyRef) || self.headersFrom.all(h, h.header.lowerAscii() != 'authorization')",
        message="`spec.chain`: `model.apiKeyRef` is the header `Authorization`; take that out of `model.headersFrom`, or `apiKeyRef`",
        holds=lambda m: m.apiKeyRef is None or all(h.header.lower() != "authorization" for h in m.headersFrom),
    ),
)
