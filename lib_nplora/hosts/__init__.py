"""The WebUIs that LoRAs are loaded into. A new one is a new module or package here with a `detect` function.

A host is a shelf of files and a model. Its model lets the host's own loader read a LoRA and match it to the loaded
weights, takes the outcome as deltas under the host's keys, and hands fused deltas back under the same keys. It never
translates a layer's name. What the kinds of Forge share is `patching`.

diffusers is no WebUI: a pipeline of it is handed over, and its LoRA files are read by our own reader.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil

from .protocol import Host, ShelfFile

__all__ = ["Host", "ShelfFile", "detect_host"]

logger = logging.getLogger("nplora")


def detect_host() -> Host | None:
    """The WebUI that this process is, or None. An adapter that fails at looking leaves the next one its turn."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        try:
            detect = getattr(importlib.import_module(module.name), "detect", None)
            found: Host | None = detect() if detect else None
        except Exception as error:
            problem = " ".join(f"{type(error).__name__}: {error}".split())
            logger.warning("NP-LoRA cannot use %s here: %s", module.name, problem)
            continue
        if found:
            return found
    return None
