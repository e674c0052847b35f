"""A sentence in its parts, so that it can be said in another language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Union

Value = Union[str, "Said"]


@dataclass(frozen=True, eq=False)
class Said:
    """A sentence.

    text
        In English, with `{name}` for what differs from case to case.
    values
        Name -> what stands there.
    """

    text: str
    values: Mapping[str, Value]

    def __str__(self) -> str:
        return self.told({})

    def told(self, words: Mapping[str, str]) -> str:
        """The sentence by a list of translations, in English where it has none."""

        def value(found: re.Match[str]) -> str:
            held = self.values.get(found[1], found[0])
            return held.told(words) if isinstance(held, Said) else held

        text = words.get(self.text) or self.text
        return _NAME.sub(value, text)


def say(text: str, **values: Value) -> Said:
    return Said(text, values)


def translated(text: str, words: Mapping[str, str]) -> str:
    """A sentence that is said already, by a list of translations; in English where none of its sentences fits.

    Where several fit with values in their `{name}`, that with the most words of its own counts. A value is translated,
    too, unless it stands in quotes, as names do.
    """
    if told := words.get(text):
        return told
    fits = [(len(_NAME.sub("", known)), known) for known in words if "{" in known and _pattern(known).fullmatch(text)]
    if not fits:
        return text
    _, known = max(fits)
    found = _pattern(known).fullmatch(text)
    assert found
    values = {
        name: value if f"'{{{name}}}'" in known else translated(value, words)
        for name, value in found.groupdict().items()
    }
    return Said(known, values).told(words)


_NAME = re.compile(r"\{(\w+)\}")


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    """What fits a sentence with any values."""
    pieces = _NAME.split(text)
    return re.compile(
        "".join(f"(?P<{piece}>.*?)" if i % 2 else re.escape(piece) for i, piece in enumerate(pieces)), re.DOTALL
    )
