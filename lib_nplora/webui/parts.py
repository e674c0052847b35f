"""The panel's components in the making."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from ..methods.parameter import Parameter
from ..methods.table import method_named
from .fields import PanelState, fields

AT_ONCE = {"queue": False, "show_progress": False}
"""For events that do not wait for a picture in progress."""

SHORT = {"elem_classes": ["nplora-short"]}
"""For what has room beside its like on a narrow page."""

HIDDEN = {"elem_classes": ["nplora-hidden"]}


class Parts:
    """Components by name; those of the panel's values start as the panel does.

    tab
        `txt2img` or `img2img`.
    start
        The values that the panel starts with.
    """

    def __init__(self, tab: str, start: PanelState) -> None:
        self.tab = tab
        self.start = start
        self.made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        return self.made[name]

    def add(self, component: Any, name: str, **settings: Any) -> Any:
        """Make a component, inside whatever Gradio block is open."""
        if name in self.start.held:
            settings["value"] = self.start[name]
        self.made[name] = component(**settings, **self.at(name))
        return self.made[name]

    def at(self, name: str) -> dict[str, str]:
        """The arguments that give a component its place on the page."""
        return {"elem_id": f"{self.tab}_nplora_{name}"}

    @property
    def held(self) -> dict[str, Any]:
        """Those of the panel's values, in their order."""
        return {name: self.made[name] for name in fields()}

    def values(self) -> list[Any]:
        """The panel's values at its start, also of components that are still to be made: a host may have its own."""
        return [self.made[name].value if name in self.made else self.start[name] for name in fields()]

    def reads(self, parameter: Parameter[Any]) -> bool:
        """Whether the method that the panel starts with does."""
        return method_named(self.start["method"]).parameter(parameter.name) is not None


def sentence(text: str) -> str:
    """A plain sentence between the panel's parts, as HTML."""
    return f'<p class="nplora-sentence">{escape(text)}</p>'


def row() -> Any:
    """A row that wraps on a narrow page, to be entered."""
    return gr.Row(elem_classes=["nplora-row"])
