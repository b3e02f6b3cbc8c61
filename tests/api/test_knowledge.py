"""Knowledge bases: what is valid, and in which one sentence everything else is refused."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from backstop.api.knowledge import LONGEST_PROBLEM, MOST_BYTES, KnowledgeBase, KnowledgeError, PatternWord, read_knowledge_base
from backstop.api.plainyaml import read_plain
from backstop.api.words import words_of

WHOLE = """
locale: en
entries:
- keywords: [opening hours, "when, do you OPEN?"]
  patterns: ["open* on sunday*"]
  answers: {en: From nine to five., de-AT: Von neun bis fünf.}
- keywords: [no, 1.10]        # text, whatever YAML would take it for
  answer: |
    Two
    lines.
defaults: {no: Ikke nå.}
"""


def test_a_whole_one_is_read_as_it_is_written() -> None:
    base = read_knowledge_base(WHOLE)
    hours, other = base.entries
    assert hours.keywords == (("opening", "hours"), ("when", "do", "you", "open"))
    assert hours.patterns == ((PatternWord("open", True), PatternWord("on", False), PatternWord("sunday", True)),)
    assert hours.answers == {"en": "From nine to five.", "de-at": "Von neun bis fünf."}
    assert other.keywords == (("no",), ("1", "10"))
    assert other.answers == {"": "Two\nlines.\n"}
    assert (base.locale, base.defaults) == ("en", {"no": "Ikke nå."})


def entry(**fields: object) -> str:
    return yaml.safe_dump({"entries": [{"keywords": ["a"], "answer": "x"}, fields]})


REFUSED = {
    "": "it is no map; begin with `entries:` and a list of them",
    "[]": "it is no map; begin with `entries:` and a list of them",
    "locale: en": "`entries` is missing; set it",
    "entries: []": "`entries` must have at least 1 element",
    "entries: {}": "`entries` must be a list, not an object",
    "entry: []": "`entry` is not a known field; take it out or correct its name",
    entry(keywords=["b"], answr="x"): "`entries[1].answr` is not a known field; take it out or correct its name",
    entry(answer="x"): "`entries[1]` has neither `keywords` nor `patterns`; say what it answers",
    entry(keywords=["b"]): "`entries[1]` has neither `answer` nor `answers`; set one of them",
    entry(keywords=["b"], answer="x", answers={"en": "y"}): "`entries[1]` has both `answer` and `answers`; take one of them out",
    entry(keywords="b", answer="x"): "`entries[1].keywords` must be a list, not a string",
    entry(keywords=[None], answer="x"): "`entries[1].keywords[0]` must be a string, not `null`",
    entry(keywords=["b"], answer=""): "`entries[1].answer` must not be empty",
    entry(keywords=["b"], answer="x" * 16385): "`entries[1].answer` must have at most 16384 characters",
    entry(keywords=["b" * 129], answer="x"): "`entries[1].keywords[0]` must have at most 128 characters",
    entry(keywords=["b"] * 65, answer="x"): "`entries[1].keywords` must have at most 64 elements",
    entry(keywords=["b", "?!"], answer="x"): "`entries[1].keywords[1]` has no word in it; give letters or digits",
    entry(keywords=["❤\ufe0f"], answer="x"): "`entries[1].keywords[0]` has no word in it; give letters or digits",
    entry(keywords=["open*"], answer="x"): "`entries[1].keywords[0]` has a `*`, which only `patterns` know; move it there",
    entry(patterns=["a*b"], answer="x"): (
        "`entries[1].patterns[0]`: a `*` stands at the end of a word, for any ending; take the others out"
    ),
    entry(patterns=["a * b"], answer="x"): (
        "`entries[1].patterns[0]`: a `*` alone says nothing, for other words may stand between anyway; take it out"
    ),
    entry(patterns=["..."], answer="x"): "`entries[1].patterns[0]` has no word in it; give letters or digits",
    entry(keywords=["b"], answers={"en": "y"}): (
        "`entries[1].answers` is by locale, and `locale` does not say which of them is for everybody else; set it"
    ),
    "locale: en\n" + entry(keywords=["b"], answers={"de": "y"}): (
        "`entries[1].answers` has none in the knowledge base's own `locale`, `en`; add it"
    ),
    "locale: en\n" + entry(keywords=["b"], answers={"en": "y", "EN": "z"}): (
        "`entries[1].answers.en` is given twice, in other letters; leave one out"
    ),
    "locale: en\n" + entry(keywords=["b"], answers={"english": "y"}): (
        "`entries[1].answers.english` is not a locale; write one such as `de` or `pt-BR`"
    ),
    "locale: english\n" + entry(keywords=["b"], answer="y"): "`locale` is not a locale; write one such as `de` or `pt-BR`",
    "entries: &all []\ndefaults: *all": "line 2: a YAML alias; write out what it stands for",
    "entries: !!python/none []": "line 1: the YAML tag `tag:yaml.org,2002:python/none`; take it out",
    "entries: []\nentries: []": "line 2: `entries` is given twice; leave one out",
    "entries: []\n---\nentries: []": "line 2: a second document begins; put everything into one",
    "? [a]\n: b": "line 1: a key that is no text; write a plain name",
    "[" * 100_000: "line 1: nested too deeply; take levels out",
    "entries:\n  - a:\n x": "line 3: not valid YAML; did not find expected key",
    "entries: \x01": "not valid YAML; check its characters, indentation and quotes",
    " " * (MOST_BYTES + 1): "it has 257 KiB, and may have 256 KiB; shorten it",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: REFUSED[text][:60])
def test_a_bad_one_is_refused_in_one_sentence_that_says_where_and_what_to_do(text: str) -> None:
    with pytest.raises(KnowledgeError) as refused:
        read_knowledge_base(text)
    assert str(refused.value) == REFUSED[text]


@pytest.mark.parametrize("text", ["entries:\n- {keywords: [a], answer: x\udfff}", "entries:\n# \udfff\n- {keywords: [a], answer: x}"])
def test_half_a_character_is_refused_wherever_it_stands(text: str) -> None:
    with pytest.raises(KnowledgeError) as refused:
        read_knowledge_base(text)
    assert str(refused.value) == "line 2: half of a character that is written in two halves (U+DFFF); write all of it"


def test_a_sentence_stays_short_whatever_the_author_wrote() -> None:
    with pytest.raises(KnowledgeError) as refused:
        read_knowledge_base(f"{'x' * 100_000}: 1\nentries: []")
    assert len(str(refused.value)) <= LONGEST_PROBLEM + 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't PANIC!", ["don", "t", "panic"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("ＦＵＬＬ width ﬁne", ["full", "width", "fine"]),
        ("cafe\u0301 café", ["café", "café"]),
        ("営業時間は？", ["営", "業", "時", "間", "は"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("환불은 언제", ["환불은", "언제"]),
        ("a_b 24/7", ["a", "b", "24", "7"]),
        (" \n…!?", []),
        ("re\u00adfund re\u200bfund \u2060refund\ufeff", ["refund", "refund", "refund"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("cafe\u200d\u0301", ["café"]),
        ("money ❤\ufe0f back", ["money", "back"]),
        ("❤\ufe0f \U0001f469\U0001f3fd\u200d\U0001f680", []),
        ("press 1\ufe0f\u20e3", ["press", "1"]),
        ("葛\U000e0100飾", ["葛", "飾"]),
        ("\u3164 \u115f", []),
        ("\u0301a \u0301", ["a"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("aที่b", ["a", "ที่", "b"]),
    ],
)
def test_words_are_compared_without_case_punctuation_and_width(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.text())
def test_words_are_words_again(text: str) -> None:
    words = words_of(text)
    assert words_of(" ".join(words)) == words


class _WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


PLAIN = st.recursive(
    st.none() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_lists_maps_and_text_come_back_as_they_were_written(value: object) -> None:
    written = yaml.dump(value, allow_unicode=True, Dumper=_WithoutAliases)
    try:
        expected = yaml.load(written, Loader=yaml.BaseLoader)  # it makes nothing but text
    except yaml.YAMLError:
        return  # a character that is written and not read again
    assert _nulls_as_text(read_plain(written)) == _nulls_as_text(expected)


def _nulls_as_text(value: object) -> object:
    """What BaseLoader spells as text is None here, where it stands for nothing."""
    match value:
        case None | "null" | "":
            return None
        case list():
            return [_nulls_as_text(inner) for inner in value]
        case dict():
            return {key: _nulls_as_text(inner) for key, inner in value.items()}
        case _:
            return value


def read(text: str) -> KnowledgeBase | str:
    try:
        return read_knowledge_base(text)
    except KnowledgeError as error:
        return str(error)


@given(st.text(alphabet="entriskywodal:-[]{}*&!'\"#|> \n\t~", max_size=300))
def test_whatever_is_written_is_read_or_refused_in_a_sentence(text: str) -> None:
    assert read(text)


SECTIONS = ["entries:", "keywords:", "patterns:", "answer:", "answers:", "locale:", "defaults:"]
FRAGMENTS = [*SECTIONS, "\n- ", "\n  ", " [", "]", " {", "}", ",", " a", " b*", " en:", " x", '"', "|", "\n"]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join))
def test_what_nearly_is_one_is_read_or_refused_in_a_sentence(text: str) -> None:
    match read(text):
        case KnowledgeBase() as base:
            assert all(entry.keywords or entry.patterns for entry in base.entries)
            assert all(entry.answers.get("") or base.locale in entry.answers for entry in base.entries)
        case sentence:
            assert sentence
