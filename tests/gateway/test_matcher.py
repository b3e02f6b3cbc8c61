"""Which entry a message asks for: tables, and every message against the plain meaning of the words."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstop.api.knowledge import Entry, PatternWord, read_knowledge_base
from backstop.api.words import words_of
from backstop.gateway.locales import closest, wanted_locales
from backstop.gateway.matcher import Matcher

BASE = read_knowledge_base("""
entries:
- {keywords: [opening hours, when are you open], answer: hours}
- {patterns: ["cancel* subscription*", "unsubscri*"], answer: cancel}
- {keywords: [refund, money back], answer: refund}
- {keywords: [営業時間], answer: hours in Japanese}
- {keywords: [back], answer: back}
""")


@pytest.mark.parametrize(
    ("message", "entry"),
    [
        ("What are your OPENING  hours?", 0),
        ("opening\nhours", 0),
        ("opening your hours", None),
        ("hours opening", None),
        ("Please cancel my old subscriptions, now", 1),
        ("my subscription: cancel it", None),
        ("Unsubscribe!", 1),
        ("unsubscr", None),
        ("I want a refund and my opening hours", 0),
        ("refunds", None),
        ("money, back", 2),
        ("back", 4),
        ("money money back", 2),
        ("本日の営業時間は？", 3),
        ("", None),
        ("?!", None),
    ],
)
def test_the_first_entry_with_a_keyword_or_pattern_in_the_message_is_found(message: str, entry: int | None) -> None:
    assert Matcher(BASE.entries).find(words_of(message)) == entry


@pytest.mark.parametrize(
    ("message", "entry"),
    [
        ("Opening hours?", 0),
        ("your opening hours", None),
        ("cancellation subscription", 1),
        ("cancel my subscription", None),
        ("unsubscribe", 1),
        ("back", 4),
        ("money back", 2),
        ("", None),
    ],
)
def test_exactly_is_from_the_first_word_to_the_last(message: str, entry: int | None) -> None:
    assert Matcher(BASE.entries).find_exactly(words_of(message)) == entry


WORDS = st.sampled_from(["a", "ab", "aba", "b", "ba", "c"])
PHRASES = st.lists(WORDS, min_size=1, max_size=4).map(tuple)
PATTERNS = st.lists(st.builds(PatternWord, WORDS, st.booleans()), min_size=1, max_size=4).map(tuple)
ENTRIES = st.lists(
    st.builds(
        Entry,
        keywords=st.lists(PHRASES, max_size=3).map(tuple),
        patterns=st.lists(PATTERNS, max_size=3).map(tuple),
        answers=st.just({"": "x"}),
    ),
    max_size=4,
)


def meets(word: str, wanted: PatternWord) -> bool:
    return word.startswith(wanted.text) if wanted.open else word == wanted.text


def has_phrase(words: Sequence[str], phrase: tuple[str, ...]) -> bool:
    return any(tuple(words[start : start + len(phrase)]) == phrase for start in range(len(words)))


def has_pattern(words: Sequence[str], pattern: tuple[PatternWord, ...]) -> bool:
    rest = iter(words)
    return all(any(meets(word, wanted) for word in rest) for wanted in pattern)


@given(ENTRIES, st.lists(WORDS, max_size=12))
def test_every_message_finds_what_its_words_mean(entries: list[Entry], words: list[str]) -> None:
    expected = [
        number
        for number, entry in enumerate(entries)
        if any(has_phrase(words, phrase) for phrase in entry.keywords) or any(has_pattern(words, pattern) for pattern in entry.patterns)
    ]
    assert Matcher(entries).find(words) == (expected[0] if expected else None)


@given(ENTRIES, st.lists(WORDS, max_size=5))
def test_every_message_finds_exactly_what_is_all_of_it(entries: list[Entry], words: list[str]) -> None:
    expected = [
        number
        for number, entry in enumerate(entries)
        if words
        and (
            tuple(words) in entry.keywords
            or any(len(p) == len(words) and all(meets(w, wanted) for w, wanted in zip(words, p, strict=True)) for p in entry.patterns)
        )
    ]
    assert Matcher(entries).find_exactly(words) == (expected[0] if expected else None)


class Counted(str):
    """A word that counts how often it is looked at."""

    looks = 0

    def __hash__(self) -> int:
        Counted.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)


def looks_at(words: int, *, entries: Sequence[Entry]) -> int:
    matcher = Matcher(entries)
    Counted.looks = 0
    assert matcher.find([Counted("a")] * words) is None
    return Counted.looks


def test_the_work_grows_with_the_words_of_a_message_and_not_with_what_is_looked_for() -> None:
    phrase, pattern = ("a",) * 64 + ("b",), (PatternWord("a", True),) * 64 + (PatternWord("b", False),)
    one = [Entry(keywords=(phrase,), patterns=(pattern,), answers={"": "x"})]
    many = [Entry(keywords=(phrase, phrase[n:]), patterns=(pattern, pattern[n:]), answers={"": "x"}) for n in range(60)]
    assert looks_at(2000, entries=one) <= 2.2 * looks_at(1000, entries=one)
    assert looks_at(2000, entries=many) <= 1.2 * looks_at(2000, entries=one)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", ()),
        ("de", ("de",)),
        ("en;q=0.8, DE-at, fr;q=0.9", ("de-at", "fr", "en")),
        ("en;q=0, de", ("de",)),
        ("en;q=2, fr;q=nan, de;q=x, it;level=1, es", ("es",)),
        (", ,;q=1", ()),
        ("*", ("*",)),
    ],
)
def test_languages_are_wanted_in_the_order_of_their_weights(header: str, wanted: tuple[str, ...]) -> None:
    assert wanted_locales(header) == wanted


@given(st.text(max_size=300))
def test_whatever_a_caller_sends_as_languages_is_no_error(header: str) -> None:
    assert len(wanted_locales(header)) <= 16


@pytest.mark.parametrize(
    ("wanted", "text"),
    [(("de-at",), "A"), (("de-ch",), "D"), (("pt-br", "de"), "D"), (("fr",), None), ((), None), (("zh-hant-tw",), "Z"), (("*",), None)],
)
def test_the_closest_text_is_in_the_wanted_language(wanted: tuple[str, ...], text: str | None) -> None:
    assert closest({"de": "D", "de-at": "A", "zh-hant": "Z"}, wanted=wanted) == text
