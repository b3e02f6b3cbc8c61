"""Who may call a policy, and whose answers are kept apart from whose. Knows names of headers and Secrets, no values."""

from typing import Final

from pydantic import Field

from .model import ApiModel, Rule
from .refs import ObjectName
from .steering import RESERVED, HeaderName, is_free

_RESERVED_CEL: Final = "[" + ", ".join(f"'{name}'" for name in RESERVED) + "]"


class CallerKeysRef(ApiModel):
    """A Secret of callers' keys in the policy's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")


class Access(ApiModel):
    """Who may call, and who shares kept answers with whom. It is part of the revision."""

    callerKeysRef: CallerKeysRef | None = Field(
        None,
        description="A Secret with one entry for each caller: its name, and its keys, one a line, of 16 characters or more. A request "
        "without one of them as bearer token is a 401, and callers share no kept answers. Changed keys hold within two minutes. "
        "Unset: everybody who reaches the gateways may call.",
    )
    tenantHeader: HeaderName | None = Field(
        None,
        description="A header that names the tenant a request is for, set by what stands in front of the gateways. Tenants share no kept "
        "answers; a request without it, or with several, is answered by a model, and nothing of it is kept. Unset: there are none.",
    )
    rules = (
        Rule(
            cel="has(self.callerKeysRef) || has(self.tenantHeader)",
            message="`spec.access`: must have `callerKeysRef` or `tenantHeader`; set one, or leave `access` out",
            holds=lambda a: a.callerKeysRef is not None or a.tenantHeader is not None,
        ),
        Rule(
            cel=f"!has(self.tenantHeader) || !(self.tenantHeader.lowerAscii() in {_RESERVED_CEL}"
            " || self.tenantHeader.lowerAscii().startsWith('x-backstop-'))",
            message="`spec.access.tenantHeader`: a credential, a header of the connection or of the gateways cannot be used;"
            " name one that stands for a tenant",
            holds=lambda a: is_free(a.tenantHeader),
        ),
    )
