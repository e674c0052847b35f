"""The panel's fold that says and shows what the two LoRAs do to each other."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import gradio as gr

from ..findings.pictures import as_png, pictures, title_of
from ..findings.said import say
from ..findings.sentences import findings
from ..findings.themes import DARK, LIGHT
from ..jobs.pair import inspect_files
from ..methods.selection import MOST_STEPS, USUAL_STEPS
from ..request.tag import format_tag
from . import verdicts
from .parts import HIDDEN, Parts, sentence
from .rest_errors import shown
from .saving import file_pair
from .verdict_line import HINT
from .words import of_language, remarks
from .work import PROGRESS, known_host, others, request_of, shown_on, told


def make(parts: Parts) -> None:
    with gr.Accordion("Inspect this pair", open=False, **parts.at("inspect_fold")):
        parts.add(gr.Button, "inspect", value="Inspect")
        parts.add(gr.Number, "steps", value=USUAL_STEPS, label="steps", **HIDDEN)
        parts.add(gr.Checkbox, "dark", value=False, label="dark", **HIDDEN)
        parts.add(gr.HTML, "findings", value="")
        parts.add(gr.HTML, "picture", value="")


def join(parts: Parts) -> None:
    """Let the button inspect, for the tab's steps and in the page's colours."""
    asked = [*parts.held.values(), parts["steps"], parts["dark"]]
    # Gradio hands the outputs' values over after the inputs'.
    js = f"(...values) => nploraSeen('{parts.tab}', values.slice(0, {len(asked)}))"
    outputs = [parts[name] for name in ("findings", "picture", "verdict")]
    parts["inspect"].click(_inspected, _js=js, inputs=asked, outputs=outputs)


def _inspected(progress: Any = PROGRESS, *args: Any) -> tuple[str, str, str]:
    """What Inspect shows. Gradio counts a starred argument as one, so `progress` stands first."""

    def inspect() -> tuple[str, str, str]:
        request = request_of(args)
        pair = file_pair(known_host(), request)
        fusion = inspect_files(pair, shown_on(progress))
        verdicts.keep(pair, fusion)
        typed, dark = others(args)
        steps = min(max(int(typed), 1), MOST_STEPS)
        words = of_language()
        tag = format_tag(request)
        if fusion.schedule:
            tag = say("{tag}, {steps} steps", tag=tag, steps=str(steps)).told(words)
        first, *rest = (finding.told(words) for finding in findings(fusion, request))
        drawn = pictures(fusion, request, steps, DARK if dark else LIGHT, words)
        shown_pictures = _pictures((title_of(one), as_png(one)) for one in drawn)
        return _sentences(first, tag, [*rest, *remarks(fusion, words)]), shown_pictures, sentence(first)

    return told(inspect, lambda problem: (sentence(problem), "", sentence(HINT)))


def _sentences(verdict: str, tag: str, others: Sequence[str]) -> str:
    """The verdict in large, what it is of, the others below."""
    items = "".join(f"<li>{escape(shown(other))}</li>" for other in others)
    return (
        f'<p class="nplora-verdict">{escape(verdict)}</p><p class="nplora-of">{escape(shown(tag))}</p><ul>{items}</ul>'
    )


def _pictures(drawn: Iterable[tuple[str, bytes]]) -> str:
    """As HTML. gr.Image would leave them as files in the host's folder for temporary ones, which Neo may not have."""
    shown = "".join(
        f'<button type="button" class="nplora-plot" onclick="nploraEnlarge(this)">'
        f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}" alt="{escape(title)}"></button>'
        for title, data in drawn
    )
    return f'<div class="nplora-plots">{shown}</div>'
