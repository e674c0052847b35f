"""The WebUIs that LoRAs are loaded into. A new one is a new file here with a `detect` function.

An adapter lets the host's own loader read a LoRA and match it to the loaded model, takes the outcome as low-rank deltas
under the host's keys, and hands fused deltas back under the same keys. It never translates a layer's name.
"""

from __future__ import annotations

import importlib
import pkgutil

from .protocol import Host, LoraFile

__all__ = ["Host", "LoraFile", "detect_host"]


def detect_host() -> Host | None:
    """The adapter for the WebUI that this process is, or None."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        detect = getattr(importlib.import_module(module.name), "detect", None)
        if detect and (host := detect()):
            found: Host = host
            return found
    return None
