"""The weights of a model, by the names that LoRAs are read under."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..errors import FileError, Remedy
from . import models, names
from .hashing import sha256
from .models import Family
from .slot import MLP, Slot
from .tensor_file import TensorFile

_PREFIXES = (
    (r"(?:cond_stage_model|conditioner\.embedders\.0)\.(?:transformer|model)\.", "text_encoder."),
    (r"conditioner\.embedders\.1\.model\.", "text_encoder_2."),
)
"""How single files call text encoders -> how LoRAs of diffusers do."""

_OPEN_CLIP = (
    (r"transformer\.resblocks\.(\d+)\.", r"text_model.encoder.layers.\1."),
    (r"\.attn\.", ".self_attn."),
    (r"\.mlp\.c_fc$", ".mlp.fc1"),
    (r"\.mlp\.c_proj$", ".mlp.fc2"),
    (r"\.ln_([12])$", r".layer_norm\1"),
    (r"\.ln_final$", ".text_model.final_layer_norm"),
)
"""OpenCLIP's names of the text encoders of SD 2 and SDXL -> transformers'."""

_IN_PROJ = "in_proj_weight"
_THIRDS = ("q_proj", "k_proj", "v_proj")
"""What OpenCLIP has in one, and transformers one by one."""

_TRANSPOSED = ".text_projection"
"""OpenCLIP keeps it as (in, out), which is not a layer's weight."""


@dataclass(frozen=True)
class _Piece:
    """A tensor of the checkpoint that holds a layer or a slice of it, or a third of whose rows is the layer."""

    tensor: str
    slot: Slot
    third: int | None = None


class Weights(Protocol):
    """A model's weights, as kinds of module that depend on them ask for them."""

    @property
    def name(self) -> str:
        """What the user knows the model by."""

    @property
    def digest(self) -> str:
        """Equal for equal weights."""

    def shape(self, slot: Slot) -> tuple[int, ...]:
        """The shape of the weight at `slot`. Raises FileError if there is none."""

    def weight(self, slot: Slot) -> Tensor:
        """The weight at `slot`, float32, with its rows in the order of `slot`. Raises FileError."""


class Base:
    """See Weights: those of a .safetensors file, whose layers are read when asked for."""

    def __init__(self, path: Path, family: Family | None = None) -> None:
        """Raises FileError if it cannot be opened, or is no model that LoRAs are known for.

        family
            The model's, if it is known.
        """
        self.path = path
        self._family = family
        self._file = TensorFile(path)
        self._pieces: dict[str, list[_Piece]] = {}
        for tensor in self._file.names:
            for piece in _pieces(tensor, family):
                self._pieces.setdefault(piece.slot.layer, []).append(piece)
        if not self._pieces:
            raise FileError(
                f"'{path.name}' is no checkpoint of {family.label if family else models.labels('or')}",
                Remedy("name another as --base", "load another into the WebUI"),
            )

    @property
    def name(self) -> str:
        """See Weights."""
        return self.path.name

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return sha256(self.path)

    def shape(self, slot: Slot) -> tuple[int, ...]:
        """See Weights."""
        pieces = self._found(slot)
        shapes = [self._shape(piece) for piece in pieces]
        if len({shape[1:] for shape in shapes}) > 1:
            raise FileError(f"'{self.path.name}' holds layer {slot.layer} in slices that do not fit: use another copy")
        start, stop = _cut(slot, pieces, sum(shape[0] for shape in shapes), shapes[0])
        return (stop - start, *shapes[0][1:])

    def weight(self, slot: Slot) -> Tensor:
        """See Weights."""
        pieces = self._found(slot)
        whole = torch.cat([self._read(piece) for piece in pieces])
        start, stop = _cut(slot, pieces, whole.shape[0], tuple(whole.shape))
        part, shape = whole[start:stop], tuple(whole.shape)
        if slot.is_swapped(shape) != pieces[0].slot.is_swapped(shape):
            return part.roll(part.shape[0] // 2, 0)
        return part

    def _found(self, slot: Slot) -> list[_Piece]:
        pieces = sorted(self._pieces.get(slot.layer, []), key=lambda piece: piece.slot.slices or (0, 0))
        wholes = [piece for piece in pieces if piece.slot.slices is None]
        if wholes:
            return wholes[:1]
        first, last = slot.slices or self._ends(slot.layer)
        inside = [p for p in pieces if p.slot.slices and first <= p.slot.slices[0] and p.slot.slices[1] <= last]
        ends = [end for p in inside for end in p.slot.slices or ()]
        if [first, *ends[1::2]] != [*ends[::2], last]:
            raise FileError(
                f"'{self.path.name}' has no layer {slot.layer}, which a LoRA changes",
                Remedy(
                    "name as --base the checkpoint that the LoRA was made for",
                    "load into the WebUI the checkpoint that the LoRA was made for",
                ),
            )
        return inside

    def _ends(self, layer: str) -> tuple[int | Fraction, int | Fraction]:
        """Where a layer that is held in slices begins and ends."""
        if self._family and self._family.is_apart:
            return 0, max((p.slot.slices[1] for p in self._pieces.get(layer, []) if p.slot.slices), default=1)
        return 0, models.slice_count(layer) or MLP

    def _shape(self, piece: _Piece) -> tuple[int, ...]:
        shape = self._file.shapes[piece.tensor]
        whole = shape[:1] and not (piece.third is not None and shape[0] % 3) and 0 not in shape
        if not self._file.dtypes[piece.tensor].startswith(("F", "BF")) or not whole:
            raise FileError(
                f"'{self.path.name}' holds {piece.tensor} in the form {self._file.dtypes[piece.tensor]} {shape}, which "
                "cannot be read: name a checkpoint that is not quantised"
            )
        if piece.tensor.endswith(_TRANSPOSED):
            shape = shape[::-1]
        return shape if piece.third is None else (shape[0] // 3, *shape[1:])

    def _read(self, piece: _Piece) -> Tensor:
        self._shape(piece)
        weight = self._file.read(piece.tensor).float()
        scale = piece.tensor.removesuffix("weight") + "scale_weight"
        if math.prod(self._file.shapes.get(scale, (0,))) == 1:
            weight = weight * self._file.read(scale).float()
        if not weight.isfinite().all():
            raise FileError(f"'{self.path.name}' holds values that are not finite in {piece.tensor}: use another copy")
        if piece.tensor.endswith(_TRANSPOSED):
            weight = weight.T
        return weight if piece.third is None else weight.chunk(3)[piece.third]


def _cut(slot: Slot, pieces: list[_Piece], rows: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """(start, stop) of the rows at `slot` in the rows of `pieces`."""
    if slot.slices is None or pieces[0].slot.slices is not None:
        return 0, rows
    first, last = slot.slices
    width = shape[1] if len(shape) > 1 else rows // MLP
    return int(first * width), rows if last > MLP else int(last * width)


def _pieces(tensor: str, family: Family | None) -> list[_Piece]:
    """What a tensor of a checkpoint is, by its name: nothing, a layer or a slice, or q, k and v in one."""
    if not re.search(rf"\.weight$|_norm\.scale$|{_IN_PROJ}$|{_TRANSPOSED}$", tensor):
        return []
    module = re.sub(r"\.weight$|(?<=_norm)\.scale$", "", tensor)
    for pattern, ours in _PREFIXES:
        module = re.sub(f"^{pattern}", ours, module)
    if ".resblocks." in module or ".ln_final" in module:
        for theirs, ours in _OPEN_CLIP:
            module = re.sub(theirs, ours, module)
    if module.endswith(_IN_PROJ):
        parent = module.removesuffix(_IN_PROJ)
        slots = [names.slot_of(parent + third) for third in _THIRDS]
        return [_Piece(tensor, slot, i) for i, slot in enumerate(slots) if slot]
    slot = names.slot_of(module, family)
    return [_Piece(tensor, slot)] if slot else []
