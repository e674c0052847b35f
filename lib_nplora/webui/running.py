"""The fusions of the WebUI that runs us, for whoever was called without them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ..errors import NotFoundError, did_you_mean_lora
from ..hosts import Host, detect_host
from ..hosts.protocol import Shelf
from ..jobs.session import Session
from ..layers.block import UNKNOWN, Block
from ..request.request import FusionRequest

logger = logging.getLogger("nplora")


def _empty(parameter: str) -> str:
    return ""


_session: Session | None = None
_setting: Callable[[str], str] = _empty


def start(session: Session, setting: Callable[[str], str] = _empty) -> None:
    """`setting` tells what stands on the settings page under a parameter's name."""
    global _session, _setting
    _session, _setting = session, setting


def stop() -> None:
    global _session, _setting
    _session, _setting = None, _empty


def filled(request: FusionRequest) -> FusionRequest:
    """The request with what its method reads of the settings page. Raises RequestError."""
    own = (one for one in request.method.parameters if one.is_setting)
    return request.with_values(**{one.name: one.read(_setting(one.name)) for one in own})


def session() -> Session | None:
    """None before the start, and in a WebUI that we do not know."""
    return _session


def host() -> Host | None:
    """The WebUI, also before the start: without its page, its panels are made first."""
    return _session.host if _session else detect_host()


def shelf() -> Shelf | None:
    """The WebUI's LoRAs; None in one that we do not know."""
    found = host()
    return found.shelf if found else None


def names() -> Sequence[str]:
    """The LoRAs that there are."""
    found = shelf()
    return found.names() if found else ()


def folder_of(name: str) -> str:
    """Where the LoRA lies that has this name or alias, if other files have its name, too; else an empty string."""
    found = shelf()
    entries = [entry for entry in (found.listed() if found else ()) if name in (entry.name, entry.alias)]
    return next((entry.namesakes[0] for entry in entries if entry.namesakes), "")


def blocks() -> Sequence[Block]:
    """Those of the loaded model, in its order; none where there is no telling. Loads no model."""
    found = host()
    try:
        if found is None or found.model.checkpoint is None:
            return ()
        return sorted(block for block in found.model.blocks() if block.label != UNKNOWN)
    except Exception as error:
        logger.debug("the model's blocks cannot be told: %s", error)
        return ()


def refresh() -> None:
    """Look for LoRAs anew."""
    if found := shelf():
        found.refresh()


def _paths() -> dict[str, str]:
    """The file of each name and alias that the host lists. Names come before aliases."""
    found = shelf()
    listed = found.listed() if found else ()
    return {**{entry.alias: entry.path for entry in listed}, **{entry.name: entry.path for entry in listed}}


def check_listed(name: str) -> None:
    """Raises NotFoundError unless a LoRA has this name or alias."""
    known = _paths()
    if name not in known:
        raise NotFoundError(f"there is no LoRA called '{name}'.{did_you_mean_lora(name, known)}")


def same_lora() -> Callable[[str, str], bool]:
    """Tells whether two names mean one file, which has a name and may have an alias, by the list as it is now."""
    paths = _paths()
    return lambda one, other: one == other or (one in paths and paths[one] == paths.get(other))
