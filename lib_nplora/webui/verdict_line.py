"""The panel's line that says of a pair, before anything is pressed, what the two do to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ..errors import NploraError
from . import asking, verdicts
from .parts import Parts, sentence
from .rest_errors import shown
from .saving import file_pair
from .tag_line import request_of
from .words import of_language
from .work import known_host, told

HINT = "Press Inspect to learn what the two do to each other."


def make(parts: Parts) -> None:
    parts.add(gr.HTML, "verdict", value="")
    asking.make(parts, "verdict")


def join(parts: Parts) -> None:
    """Let the line follow the tag."""
    asking.join(parts, "verdict", [parts["tag"].change], _verdict)


def _verdict(args: Sequence[Any]) -> str:
    """Nothing while there is no tag, which says why."""
    try:
        request = request_of(args)
    except NploraError:
        return ""

    def find() -> str:
        said = verdicts.quick(file_pair(known_host(), request))
        return shown(said.told(of_language())) if said else HINT

    return sentence(told(find, lambda problem: problem))
