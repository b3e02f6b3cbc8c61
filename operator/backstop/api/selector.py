"""Series selectors of PromQL that a policy's author writes: a metric's name and label matchers, and nothing else.

The grammar is stricter than Prometheus' own, and one regular expression, so that the API server (RE2) and Python refuse the same texts.
What a regular expression inside of a matcher means is for Prometheus to say.
"""

import re
from collections.abc import Iterable
from typing import Final

LABEL_NAME: Final = "[a-zA-Z_][a-zA-Z0-9_]*"
_STRING: Final = r'"([^"\\\n]|\\[\\"nrt])*"'
_MATCHER: Final = rf" *{LABEL_NAME} *(=~|!~|!=|=) *{_STRING} *"
SELECTOR: Final = rf"^[a-zA-Z_:][a-zA-Z0-9_:]*(\{{({_MATCHER}(,{_MATCHER})*,? *)?\}})?$"
LONGEST_SELECTOR: Final = 512


def names_label(label: str) -> str:
    """The pattern of a selector that has a matcher for this label; `label` may be several, `a|b`."""
    return rf"^[a-zA-Z0-9_:]*\{{({_MATCHER},)* *({label}) *[=!]"


def is_selector(text: str) -> bool:
    """Whether the text is a metric's name with label matchers."""
    return re.fullmatch(SELECTOR, text) is not None


def with_matchers(selector: str, *, matchers: Iterable[str]) -> str:
    """The selector, narrowed down by more matchers. `selector`: as `is_selector` takes it."""
    name, _, rest = selector.partition("{")
    own = rest.removesuffix("}").rstrip(" ,")
    return f"{name}{{{','.join([own, *matchers] if own.strip() else matchers)}}}"
