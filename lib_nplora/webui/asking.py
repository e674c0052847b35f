"""A part of the panel that shows the server's answer to the newest question, in whatever order answers come.

Each question has a number, which its answer begins with: see javascript/nplora_answers.js.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gradio as gr

from .parts import AT_ONCE, HIDDEN, Parts


def make(parts: Parts, name: str) -> None:
    """The hidden boxes of a question and its answer."""
    for box in (_question(name), _answer(name)):
        parts.add(gr.Textbox, box, value="", label=box, **HIDDEN)


def join(parts: Parts, name: str, events: Iterable[Any], answer: Callable[[Sequence[Any]], str]) -> None:
    """Have the part called `name` show, after any of these events, what the panel's values are answered with."""
    what = parts.at(name)["elem_id"]
    question, answered = parts[_question(name)], parts[_answer(name)]

    def reply(number: str, *args: Any) -> str:
        return f"{number} {answer(args)}"

    for event in events:
        event(None, _js=f"() => nploraAsk('{what}')", inputs=[], outputs=[question])
    question.change(reply, inputs=[question, *parts.held.values()], outputs=[answered], **AT_ONCE)
    answered.change(
        None,
        _js=f"(answer, shown, question) => nploraAnswered('{what}', answer, shown, question)",
        inputs=[answered, parts[name], question],
        outputs=[parts[name], question],
    )


def _question(name: str) -> str:
    return f"{name}_question"


def _answer(name: str) -> str:
    return f"{name}_answer"
