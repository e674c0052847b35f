"""The one file that registers callbacks with the host."""

from __future__ import annotations

import logging
from collections.abc import Callable

from modules import script_callbacks

from ..hosts import detect_host
from ..session import Session
from .extra_network import install

logger = logging.getLogger("nplora")

_undo: list[Callable[[], None]] = []


def register() -> None:
    """Called whenever the host runs our script, which it does again on every reload of its UI."""
    script_callbacks.on_before_ui(_start)
    script_callbacks.on_script_unloaded(_stop)


def _start() -> None:
    """The host empties its registry of extra networks after it imported the scripts: this is the first safe moment."""
    _stop()
    host = detect_host()
    if host is None:
        logger.error("NP-LoRA does not know this WebUI, so <nplora:...> has no effect. Is its Lora extension enabled?")
        return
    _undo.append(install(Session(host)))


def _stop() -> None:
    while _undo:
        _undo.pop()()
