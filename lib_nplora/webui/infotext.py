"""The way from a picture's parameters back to the prompt and the panel."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any

from ..errors import NploraError, RequestError
from ..hosts import Host
from . import prompt_text, running
from .fields import NAMES, PanelState
from .prompt_text import Spelled

logger = logging.getLogger("nplora")

MARK = "NP-LoRA"
"""Stands in the parameters of a picture whose tag the panel wrote."""

BY_PANEL = "panel"


def label(name: str) -> str:
    """What a field of the panel is called among pasted parameters. Never written into a picture: the tag says it."""
    return f"{MARK} {name}"


def on_pasted(infotext: str, params: MutableMapping[str, Any]) -> None:
    """Turn the parameters of a picture into those of the prompt box and of the panel, before the host fills them in.

    The panel's own tag goes back into the panel, which is switched on; one that was typed stays in the prompt, and the
    panel shows it while it is off. LoRAs that were renamed since are found by their hashes.
    """
    by_panel = params.pop(MARK, None) == BY_PANEL
    prompts = [name for name in ("Prompt", "Hires prompt") if params.get(name)]
    if host := running.host():
        finder = _Finder(host, _hashes(params.get("Lora hashes", "")))
        for name in prompts:
            params[name] = prompt_text.renamed(params[name], finder.name)
    shown = _readable(params.get("Prompt") or "", last=by_panel)
    if by_panel and shown:
        for name in prompts:
            if spelled := _readable(params[name], last=True):
                params[name] = prompt_text.without(params[name], spelled)
    if shown is None:
        params[label("enabled")] = False
        return
    request = shown.asked.request
    assert not isinstance(request, RequestError)
    state = PanelState.of(request, enabled=by_panel)
    params.update({label(name): getattr(state, name) for name in NAMES})


def _readable(prompt: str, last: bool) -> Spelled | None:
    found = [x for x in prompt_text.find(prompt) if not isinstance(x.asked.request, RequestError)]
    if last:
        found = [spelled for spelled in reversed(found) if not spelled.asked.by_role]
    return next(iter(found), None)


def _hashes(text: str) -> dict[str, str]:
    """The host's `Lora hashes`, "name: hash, ...", by name."""
    pairs = (pair.rpartition(":") for pair in text.split(","))
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


class _Finder:
    """Finds LoRAs by the hashes that a picture names them with."""

    def __init__(self, host: Host, hashes: Mapping[str, str]) -> None:
        self._host = host
        self._hashes = hashes

    def name(self, name: str) -> str:
        """What the LoRA is called here; the name as it was if it is not found."""
        shorthash = self._hashes.get(name.replace(",", ""))
        if not shorthash:
            return name
        try:
            if self._host.resolve(name).shorthash == shorthash:
                return name
        except NploraError as error:
            logger.debug("%s", error)
        return self._host.named_by_hash(shorthash) or name
