"""What a model family is: a value that knows the names of its model's layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from ...layers.block import Block
from ...layers.key import ModuleKey
from ...maths.delta import Delta
from ..slot import Slot
from .evidence import Evidence, Widths

__all__ = ["PREFIX", "SPELLINGS", "Entries", "Evidence", "Family", "Spelling", "Widths"]

PREFIX = "lora_unet_"
"""Canonical names of the layers of a diffusion model start so."""

Spelling = Literal["kohya", "diffusers", "comfyui"]
SPELLINGS: tuple[Spelling, ...] = get_args(Spelling)
"""How layers may be named in a file that is written: `lora_unet_...` with underscores and `diffusion_model....` with
dots by the names of the model's first authors, or by those of diffusers."""

Entries = Callable[[Mapping[ModuleKey, Delta]], "dict[str, Delta]"]
"""Layers by canonical names -> by the names under which a file holds them. Raises FileError."""


@dataclass(frozen=True)
class Family:
    """A model family.

    label
        Its name, for the user.
    metadata
        How kohya's files, and the WebUI's filter by model, name it.
    blocks
        What its model consists of, for strengths by block.
    bare
        Patterns of how the names of its diffusion model's layers start where a file gives them no prefix.
    slot_of
        Name of a layer of the diffusion model without prefix, dots already underscores -> its slot; None if the model
        has no such layer.
    claims
        What a file shows -> how surely it is for this family: 0 for not at all.
    has
        Whether a layer of this canonical name tells a file of this family, or of one like it, from all others.
    entries
        What is written under which names, by spelling; the first is the usual one.
    kernel
        Canonical name -> the kernel of a layer that is a convolution, () for others.
    slice_count
        Canonical name -> how many slices files may hold the layer in, 0 for none.
    readers
        Spelling -> who reads it, where not all hosts do that have the model.
    is_apart
        Whether its canonical names mean something else in other families, so that they count only in files that are
        known to be for it.
    keeps_words
        Whether the fusion of two files that spell alike is spelled so, too. Not where only some hosts read that.
    """

    label: str
    metadata: Mapping[str, str]
    blocks: tuple[Block, ...]
    bare: tuple[str, ...]
    slot_of: Callable[[str], Slot | None]
    claims: Callable[[Evidence], float]
    entries: Mapping[Spelling, Entries]
    has: Callable[[str], bool] = lambda layer: False
    kernel: Callable[[str], tuple[int, ...]] = lambda layer: ()
    slice_count: Callable[[str], int] = lambda layer: 0
    readers: Mapping[Spelling, str] = field(default_factory=dict)
    is_apart: bool = False
    keeps_words: bool = True

    @property
    def usual_spelling(self) -> Spelling:
        return next(iter(self.entries))
