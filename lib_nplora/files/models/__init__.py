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
    "labels",
    "register",
    "slice_count",
    "slot_of",
    "to_write",
]

_FAMILIES: list[Family] = []


def families() -> tuple[Family, ...]:
    return tuple(_FAMILIES)


def register(family: Family) -> Callable[[], None]:
    """Add a family. Returns the undo."""
    _FAMILIES.append(family)
    slot_of.cache_clear()

    def undo() -> None:
        _FAMILIES.remove(family)
        slot_of.cache_clear()

    return undo


def labels(joined_by: str, lacking: Spelling | None = None) -> str:
    """The families in words: `SD 1, SD 2 or Flux`. Those that are usually written in kohya's spelling come first.

    joined_by
        The word before the last of them.
    lacking
        A spelling in which they cannot be written; None for all families.
    """
    known = sorted(_FAMILIES, key=lambda family: family.usual_spelling != "kohya")
    *words, last = [family.label for family in known if lacking is None or lacking not in family.entries]
    return f"{', '.join(words)} {joined_by} {last}" if words else last


def bare() -> list[str]:
    """Patterns of how the names of a diffusion model's layers may start without a prefix."""
    return list(dict.fromkeys(pattern for family in _FAMILIES for pattern in family.bare))


@lru_cache(maxsize=1 << 14)
def slot_of(rest: str) -> Slot | None:
    """The slot of a layer of a diffusion model, its name without prefix, dots already underscores; None if unknown."""
    return next((found for family in _FAMILIES if (found := family.slot_of(rest))), None)


def kernel(layer: str) -> tuple[int, ...]:
    """The kernel of a layer by its canonical name, () if it is no convolution, or not in every model."""
    return next((found for family in _FAMILIES if (found := family.kernel(layer))), ())


def slice_count(layer: str) -> int:
    """In how many slices files may hold the layer of this canonical name; 0 for none."""
    return max((family.slice_count(layer) for family in _FAMILIES), default=0)


def detect(widths: Widths, names: Iterable[str] = ()) -> Family | None:
    """The family of a LoRA, None if nothing tells.

    widths
        Input width of each layer, by canonical name.
    names
        Those of the modules, as the file has them.
    """
    text = "\n".join(names)
    claims = [(family.claims(widths, text), family) for family in _FAMILIES]
    claim, surest = max(claims, key=lambda pair: pair[0])
    return surest if claim else None


def to_write(layers: Collection[str], family: Family | None) -> Family:
    """The family as which these layers are written: the one that is known, or the one that has most of them."""
    most = family or max(_FAMILIES, key=lambda one: sum(map(one.has, layers)))
    return most if family or any(map(most.has, layers)) else _USUAL


for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    if _found := getattr(importlib.import_module(_module.name), "FAMILY", None):
        register(_found)
