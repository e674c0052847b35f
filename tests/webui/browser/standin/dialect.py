"""The Gradio that a host's extensions see: its own, with a few words more."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

IS_3 = gr.__version__.startswith("3.")

if not IS_3:
    import gradio.component_meta

    # Or else it writes a .pyi file beside each subclass of a component.
    gradio.component_meta.create_or_modify_pyi = lambda *args: None


def teach() -> None:
    """Let every component take `tooltip` and carry a class of its name, and let events of Gradio 4 take `_js`.

    To be called once, before the first component is made.
    """
    if not IS_3:
        gr.events.Dependency.__init__ = _then_takes_js(gr.events.Dependency.__init__)
    for block in set(_blocks()):
        block.__init__ = _dressed(block.__init__)
        for event in () if IS_3 else getattr(block, "EVENTS", ()):
            setattr(block, str(event), _takes_js(getattr(block, str(event))))


def _blocks() -> Iterator[type]:
    for module in (gr.components, gr.layouts):
        for found in vars(module).values():
            if isinstance(found, type) and issubclass(found, gr.blocks.Block) and "__init__" in vars(found):
                yield found


def _dressed(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def dressed(self: Any, *args: Any, tooltip: str | None = None, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        name = f"gradio-{self.get_block_name()}"
        if name not in (self.elem_classes or []):
            self.elem_classes = [name, *(self.elem_classes or [])]

    return dressed


def _takes_js(event: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(event)
    def takes_js(*args: Any, _js: str | None = None, **kwargs: Any) -> Any:
        return event(*args, **kwargs, **({"js": _js} if _js else {}))

    return takes_js


def _then_takes_js(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def then_takes_js(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.then = _takes_js(self.then)

    return then_takes_js
