"""An answer as it lies outside of the process: what is read back, and what is none."""

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.gateway.hotcache import LONGEST_ANSWER
from backstop.gateway.storedentry import LONGEST_ENTRY, Entry, decode, encode

KEY, NOW = b"k" * 32, 1_800_000_000.0
ENTRY = Entry(b'{"choices": []}', has_usage=True, kept_at=NOW - 30, fresh_until=NOW + 30)
TIMES = st.floats(NOW - 1e6, NOW)


@given(body=st.binary(min_size=1, max_size=50), has_usage=st.booleans(), kept_at=TIMES, fresh_for=st.floats(0, 1e6))
def test_an_entry_is_read_back_as_it_was_under_its_key_alone(body: bytes, has_usage: bool, kept_at: float, fresh_for: float) -> None:
    entry = Entry(body, has_usage, kept_at, kept_at + fresh_for)
    raw = encode(entry, key=KEY)
    assert decode(raw, key=KEY, now=NOW) == entry
    assert decode(raw, key=b"K" * 32, now=NOW) is None


@given(raw=st.one_of(st.binary(max_size=200), st.integers(0, 60).map(lambda n: encode(ENTRY, key=KEY)[:-1][:n])))
def test_what_is_no_entry_is_none(raw: bytes) -> None:
    assert decode(raw, key=KEY, now=NOW) is None


def test_another_format_is_none_however_well_it_is_sealed() -> None:
    text = struct.pack(">B?dd", 2, True, NOW - 30, NOW + 30) + ENTRY.body
    assert decode(hashlib.blake2b(text, key=KEY, digest_size=16).digest() + text, key=KEY, now=NOW) is None
    text = b"\x01" + text[1:]
    assert decode(hashlib.blake2b(text, key=KEY, digest_size=16).digest() + text, key=KEY, now=NOW) == ENTRY, "the format is a promise"


def test_the_longest_answer_fits_exactly() -> None:
    raw = encode(Entry(b"x" * LONGEST_ANSWER, has_usage=True, kept_at=NOW, fresh_until=NOW), key=KEY)
    assert len(raw) == LONGEST_ENTRY
    assert decode(raw, key=KEY, now=NOW) is not None
    longer = encode(Entry(b"x" * (LONGEST_ANSWER + 1), has_usage=True, kept_at=NOW, fresh_until=NOW), key=KEY)
    assert decode(longer, key=KEY, now=NOW) is None


@pytest.mark.parametrize(("ahead", "age"), [(30.0, 0.0), (90.0, None)])
def test_a_clock_that_is_a_little_ahead_is_forgiven_and_one_that_is_wrong_is_not_believed(ahead: float, age: float | None) -> None:
    found = decode(encode(Entry(b"x", has_usage=True, kept_at=NOW + ahead, fresh_until=NOW + 900), key=KEY), key=KEY, now=NOW)
    assert (None if found is None else NOW - found.kept_at) == age
