"""A sentence in its parts, so that it can be said in another language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
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
        return re.sub(r"\{(\w+)\}", value, text)


def say(text: str, **values: Value) -> Said:
    return Said(text, values)
