"""Which entry of a knowledge base a message asks for: every phrase and pattern at once, in one walk over its words. PURE.

The time is linear in the words of the message, however many entries there are and whatever either side wrote: phrases are found by an
automaton (Aho and Corasick, 1975) over words, patterns wait each for the one word that they need next.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..api.knowledge import Entry, PatternWord


@dataclass
class _State:
    """A place in the automaton. `entry`: the first entry that has a phrase that ends here, or in what it falls back to."""

    following: dict[str, "_State"] = field(default_factory=dict)
    otherwise: "_State | None" = None
    entry: int | None = None


@dataclass(frozen=True)
class _Pattern:
    entry: int
    words: tuple[PatternWord, ...]


class Matcher:
    """Finds the first entry that a message asks for, by its place in the knowledge base."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._phrases = _automaton(entries)
        patterns = [_Pattern(number, words) for number, entry in enumerate(entries) for words in entry.patterns]
        self._asked = frozenset(word for pattern in patterns for word in pattern.words)
        self._first: dict[tuple[str, bool], list[_Pattern]] = {}
        for pattern in patterns:
            self._first.setdefault(pattern.words[0], []).append(pattern)
        self._whole: dict[tuple[str, ...], int] = {}
        for number, entry in enumerate(entries):
            for phrase in entry.keywords:
                self._whole.setdefault(phrase, number)
        # The lengths of beginnings that are asked for: a word is looked up under each of its own.
        self._lengths = sorted({len(word.text) for pattern in patterns for word in pattern.words if word.open})

    def find(self, words: Sequence[str]) -> int | None:
        """The first entry of which a phrase or a pattern is in `words`; None: there is none."""
        return _first(self._by_phrase(words), self._by_pattern(words))

    def find_exactly(self, words: Sequence[str]) -> int | None:
        """The first entry of which a phrase or a pattern is all of `words`, from the first to the last."""
        if not words:
            return None
        waiting = [p for word in self._words_met(words[0]) for p in self._first.get(word, ()) if len(p.words) == len(words)]
        fitting = (p.entry for p in waiting if all(_meets(word, wanted) for word, wanted in zip(words, p.words, strict=True)))
        return _first(self._whole.get(tuple(words)), min(fitting, default=None))

    def _by_phrase(self, words: Sequence[str]) -> int | None:
        state, found = self._phrases, None
        for word in words:
            while (following := state.following.get(word)) is None and state.otherwise is not None:
                state = state.otherwise
            state = following or state
            if state.entry is not None and (found is None or state.entry < found):
                found = state.entry
        return found

    def _by_pattern(self, words: Sequence[str]) -> int | None:
        found: int | None = None
        begun: set[tuple[str, bool]] = set()
        waiting: dict[tuple[str, bool], list[tuple[_Pattern, int]]] = {}
        for word in words:
            moved: list[tuple[_Pattern, int]] = []
            for met in self._words_met(word):
                moved += waiting.pop(met, ())
                if met not in begun:
                    begun.add(met)
                    moved += [(pattern, 0) for pattern in self._first.get(met, ())]
            # Only now, for one word of the message is one word of a pattern.
            for pattern, position in moved:
                if position + 1 == len(pattern.words):
                    found = _first(found, pattern.entry)
                else:
                    waiting.setdefault(pattern.words[position + 1], []).append((pattern, position + 1))
        return found

    def _words_met(self, word: str) -> list[tuple[str, bool]]:
        """The words of patterns that `word` is one of, as a PatternWord is spelled."""
        met = [(word, False)] if (word, False) in self._asked else []
        for length in self._lengths:
            if length > len(word):
                break
            if (word[:length], True) in self._asked:
                met.append((word[:length], True))
        return met


def _meets(word: str, wanted: PatternWord) -> bool:
    return word.startswith(wanted.text) if wanted.open else word == wanted.text


def _first(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


def _automaton(entries: Sequence[Entry]) -> _State:
    root = _State()
    for number, entry in enumerate(entries):
        for phrase in entry.keywords:
            state = root
            for word in phrase:
                state = state.following.setdefault(word, _State())
            state.entry = _first(state.entry, number)
    ahead = deque([(root, word, state) for word, state in root.following.items()])
    while ahead:
        parent, word, state = ahead.popleft()
        state.otherwise = _fall_back(parent, word, root=root)
        state.entry = _first(state.entry, state.otherwise.entry)
        ahead.extend((state, next_word, following) for next_word, following in state.following.items())
    return root


def _fall_back(parent: _State, word: str, *, root: _State) -> _State:
    """Where the longest end of the phrase so far is that another phrase begins with."""
    state = parent.otherwise
    while state is not None:
        if (following := state.following.get(word)) is not None:
            return following
        state = state.otherwise
    return root
