"""Our section of the host's settings page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr
from modules import shared

from ..errors import NploraError
from ..methods.parameter import Parameter, Setting
from ..methods.table import every_parameter, method_named, methods, usual
from .allowance import usual_gib
from .fields import PanelState

logger = logging.getLogger("nplora")

SECTION = ("nplora", "NP-LoRA")
STOP = "Stop, without a picture"
COMMENT = "Say so under the picture"


def add(on_cache: Callable[[float], None]) -> None:
    """Add our settings to the host's.

    on_cache
        Called with the new cache size, in GiB, when the user changes it.
    """

    def option(name: str, default: Any, label: str, info: str, *args: Any, reload: bool = False, **kwargs: Any) -> None:
        made = shared.OptionInfo(default, label, *args, section=SECTION, **kwargs).info(info)
        shared.opts.add_option(f"nplora_{name}", made.needs_reload_ui() if reload else made)

    start = "what the panel starts with; the tag always says its own"
    for parameter in usual().parameters:
        text = parameter.write(parameter.default)
        option(
            parameter.name, text, f"NP-LoRA: {parameter.name}", f"{parameter.takes}: {start}", gr.Textbox, reload=True
        )
    option("method", usual().name, "NP-LoRA: method", start, gr.Dropdown, {"choices": list(methods())}, reload=True)
    for parameter in every_parameter().values():
        if isinstance(parameter.widget, Setting):
            option(parameter.name, "", f"NP-LoRA: {parameter.name}", parameter.widget.info, gr.Textbox)
    option(
        "on_error",
        COMMENT,
        "NP-LoRA: if a tag cannot be honoured",
        "a name is misspelt, say",
        gr.Radio,
        {"choices": [COMMENT, STOP]},
    )
    option(
        "cache",
        usual_gib(),
        "NP-LoRA: memory for LoRAs and fusions, in GiB",
        "more keeps more pairs ready for another mu",
        gr.Slider,
        {"minimum": 1, "maximum": 32, "step": 1},
        onchange=lambda: on_cache(cache_gib()),
    )


def setting(parameter: str) -> str:
    """What stands on the settings page under this parameter's name."""
    return getattr(shared.opts, f"nplora_{parameter}", "")


def panel_defaults() -> PanelState:
    """What the panel starts with. A setting that cannot be read is reported and left out."""
    start: dict[str, Any] = {one.name: _read(one.name, partial(_again, one)) for one in usual().parameters}
    start["method"] = _read("method", lambda text: method_named(text).name)
    return PanelState.from_args([{"enabled": False, **start}])


def _again(parameter: Parameter[Any], text: str) -> str:
    """The text as the parameter itself would write it. Raises RequestError."""
    return parameter.write(parameter.read(text))


def stops_on_error() -> bool:
    return bool(getattr(shared.opts, "nplora_on_error", COMMENT) == STOP)


def cache_gib() -> float:
    return float(getattr(shared.opts, "nplora_cache", None) or usual_gib())


def _read(name: str, read: Callable[[str], str]) -> str | None:
    """What is set, as text; None for the panel's own default."""
    text = getattr(shared.opts, f"nplora_{name}", None)
    try:
        return None if text is None else read(str(text))
    except NploraError as error:
        logger.warning("the setting NP-LoRA: %s is not used: %s", name, error)
        return None
