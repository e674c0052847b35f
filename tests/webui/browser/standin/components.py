"""`modules.ui_components` with `modules.ui_common`: the hosts' own components."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.context import Context

from tests.hosts.standins.common import module

from .dialect import IS_3


class InForm:
    """Stands beside its neighbours in one form: in A1111, for in the Forges Gradio's own class comes first."""

    def get_expected_parent(self) -> type | None:
        return gr.components.Form if IS_3 else None


class ToolButton(InForm, gr.Button):
    """A button that is as wide as its symbol. (Gradio 4 sends what stands in the signature, hence `wraps`.)"""

    @functools.wraps(gr.Button.__init__)
    def __init__(self, value: str = "", elem_classes: Any = (), **kwargs: Any) -> None:
        super().__init__(value, elem_classes=["tool", *elem_classes], **kwargs)

    def get_block_name(self) -> str:
        return "button"


class FormRow(InForm, gr.Row):
    def get_block_name(self) -> str:
        return "row"


class FormColumn(InForm, gr.Column):
    def get_block_name(self) -> str:
        return "column"


class FormGroup(InForm, gr.Group):
    def get_block_name(self) -> str:
        return "group"


class FormHTML(InForm, gr.HTML):
    def get_block_name(self) -> str:
        return "html"


class AccordionCheckbox(gr.Checkbox):
    """The hidden checkbox behind an accordion that page.js links to it."""

    @functools.wraps(gr.Checkbox.__init__)
    def __init__(self, value: bool = False, *, elem_id: str = "", **kwargs: Any) -> None:
        """Outside of a page, Gradio 4 makes it anew from its arguments, to set its value."""
        on_page = Context.root_block is not None
        hidden = {**kwargs, "visible": False} if on_page else kwargs
        super().__init__(value, elem_id=f"{elem_id}-checkbox", **hidden)
        if on_page:
            self.change(None, [self], None, _js=f"(on) => inputAccordionChecked('{elem_id}', on)")
            label = kwargs.get("label", "Accordion")
            self.accordion = gr.Accordion(label, open=value, elem_id=elem_id, elem_classes=["input-accordion"])

    def __enter__(self) -> AccordionCheckbox:
        self.accordion.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.accordion.__exit__(*exception)

    def get_block_name(self) -> str:
        return "checkbox"


def InputAccordion(value: bool | None = None, **kwargs: Any) -> AccordionCheckbox:
    """A function, as in the Forges. In A1111 it is a class."""
    return AccordionCheckbox(bool(value), **kwargs)


def create_refresh_button(
    refresh_component: Any, refresh_method: Callable[[], object], refreshed_args: Any, elem_id: str
) -> ToolButton:
    several = refresh_component if isinstance(refresh_component, list) else [refresh_component]

    def refresh() -> Any:
        refresh_method()
        args = refreshed_args() if callable(refreshed_args) else refreshed_args
        for component in several:
            vars(component).update(args)
        return [gr.update(**args) for _ in several] if len(several) > 1 else gr.update(**args)

    button = ToolButton("🔄", elem_id=elem_id, tooltip="Refresh")
    button.click(refresh, [], several)
    return button


def modules() -> dict[str, types.ModuleType]:
    ours = (ToolButton, FormRow, FormColumn, FormGroup, FormHTML)
    return {
        "modules.ui_components": module(
            "modules.ui_components",
            InputAccordion=AccordionCheckbox if IS_3 else InputAccordion,
            **{made.__name__: made for made in ours},
        ),
        "modules.ui_common": module("modules.ui_common", create_refresh_button=create_refresh_button),
    }
