"""What a model family is: a value that knows the names of its model's layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ...layers.block import Block
from ...layers.key import ModuleKey
from ...maths.delta import Delta
from ..slot import Slot

PREFIX = "lora_unet_"
"""Canonical names of the layers of a diffusion model start so."""

Spelling = Literal["kohya", "diffusers"]
SPELLINGS: tuple[Spelling, ...] = get_args(Spelling)
"""How layers may be named in a file that is written."""

Widths = Mapping[str, int]
"""Input width of each layer of a file, by canonical name."""

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
        (widths of a file, all its modules' names) -> how surely the file is for this family: 0 for not at all.
    has
        Whether a layer of this canonical name tells a file of this family, or of one like it, from all others.
    entries
        What is written under which names, by spelling; the first is the usual one.
    kernel
        Canonical name -> the kernel of a layer that is a convolution, () for others.
    slice_count
        Canonical name -> how many slices files may hold the layer in, 0 for none.
    """

    label: str
    metadata: Mapping[str, str]
    blocks: tuple[Block, ...]
    bare: tuple[str, ...]
    slot_of: Callable[[str], Slot | None]
    claims: Callable[[Widths, str], float]
    entries: Mapping[Spelling, Entries]
    has: Callable[[str], bool] = lambda layer: False
    kernel: Callable[[str], tuple[int, ...]] = lambda layer: ()
    slice_count: Callable[[str], int] = lambda layer: 0

    @property
    def usual_spelling(self) -> Spelling:
        return next(iter(self.entries))
