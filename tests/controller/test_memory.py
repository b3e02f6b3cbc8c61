"""What stands on the record that outlives a policy is read back as it was written."""

from backstop.controller.kept import rejections_in, rejections_text
from backstop.rollout.place import Rejection
from tests.rollout.world import START, revision


def test_a_rejection_that_was_only_suspected_is_remembered_as_that() -> None:
    one = Rejection(revision("1"), reason="LatencyBreach", message="", at=START, suspected=True)
    two = Rejection(revision("2"), reason="LatencyBreach", message="", at=START)
    assert [(r.revision, r.at, r.suspected) for r in rejections_in(rejections_text((one, two)))] == [
        (revision("1"), START, True),
        (revision("2"), START, False),
    ]
