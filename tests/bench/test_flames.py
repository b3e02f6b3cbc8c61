"""The pictures of a profile: what is drawn is what was sampled."""

import xml.etree.ElementTree as ET

import pytest

from bench.gateway.flames import WIDTH, drawn, origins, shares, stacks_of, table

RAW = """main (app.py:3);serve (backstop/a.py:10);write (libc.so.6) 60
main (app.py:3);serve (backstop/a.py:12);_is<ok> (backstop/b.py:7) 30
main (app.py:3);serve (backstop/a.py:10) 9
main (app.py:3);rare (backstop/c.py:1) 1
"""


def test_a_call_is_one_wherever_it_was_in_its_lines() -> None:
    assert stacks_of(RAW)["main (app.py)", "serve (backstop/a.py)", "write (libc.so.6)"] == 60
    assert stacks_of(RAW + RAW).total() == 200


def test_what_is_no_stack_is_refused() -> None:
    with pytest.raises(ValueError):
        stacks_of("main (app.py:3) many")


def test_shares_are_of_all_samples_alone_and_with_what_is_called() -> None:
    assert shares(stacks_of(RAW))[:3] == [
        ("write (libc.so.6)", 0.6, 0.6),
        ("_is<ok> (backstop/b.py)", 0.3, 0.3),
        ("serve (backstop/a.py)", 0.09, 0.99),
    ]


def test_a_call_that_calls_itself_counts_once() -> None:
    assert shares(stacks_of("f (a.py);f (a.py);f (a.py) 4")) == [("f (a.py)", 1.0, 1.0)]


def test_origins_are_of_the_innermost_calls() -> None:
    raw = RAW + "main (app.py:3);run (loop.c:7) 25\nmain (app.py:3);__aexit__ (asyncio/timeouts.py:9) 75"
    assert origins(stacks_of(raw)) == [("asyncio", 0.375), ("libc.so.6", 0.3), ("backstop", 0.2), ("compiled", 0.125)]


def test_a_picture_shows_widths_by_share_and_leaves_out_where_everything_begins() -> None:
    namespace = "{http://www.w3.org/2000/svg}"
    boxes = {
        group.findtext(f"{namespace}title"): float(group.find(f"{namespace}rect").attrib["width"])  # type: ignore[union-attr]  # each has one
        for group in ET.fromstring(drawn(stacks_of(RAW), title="1 < 2")).iter(f"{namespace}g")
    }
    widths = {
        "serve (backstop/a.py): 99.0%": 99,
        "write (libc.so.6): 60.0%": 60,
        "_is<ok> (backstop/b.py): 30.0%": 30,
        "rare (backstop/c.py): 1.0%": 1,
    }
    assert boxes == {name: pytest.approx(WIDTH * share / 100, abs=0.1) for name, share in widths.items()}


def test_a_call_too_narrow_to_be_read_is_not_drawn_and_takes_its_place() -> None:
    picture = drawn(stacks_of("a (x.py);b (x.py) 1\na (x.py);c (x.py) 999\nd (x.py) 1000"), title="")
    assert "b (x.py)" not in picture
    assert f'<rect x="{WIDTH / 2000:.1f}"' in picture


def test_a_table_says_what_a_share_is_of_a_requests_time() -> None:
    assert table([("f (a.py)", 0.25, 0.5)], microseconds=200).splitlines()[-1] == "| 25.0 | 50.0 | 50.0 | `f (a.py)` |"
