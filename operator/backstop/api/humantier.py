"""A tier that hands requests on to people. Shapes only."""

from typing import Annotated

from pydantic import Field

from .cachetier import ColdVolume
from .model import SPACE, ApiModel, Rule
from .refs import ConfigMapKeyRef, SecretKeyRef
from .residency import Jurisdiction

TICKET = "{{ticket}}"


class TicketWebhook(ApiModel):
    """Where tickets are sent."""

    url: Annotated[str, Field(max_length=2048, pattern=rf"^https?://[^/?#{SPACE}@]+([/?][^#{SPACE}]*)?$")] = Field(
        description="Address that each ticket is posted to, as JSON (docs/how-to/human-tier.md). A 2xx takes it; else it is tried again."
    )
    secretRef: SecretKeyRef = Field(
        description="What tickets are signed with (HMAC-SHA256, as Standard Webhooks says): 16 characters or more, or `whsec_` and base64."
    )
    caBundleRef: ConfigMapKeyRef | None = Field(
        None,
        description="With `https://`: the certificates of the authorities that alone may vouch for it, as PEM. Its content is part of the "
        "revision. Unset: those of the image.",
    )
    jurisdiction: Jurisdiction | None = Field(
        None, description="Where tickets are read, such as `EU`. Needed with `spec.residency`, which says where requests may be processed."
    )
    rules = (
        Rule(
            cel="!has(self.caBundleRef) || self.url.startsWith('https:')",
            message="`spec.chain`: `human.webhook.caBundleRef` is for a `url` that begins with `https://`",
            holds=lambda w: w.caBundleRef is None or w.url.startswith("https:"),
        ),
    )


class HumanTarget(ApiModel):
    """Opens a ticket and answers with its id: a person answers later, elsewhere."""

    webhook: TicketWebhook = Field(description="Where tickets are sent.")
    acknowledgement: str = Field(
        min_length=1, max_length=4096, description="What the caller is answered. `{{ticket}}` stands for the ticket's id."
    )
    queueLimit: int = Field(
        1000,
        ge=1,
        le=10_000,
        description="How many tickets of one gateway may wait for the webhook. Beyond, the next tier is asked. Each takes up to 128 KiB.",
    )
    volume: ColdVolume | None = Field(
        None,
        description="Where tickets wait: gateways have a file each, and one that its gateway has left is emptied by the others. Unset: a "
        "volume of each pod, which outlives its container; tickets that wait are gone with the pod.",
    )
    rules = (
        Rule(
            cel=f"self.acknowledgement.contains('{TICKET}') && !self.acknowledgement.replace('{TICKET}', '').contains('{{{{')",
            message="`spec.chain`: `human.acknowledgement` says `{{ticket}}`, and has no other tag; callers ask by the id",
            holds=lambda h: TICKET in h.acknowledgement and "{{" not in h.acknowledgement.replace(TICKET, ""),
        ),
    )
