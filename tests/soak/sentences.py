"""What an answer in words may not be."""

from __future__ import annotations

import re

_OF_PROGRAMS = re.compile(
    r"Traceback|details are in the console|\bNone\b|<class |object at 0x|\b\w+(?:Error|Exception)\b|lib_nplora"
    r"|\b(?:dict|str|int|float|tuple|NoneType|FuseBody|InspectBody|PairBody)\b"
)
"""Words of programs, which tell a user nothing."""


class NoAnswer(AssertionError):
    """What came was no answer."""


def check(sentence: str, of: int) -> None:
    """Raises NoAnswer for what is no sentence for a user, in one line.

    of
        How many signs it answers, which it may repeat.
    """
    if not sentence.strip():
        raise NoAnswer("an empty sentence")
    if found := _OF_PROGRAMS.search(sentence):
        raise NoAnswer(f"'{found[0]}' in: {sentence[:500]}")
    if "\n" in sentence:
        raise NoAnswer(f"more than a line: {sentence[:500]!r}")
    if len(sentence) > 3000 + 12 * of:
        raise NoAnswer(f"{len(sentence)} signs of answer to {of}: {sentence[:500]}")
