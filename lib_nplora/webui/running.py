"""The fusions of the WebUI that runs us, for whoever was called without them."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import NploraError
from ..hosts import Host, detect_host
from ..session import Session

_session: Session | None = None


def start(session: Session) -> None:
    global _session
    _session = session


def stop() -> None:
    global _session
    _session = None


def session() -> Session | None:
    """None before the start, and in a WebUI that we do not know."""
    return _session


def host() -> Host | None:
    """The WebUI, also before the start: without its page, its panels are made first."""
    return _session.host if _session else detect_host()


def names() -> Sequence[str]:
    """The LoRAs that there are."""
    found = host()
    return found.names() if found else ()


def refresh() -> None:
    """Look for LoRAs anew."""
    if found := host():
        found.refresh()


def check_listed(name: str) -> None:
    """Raises NotFoundError unless a LoRA has this name or alias."""
    found = host()
    if found and name and name not in found.names():
        found.resolve(name)


def completed(name: str | None) -> str:
    """The first LoRA whose name holds what was typed, unless that is a name or alias itself; else as typed."""
    name = name or ""
    try:
        check_listed(name)
    except NploraError:
        return next((known for known in names() if name.lower() in known.lower()), name)
    return name


def same_lora(one: str, other: str) -> bool:
    """Whether two names mean one file, which has a name and may have an alias."""
    if one == other:
        return True
    found = host()
    if found is None:
        return False
    try:
        return found.resolve(one).path == found.resolve(other).path
    except NploraError:
        return False
