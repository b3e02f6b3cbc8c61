"""A tier that answers by rules. Shapes only; `ruleset` knows what a rule is."""

from typing import Annotated, Final

from pydantic import Field

from .model import ApiModel, Rule
from .refs import ConfigMapKeyRef
from .steering import RESERVED, HeaderName, is_free

_RESERVED_CEL: Final = "[" + ", ".join(f"'{name}'" for name in RESERVED) + "]"


class RuleEngineTarget(ApiModel):
    """Answers by conditions over the request: the first one that holds answers, and where none does the next tier is asked."""

    rulesRef: ConfigMapKeyRef = Field(
        description="The rules: conditions in CEL, and an answer for each (docs/how-to/rules.md). Their content is part of the revision: "
        "another content is another revision."
    )
    headers: Annotated[list[HeaderName], Field(max_length=16)] = Field(
        default_factory=list,
        description="Headers of the request that conditions may read, as `request.headers['x-plan']`, by their names in small letters.",
    )
    rules = (
        Rule(
            cel="!has(self.headers) || "
            f"self.headers.all(h, !(h.lowerAscii() in {_RESERVED_CEL} || h.lowerAscii().startsWith('x-backstop-')))",
            message="`spec.chain`: `ruleEngine.headers` cannot name a credential, a header of the connection or of the gateways;"
            " name one that says something of the request",
            holds=lambda r: all(is_free(header) for header in r.headers),
        ),
    )
