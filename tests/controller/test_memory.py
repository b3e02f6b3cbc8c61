"""What stands on the record that outlives a policy, and on prompt versions, is read back as it was written."""

from dataclasses import replace

from backstop.controller.kept import rejections_in, rejections_text, remembered_of
from backstop.controller.prompts import rejected_status
from backstop.controller.wanted import Wish, wish_of
from backstop.rollout.observed import Known
from backstop.rollout.place import Place, Rejection, StablePlace
from backstop.rollout.verdict import Verdict
from tests.rollout.world import START, revision

from .test_prompts import SOURCES, policy, prompt, verdict


def test_a_rejection_that_was_only_suspected_is_remembered_as_that() -> None:
    one = Rejection(revision("1"), reason="LatencyBreach", message="", at=START, suspected=True)
    two = Rejection(revision("2"), reason="LatencyBreach", message="", at=START)
    assert [(r.revision, r.at, r.suspected) for r in rejections_in(rejections_text((one, two)))] == [
        (revision("1"), START, True),
        (revision("2"), START, False),
    ]


def test_of_a_rejection_whose_prompt_version_is_not_known_the_revision_is_told() -> None:
    unnamed = Rejection(replace(revision("1"), prompt_version="", prompt_digest=""), reason="LatencyBreach", message="", at=START)
    (read,) = rejections_in(rejections_text((unnamed,)))
    assert read.revision == unnamed.revision
    assert read.message.startswith("rev1 was rolled back for LatencyBreach at 2027-")


def test_what_the_spec_names_is_looked_up_on_its_prompt_version_when_it_would_be_rolled_out() -> None:
    one, other = verdict(), Verdict(revision("other"), reason="LatencyBreach", message="too slow", at=1001.0)
    status = rejected_status(prompt(), policy="support", verdict=one, now=1000.0)
    status = rejected_status(prompt(status=status), policy="support", verdict=other, now=1001.0)
    status = rejected_status(prompt(status=status), policy="somebody", verdict=one, now=1001.0)
    wanted = wish_of(policy(), prompt=prompt(status=status), sources=SOURCES)
    assert isinstance(wanted, Wish)
    wish = replace(wanted, revision=Known(one.revision))
    at_rest = Place(stable=StablePlace(revision("1"), since=START))

    def found(place: Place, *, by: str = "support") -> list[str]:
        return [r.revision.name for r in remembered_of(prompt(status=status), by=by, wish=wish, place=place).rejected]

    assert found(at_rest) == ["abc"]
    assert found(at_rest, by="another") == []
    assert found(Place(stable=StablePlace(one.revision, since=START))) == [], "it is stable"
    (rejection,) = remembered_of(prompt(status=status), by="support", wish=wish, place=at_rest).rejected
    assert found(replace(at_rest, rejected=(rejection,))) == [], "status knows it"
    assert remembered_of(None, by="support", wish=wish, place=at_rest).rejected == ()
