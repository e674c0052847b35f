"""The way from a picture's parameters back to the prompt and the panel."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from ..errors import NploraError, RequestError
from ..hosts.protocol import Shelf
from ..methods.table import every_parameter
from ..request.request import FusionRequest
from ..request.tag import METHOD, parse_tag, split
from . import prompt_text, running
from .fields import PanelState
from .prompt_text import Standing
from .said import SAID

logger = logging.getLogger("nplora")

MARK = "NP-LoRA"
"""Stands in the parameters of a picture whose tag the panel wrote."""

BY_PANEL = "panel"

HASHES = "Lora hashes"
"""Where a host names the LoRAs of a picture."""


def told_of(request: FusionRequest) -> dict[str, str]:
    """What a picture's parameters say of its fusion beside the tag: what is not to be left to a later default."""
    own = request.method.parameters
    return {one.infotext: request.values.text(one) for one in own if one.infotext}


def ours() -> set[str]:
    """Every name under which we write into a picture's parameters, but for the hashes."""
    return {MARK, SAID, *(one.infotext for one in every_parameter().values() if one.infotext)}


def label(name: str) -> str:
    """What a field of the panel is called among pasted parameters. Never written into a picture: the tag says it."""
    return f"{MARK} {name}"


def on_pasted(infotext: str, params: MutableMapping[str, Any]) -> None:
    """Turn the parameters of a picture into those of the prompt box and of the panel, before the host fills them in.

    The panel's own tag goes back into the panel, which is switched on; one that was typed stays in the prompt, and the
    panel shows it while it is off. LoRAs that were renamed since are found by their hashes.
    """
    by_panel = params.get(MARK) == BY_PANEL
    prompts = [name for name in ("Prompt", "Hires prompt") if params.get(name)]
    if shelf := running.shelf():
        finder = _Finder(shelf, read_hashes(params.get(HASHES, "")))
        for name in prompts:
            params[name] = prompt_text.renamed(params[name], finder.name)
    shown = _readable(params.get("Prompt") or "", last=by_panel)
    if by_panel and shown:
        for name in prompts:
            if standing := _readable(params[name], last=True):
                params[name] = prompt_text.without(params[name], standing)
        _take_styles(params)
    if shown is None:
        state = _of_an_unknown_method(params.get("Prompt") or "")
    else:
        assert not isinstance(shown.asked.request, RequestError)
        state = PanelState.of(shown.asked.request, enabled=by_panel)
    if state:
        params.update({label(name): value for name, value in state.held.items()})


def enabled(params: Mapping[str, Any]) -> bool:
    """Whether pasted parameters switch the panel on; others' pictures, which say nothing of it, switch it off."""
    return bool(params.get(label("enabled"), False))


def read_hashes(text: str) -> dict[str, str]:
    """The host's "name: hash, ...", by name."""
    pairs = (pair.rpartition(":") for pair in text.split(","))
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _readable(prompt: str, last: bool) -> Standing | None:
    found = [x for x in prompt_text.find(prompt) if not isinstance(x.asked.request, RequestError)]
    if last:
        found = [standing for standing in reversed(found) if not standing.asked.by_role]
    return next(iter(found), None)


def _of_an_unknown_method(prompt: str) -> PanelState | None:
    """The panel, switched off, that names the method of a tag which only that keeps from being read."""
    for standing in prompt_text.find(prompt):
        if not standing.asked.by_role:
            pieces = standing.asked.tag.strip("<>").split(":")[1:]
            others = [piece for piece in pieces if piece.partition("=")[0].strip().lower() != METHOD]
            try:
                _, named = split(pieces)
                request = parse_tag(others)
                return PanelState({**PanelState.of(request, enabled=False).held, METHOD: named[METHOD].strip().lower()})
            except (RequestError, KeyError) as error:
                logger.debug("%s", error)
    return None


def _take_styles(params: MutableMapping[str, Any]) -> None:
    """The host looks for its styles at the end of the prompt, before our tag was taken from there: look once more."""
    try:
        shared = importlib.import_module("modules.shared")
        extract, rule = shared.prompt_styles.extract_styles_from_prompt, shared.opts.infotext_styles
    except (ImportError, AttributeError):
        return
    if rule == "Ignore" or params.get("Hires prompt"):
        return
    found, params["Prompt"], params["Negative prompt"] = extract(params["Prompt"], params.get("Negative prompt", ""))
    if found and rule in ("Apply", "Apply if any"):
        params["Styles array"] = [*params.get("Styles array", ()), *found]


class _Finder:
    """Finds LoRAs by the hashes that a picture names them with, each once, in ten seconds for all."""

    def __init__(self, shelf: Shelf, hashes: Mapping[str, str]) -> None:
        self._shelf = shelf
        self._hashes = hashes
        self._found: dict[str, str] = {}
        self._until = time.monotonic() + 10

    def name(self, name: str) -> str:
        """What the LoRA is called here; the name as it was if it is not found."""
        if name not in self._found:
            self._found[name] = self._find(name) or name
        return self._found[name]

    def _find(self, name: str) -> str | None:
        shorthash = self._hashes.get(name.replace(",", ""))
        if not shorthash:
            return None
        try:
            if self._shelf.resolve(name).shorthash == shorthash:
                return name
        except (NploraError, OSError) as error:
            logger.debug("%s", error)
        return self._shelf.named_by_hash(shorthash, max(self._until - time.monotonic(), 0))
