"""The one file that registers callbacks with the host."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from modules import script_callbacks, shared

from ..hosts import detect_host
from ..jobs.session import Session
from . import clock, infotext, plot, rest, running, settings
from .extra_network import install
from .said import be_heard

logger = logging.getLogger("nplora")

_undo: list[Callable[[], None]] = []


def register() -> None:
    """Called whenever the host runs our script, which it does again on every reload of its UI."""
    be_heard(shared.cmd_opts)
    plot.install()  # Without its page, a host makes the plot before it calls us.
    script_callbacks.on_before_ui(_start)
    script_callbacks.on_ui_settings(lambda: settings.add(_resize))
    script_callbacks.on_cfg_denoiser(clock.on_denoiser)
    script_callbacks.on_infotext_pasted(infotext.on_pasted)
    script_callbacks.on_app_started(_serve)
    script_callbacks.on_script_unloaded(_stop)


def _start() -> None:
    """The host empties its registry of extra networks after it imported the scripts: this is the first safe moment."""
    _stop()
    host = detect_host()
    if host is None:
        logger.error("NP-LoRA does not know this WebUI, so <nplora:...> has no effect. Is its Lora extension enabled?")
        return
    session = Session(host, settings.cache_gib())
    running.start(session, settings.setting)
    _undo.extend((running.stop, install(session, settings.stops_on_error), plot.install()))


def _stop() -> None:
    while _undo:
        _undo.pop()()


def _serve(demo: Any, app: Any) -> None:
    rest.register(app, running.host)


def _resize(gib: float) -> None:
    if session := running.session():
        session.resize(gib)
