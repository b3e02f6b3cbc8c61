"""Whether callers may say what they thought of an answer. Knows settings, no keys."""

from pydantic import Field

from .model import ApiModel
from .refs import SecretKeyRef


class Feedback(ApiModel):
    """`POST /v1/feedback`: what callers thought of an answer, counted for the revision that gave it. It is part of the revision."""

    keyRef: SecretKeyRef = Field(
        description="A key that answers' ids are signed with, of 32 characters or more; of several, one a line, the first signs and all of "
        "them hold. Any random text does."
    )
    maxAgeSeconds: int = Field(
        86_400, ge=60, le=2_592_000, description="How long after an answer its feedback counts. What is older is refused."
    )
