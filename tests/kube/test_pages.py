"""A page of a list is read as far as is asked for."""

import pytest

from backstop.kube.errors import Unavailable
from backstop.kube.pages import read_page


def test_a_page_says_which_objects_there_are_and_gives_each_whole() -> None:
    text = b"""{"kind": "PodList", "metadata": {"resourceVersion": "7", "continue": "next"},
        "items": [{"metadata": {"name": "a", "namespace": "n", "resourceVersion": "5", "labels": {}}, "spec": {"x": [1]}}]}"""
    page = read_page(text, what="GET /pods")
    assert (page.version, page.following) == ("7", "next")
    (item,) = page.items
    assert (item.namespace, item.name, item.version) == ("n", "a", "5")
    assert item.body() == {"metadata": {"name": "a", "namespace": "n", "resourceVersion": "5", "labels": {}}, "spec": {"x": [1]}}


def test_a_page_of_nothing_is_the_last() -> None:
    page = read_page(b'{"metadata": {"resourceVersion": "7"}, "items": null}', what="GET /pods")
    assert (page.items, page.version, page.following) == ([], "7", "")


@pytest.mark.parametrize("text", [b"", b"<html>", b"[]", b'{"kind": "Status"}', b'{"metadata": {"resourceVersion": "7"}, "items": [{}]}'])
def test_what_is_no_list_is_an_answer_to_wait_for_a_better_one(text: bytes) -> None:
    with pytest.raises(Unavailable, match="GET /pods: the answer is no list of objects"):
        read_page(text, what="GET /pods")
