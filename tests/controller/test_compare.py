"""Whether a live object says what it should: defaults of the API server are no difference."""

import pytest

from backstop.controller.compare import covers
from backstop.controller.mergepatch import merge_patch


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        ({"a": 1, "b": 2}, {"a": 1}),
        ({"limits": {"cpu": "1"}}, {"limits": {"cpu": "1000m"}}),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1024Mi"}}),
        ({"env": [{"name": "A", "value": "1", "extra": "default"}]}, {"env": [{"name": "A", "value": "1"}]}),
        ({}, {"securityContext": {}}),
        ({}, {"volumes": []}),
    ],
)
def test_what_the_api_server_adds_or_spells_otherwise_is_no_difference(live: object, wanted: object) -> None:
    assert covers(live, wanted=wanted)


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        ({"a": 2}, {"a": 1}),
        ({}, {"a": 1}),
        ({"limits": {"cpu": "2"}}, {"limits": {"cpu": "1000m"}}),
        ({"env": [{"name": "A"}, {"name": "B"}]}, {"env": [{"name": "A"}]}),
        ({"a": "text"}, {"a": {"b": 1}}),
        ({"image": "x:1"}, {"image": "x:2"}),
    ],
)
def test_what_differs_is_a_difference(live: object, wanted: object) -> None:
    assert not covers(live, wanted=wanted)


def test_a_merge_patch_takes_away_what_is_not_wanted_and_leaves_what_is_the_same() -> None:
    before = {"kept": 1, "gone": 2, "nested": {"a": 1, "b": 2}, "list": [1, 2]}
    after = {"kept": 1, "nested": {"a": 1, "c": 3}, "list": [1]}
    assert merge_patch(before, after=after) == {"gone": None, "nested": {"b": None, "c": 3}, "list": [1]}
    assert merge_patch(after, after=after) == {}
