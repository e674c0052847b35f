"""Our section of the host's settings page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gradio as gr
from modules import shared

from ..errors import NploraError
from ..maths.rank_rule import RankRule
from ..methods.table import METHODS, method_named
from ..request.request import HARD, parse_mu
from .fields import PanelState

logger = logging.getLogger("nplora")

SECTION = ("nplora", "NP-LoRA")
STOP = "Stop, without a picture"
COMMENT = "Say so under the picture"
CACHE_GIB = 5.0


def add(on_cache: Callable[[float], None]) -> None:
    """Add our settings to the host's.

    on_cache
        Called with the new cache size, in GiB, when the user changes it.
    """

    def option(name: str, default: Any, label: str, info: str, *args: Any, reload: bool = False, **kwargs: Any) -> None:
        made = shared.OptionInfo(default, label, *args, section=SECTION, **kwargs).info(info)
        shared.opts.add_option(f"nplora_{name}", made.needs_reload_ui() if reload else made)

    start = "what the panel starts with; the tag always says its own"
    option("mu", "0.5", "NP-LoRA: mu", f"a number from 0 up, or hard: {start}", gr.Textbox, reload=True)
    option(
        "k", "all", "NP-LoRA: k", f"all, a number such as 16, or a share such as 90%: {start}", gr.Textbox, reload=True
    )
    option("method", "np", "NP-LoRA: method", start, gr.Dropdown, {"choices": list(METHODS)}, reload=True)
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
        CACHE_GIB,
        "NP-LoRA: memory for LoRAs and fusions, in GiB",
        "more keeps more pairs ready for another mu",
        gr.Slider,
        {"minimum": 1, "maximum": 32, "step": 1},
        onchange=lambda: on_cache(cache_gib()),
    )


def panel_defaults() -> PanelState:
    """What the panel starts with. A setting that cannot be read is reported and left out."""
    mu = _read("mu", parse_mu, PanelState.mu)
    return PanelState(
        mu=PanelState.mu if mu == HARD else mu,
        hard=mu == HARD,
        k=str(_read("k", RankRule.parse, RankRule())),
        method=_read("method", lambda name: name if method_named(name) else "", PanelState.method),
    )


def stops_on_error() -> bool:
    return bool(getattr(shared.opts, "nplora_on_error", COMMENT) == STOP)


def cache_gib() -> float:
    return float(getattr(shared.opts, "nplora_cache", CACHE_GIB))


def _read(name: str, parse: Callable[[str], Any], default: Any) -> Any:
    text = str(getattr(shared.opts, f"nplora_{name}", default))
    try:
        return parse(text)
    except NploraError as error:
        logger.warning("the setting NP-LoRA: %s is not used: %s", name, error)
        return default
