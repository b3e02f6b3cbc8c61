"""The shape of an event, within what the API takes."""

from backstop.kube.events import LONGEST_NOTE, event
from backstop.kube.resources import POLICIES, Body


def told(message: str, *, ending: str = "", now: float = 1_800_000_000.0) -> Body:
    return event(
        POLICIES,
        namespace="shop",
        name="support",
        uid="u",
        reason="RolledBack",
        message=message,
        event_type="Warning",
        component="backstop-operator",
        instance="one",
        now=now,
        ending=ending,
        annotations={"backstop.dev/team": "ml"} if ending else None,
    )


def test_a_long_message_is_cut_and_its_ending_is_not() -> None:
    for letter in ("x", "é", "→"):
        note = told(letter * 2000, ending=" — owner: ml")["note"]
        assert len(note.encode()) <= LONGEST_NOTE
        assert note.startswith(letter * 300)
        assert note.endswith("… — owner: ml")


def test_an_ending_that_is_too_long_by_itself_is_cut_too() -> None:
    note = told("it was rolled back", ending="é" * 2000)["note"]
    assert note.startswith("it was rolled backé")
    assert len(note.encode()) <= LONGEST_NOTE


def test_the_same_event_at_the_same_moment_has_the_same_name() -> None:
    assert told("a")["metadata"]["name"] == told("a")["metadata"]["name"]
    assert told("a")["metadata"]["name"] != told("b")["metadata"]["name"]
    assert told("a")["metadata"]["name"] != told("a", now=1_800_000_001.0)["metadata"]["name"]


def test_annotations_are_given_to_whom_forwards_events() -> None:
    assert told("a", ending=" — owner: ml")["metadata"]["annotations"] == {"backstop.dev/team": "ml"}
    assert "annotations" not in told("a")["metadata"]
