"""The model families that a LoRA can be made for. A new one is a new module here with a FAMILY."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from ..slot import Slot
from .evidence import Evidence, Size, Widths
from .family import PREFIX, SPELLINGS, Family, Spelling
from .header import FIELDS, carried, header_label, header_name
from .sdxl import FAMILY as _USUAL

__all__ = [
    "FIELDS",
    "PREFIX",
    "SPELLINGS",
    "Evidence",
    "Family",
    "Spelling",
    "agreed",
    "bare",
    "carried",
    "detect",
    "detected",
    "families",
    "header_label",
    "header_name",
    "in_words",
    "kernel",
    "labels",
    "possible",
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
    _shared_slot.cache_clear()

    def undo() -> None:
        _FAMILIES.remove(family)
        _shared_slot.cache_clear()

    return undo


def labels(joined_by: str, lacking: Spelling | None = None) -> str:
    """The families in words: `SD 1, SD 2 or Flux`. Those that are usually written in kohya's spelling come first.

    joined_by
        The word before the last of them.
    lacking
        A spelling in which they cannot be written; None for all families.
    """
    known = sorted(_FAMILIES, key=lambda family: (family.usual_spelling != "kohya", family.is_apart))
    return in_words([one.label for one in known if lacking is None or lacking not in one.entries], joined_by)


def in_words(names: Sequence[str], joined_by: str = "or") -> str:
    """`SD 1, SD 2 or Flux`, of one name or more."""
    *words, last = names
    return f"{', '.join(words)} {joined_by} {last}" if words else last


def bare() -> list[str]:
    """Patterns of how the names of a diffusion model's layers may start without a prefix."""
    return list(dict.fromkeys(pattern for family in _FAMILIES for pattern in family.bare))


def slot_of(rest: str, family: Family | None = None) -> Slot | None:
    """The slot of a layer of a diffusion model, its name without prefix, dots already underscores; None if unknown.

    family
        The model's, if it is known.
    """
    return family.slot_of(rest) if family and family.is_apart else _shared_slot(rest)


@lru_cache(maxsize=1 << 14)
def _shared_slot(rest: str) -> Slot | None:
    return next((found for one in _FAMILIES if not one.is_apart and (found := one.slot_of(rest))), None)


def kernel(layer: str) -> tuple[int, ...]:
    """The kernel of a layer by its canonical name, () if it is no convolution, or not in every model."""
    return next((found for family in _FAMILIES if (found := family.kernel(layer))), ())


def slice_count(layer: str, family: Family | None = None) -> int:
    """In how many slices files may hold the layer of this canonical name; 0 for none."""
    if family and family.is_apart:
        return family.slice_count(layer)
    return max((one.slice_count(layer) for one in _FAMILIES if not one.is_apart), default=0)


def detect(
    widths: Widths, names: Iterable[str] = (), sizes: Mapping[str, Size] | None = None, header: str | None = None
) -> Family | None:
    """The family of a LoRA or a model, None if nothing tells. For its arguments see Evidence."""
    return detected(Evidence(widths, "\n".join(names), sizes or {}, header))


def detected(evidence: Evidence) -> Family | None:
    """The family that the evidence tells of, None if nothing tells, or if it is one of which no more is known."""
    claims = [(family.claims(evidence), family) for family in _FAMILIES]
    named = [(claim, family) for claim, family in claims if family.label == evidence.header]
    for claim, family in named:
        if claim:
            return family
    if evidence.header and not named:
        return None
    claim, surest = max(claims, key=lambda pair: pair[0])
    return surest if claim >= 1 else None


def agreed(one: Evidence, other: Evidence) -> tuple[Family | None, Family | None]:
    """The families of two files. Where nothing but names tells that of one of them, it is the other's, if that fits."""
    first, second = detected(one), detected(other)
    if first is second:
        return first, second
    if first and first.claims(other) and other.header in (None, first.label):
        return first, first
    if second and second.claims(one) and one.header in (None, second.label):
        return second, second
    return first, second


def possible(*files: Evidence) -> list[str]:
    """The labels of the families that all of these files might be for."""
    return [family.label for family in _FAMILIES if all(map(family.claims, files))]


def to_write(layers: Collection[str], family: Family | None) -> Family:
    """The family as which these layers are written: the one that is known, or the one that has most of them."""
    shared = [one for one in _FAMILIES if not one.is_apart]
    most = family or max(shared, key=lambda one: sum(map(one.has, layers)))
    return most if family or any(map(most.has, layers)) else _USUAL


for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    if _found := getattr(importlib.import_module(_module.name), "FAMILY", None):
        register(_found)
