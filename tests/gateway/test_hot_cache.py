"""The cache in memory: its bound in bytes, who goes first, and how long an answer is there."""

import tracemalloc
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from backstop.gateway.hotcache import ENTRY_OVERHEAD, LONGEST_ANSWER, HotCache, cost

FRESH, LIFETIME = 6.0, 10.0
CAPACITY = 4 * (ENTRY_OVERHEAD + 40)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("keep"), KEYS, st.integers(0, 2 * CAPACITY)),
        st.tuples(st.just("keep"), KEYS, st.integers(0, 60)),
        st.tuples(st.just("find"), KEYS, st.just(0)),
        st.tuples(st.just("wait"), st.just(b""), st.integers(1, 6)),
    ),
    max_size=60,
)


@given(steps=STEPS)
@settings(max_examples=150)
def test_w40_bytes_never_pass_the_bound_the_least_recently_used_goes_first_and_nothing_outlives_its_time(
    steps: list[tuple[str, bytes, int]],
) -> None:
    clock = Clock()
    cache = HotCache(capacity=CAPACITY, fresh=FRESH, stale=LIFETIME - FRESH, clock=clock)
    there: list[tuple[bytes, bytes, float]] = []  # key, answer, when: least recently used first
    for step, key, number in steps:
        entry = next((entry for entry in there if entry[0] == key), None)
        match step:
            case "wait":
                clock.now += number
                continue
            case "keep":
                there = [other for other in there if other[0] != key]
                body = b"x" * number
                cache.keep(key, body=body, has_usage=True)
                if cost(key, body=body) <= CAPACITY:
                    there.append((key, body, clock.now))
                while sum(cost(k, body=b) for k, b, _ in there) > CAPACITY:
                    del there[0]
            case "find":
                found = cache.find(key)
                if entry is not None:
                    there.remove(entry)
                    if clock.now - entry[2] < LIFETIME:
                        there.append(entry)
                    else:
                        entry = None
                age = 0.0 if entry is None else clock.now - entry[2]
                assert (None if found is None else (found[0].body, *found[1:])) == (None if entry is None else (entry[1], age, age < FRESH))
        assert cache.held == sum(cost(k, body=b) for k, b, _ in there) <= CAPACITY
        assert len(cache) == len(there)


def test_an_answer_longer_than_the_longest_is_not_kept_and_takes_the_older_one_away() -> None:
    cache = HotCache(capacity=1 << 20, fresh=FRESH, stale=LIFETIME - FRESH, clock=Clock())
    cache.keep(b"a", body=b"x" * LONGEST_ANSWER, has_usage=True)
    assert cache.find(b"a") is not None
    cache.keep(b"a", body=b"x" * (LONGEST_ANSWER + 1), has_usage=True)
    assert cache.find(b"a") is None
    assert cache.held == 0


def test_w40_what_is_counted_is_not_less_than_what_is_taken() -> None:
    clock = Clock()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        cache = HotCache(capacity=1 << 30, fresh=FRESH, stale=LIFETIME - FRESH, clock=clock)
        # Just past a doubling of the table, when most of it is empty; and each time is an object of its own.
        for number in range(5500):
            clock.now = number / 3
            cache.keep(number.to_bytes(32, "big"), body=b"%06d" % number, has_usage=True)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= cache.held
