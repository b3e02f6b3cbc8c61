"""What can go wrong at the API server, in four words. Each is caught where something can be done about it."""


class KubeError(Exception):
    """A request that did not do what it should; the text is one sentence."""


class NotFound(KubeError):  # noqa: N818 - the name says what happened
    """The object does not exist."""


class Conflict(KubeError):  # noqa: N818 - the name says what happened
    """The object is not as the writer saw it: another resourceVersion, another uid, or it exists already."""


class Rejected(KubeError):  # noqa: N818 - the name says what happened
    """The API server understood and refused: forbidden, invalid, over a quota, denied by a webhook. Asking again alone does not help.

    `answer`: the status and to which kind of request, as `403 to PATCH`; what stays the same when the text differs each time.
    """

    def __init__(self, message: str, *, answer: str = "") -> None:
        super().__init__(message)
        self.answer = answer


class NotLeading(KubeError):  # noqa: N818 - the name says what happened
    """This process may not write any more: another one may be leading by now. Nothing was sent."""


class Unavailable(KubeError):  # noqa: N818 - the name says what happened
    """No answer, or one that asks for patience: the request may be made again later. It is unknown whether a write took effect."""


class Expired(Unavailable):
    """What a list or a watch was to go on from is too long ago: it is to be begun anew."""
