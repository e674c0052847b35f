"""The model families that a LoRA can be made for. A new one is a new module here with a FAMILY."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache

from ..slot import Slot
from .family import PREFIX, SPELLINGS, Family, Spelling, Widths
from .sdxl import FAMILY as _USUAL

__all__ = [
    "PREFIX",
    "SPELLINGS",
    "Family",
    "Spelling",
    "bare",
    "detect",
    "families",
    "kernel",
    "register",
    "slices",
    "slot",
    "to_write",
]

_FAMILIES: list[Family] = []


def families() -> tuple[Family, ...]:
    return tuple(_FAMILIES)


def register(family: Family) -> Callable[[], None]:
    """Add a family. Returns the undo."""
    _FAMILIES.append(family)
    slot.cache_clear()

    def undo() -> None:
        _FAMILIES.remove(family)
        slot.cache_clear()

    return undo


def bare() -> list[str]:
    """Patterns of how the names of a diffusion model's layers may start without a prefix."""
    return list(dict.fromkeys(pattern for family in _FAMILIES for pattern in family.bare))


@lru_cache(maxsize=1 << 14)
def slot(rest: str) -> Slot | None:
    """The slot of a layer of a diffusion model, its name without prefix, dots already underscores; None if unknown."""
    return next((found for family in _FAMILIES if (found := family.slot(rest))), None)


def kernel(layer: str) -> tuple[int, ...]:
    """The kernel of a layer by its canonical name, () if it is no convolution, or not in every model."""
    return next((found for family in _FAMILIES if (found := family.kernel(layer))), ())


def slices(layer: str) -> int:
    """In how many slices files may hold the layer of this canonical name; 0 for none."""
    return max((family.slices(layer) for family in _FAMILIES), default=0)


def detect(widths: Widths, names: Iterable[str] = ()) -> Family | None:
    """The family of a LoRA, None if nothing tells.

    widths
        Input width of each layer, by canonical name.
    names
        Those of the modules, as the file has them.
    """
    text = "\n".join(names)
    surest = max(_FAMILIES, key=lambda family: family.claims(widths, text), default=None)
    return surest if surest and surest.claims(widths, text) else None


def to_write(layers: Collection[str], family: Family | None) -> Family:
    """The family as which these layers are written: the one that is known, or one that has such layers."""
    return family or next((one for one in _FAMILIES if any(map(one.has, layers))), _USUAL)


for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    if _found := getattr(importlib.import_module(_module.name), "FAMILY", None):
        register(_found)
