"""`modules.infotext_utils`: a picture's parameters as text, out of text, onto the page."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from tests.hosts.standins.common import Callbacks, module
from tests.hosts.standins.page import PasteField

_PARAMETER = re.compile(r'\s*(\w[\w \-/]*):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_FEWEST = 3
"""A last line with fewer parameters is part of the prompt."""


def written(prompt: str, negative_prompt: str, params: Mapping[str, object]) -> str:
    """What a picture's file says about it."""
    listed = ", ".join(f"{name}: {_quoted(str(value))}" for name, value in params.items() if value is not None)
    negative = [f"Negative prompt: {negative_prompt}"] if negative_prompt else []
    return "\n".join([prompt, *negative, listed])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if re.search("[,:\n]", text) else text


def parse_generation_parameters(x: str, skip_fields: Sequence[str] | None = None) -> dict[str, Any]:
    lines = x.strip().split("\n")
    found = _PARAMETER.findall(lines[-1])
    if len(found) < _FEWEST:
        found = []
    else:
        lines.pop()
    prompts: dict[str, list[str]] = {"Prompt": [], "Negative prompt": []}
    into = "Prompt"
    for line in lines:
        negative, colon, rest = line.strip().partition("Negative prompt:")
        if colon and not negative:
            into, line = "Negative prompt", rest
        prompts[into].append(line.strip())
    params: dict[str, Any] = {name: json.loads(value) if value[:1] == '"' else value for name, value in found}
    params |= {name: "\n".join(text) for name, text in prompts.items()}
    params.setdefault("Hires prompt", "")
    return params


class Pasting:
    """Fills a tab from text."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks

    def connect(self, button: Any, text: Any, fields: Sequence[tuple[Any, Any]]) -> None:
        """Let the button fill these fields from what stands in `text`."""

        def paste(infotext: str) -> list[Any]:
            params = parse_generation_parameters(infotext)
            self._callbacks.call("infotext_pasted", infotext, params)
            return [
                _filled(component, target(params) if callable(target) else params.get(target))
                for component, target in fields
            ]

        button.click(paste, [text], [component for component, _ in fields], show_progress=False)

    @staticmethod
    def modules() -> dict[str, types.ModuleType]:
        public = {"PasteField": PasteField, "parse_generation_parameters": parse_generation_parameters}
        made = module("modules.infotext_utils", **public)
        return {"modules.infotext_utils": made, "modules.generation_parameters_copypaste": made}


def _filled(component: Any, value: Any) -> Any:
    """The value as the type of that with which the component was made. One that does not fit is left out."""
    kind = type(component.value)
    if value is None:
        return gr.update()
    if isinstance(value, type(gr.update())):
        return value
    if kind is bool and value == "False":
        return gr.update(value=False)
    try:
        return gr.update(value=(float if kind is int else kind)(value))
    except (TypeError, ValueError):
        return gr.update()
