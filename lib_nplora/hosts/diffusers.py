"""A diffusers pipeline: a model without a shelf, which is handed over, so that nothing of diffusers is imported here.

LoRA files are read by our own reader, which names the pipeline's layers, too. Fusions are written into the parameters
of the layers; what stood there is kept on the CPU.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FileError, HostError, MismatchError
from ..files import Family, LoraFile, models, read_lora
from ..files.names import slot_of
from ..files.peft_scale import COMPONENTS
from ..files.slot import BIAS, Slot
from ..fusion.fused import FusedLora, Winners
from ..layers.block import Block
from ..layers.key import ModuleKey
from ..layers.weights import DeltaMap, LoraWeights
from ..maths.delta import Delta
from ..maths.lowrank import LowRankDelta, exact_math
from .protocol import ShelfFile

STATE = "_nplora"
"""Attribute of a component that holds the PipelineModel whose fusions stand in it: pipelines share components."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A parameter of a pipeline that is a layer, or some of its rows.

    name
        What its module is called in the pipeline.
    leaf
        Its own name in the module.
    start
        Its first row in the layer.
    """

    name: str
    module: nn.Module
    leaf: str
    start: int = 0

    @property
    def parameter(self) -> nn.Parameter:
        """What the module has by now."""
        found: nn.Parameter = getattr(self.module, self.leaf)
        return found

    @property
    def stop(self) -> int:
        """Behind its last row in the layer."""
        return self.start + self.parameter.shape[0]

    def check(self) -> None:
        """Raises HostError if its values cannot be changed."""
        parameter = self.parameter
        if parameter.is_meta:
            raise HostError(f"layer {self.name} is offloaded by itself: use enable_model_cpu_offload() instead")
        if parameter.is_inference():
            raise HostError(f"layer {self.name} was made under torch.inference_mode(): load the pipeline outside of it")
        if type(parameter.data) is not Tensor or not parameter.is_floating_point() or parameter.element_size() < 2:
            raise HostError(
                f"layer {self.name} is quantised ({type(self.module).__name__}, {parameter.dtype}), so nothing can be "
                "fused into it: load the pipeline in float16, bfloat16 or float32"
            )

    def add(self, values: Tensor, update: Delta, first: int) -> None:
        """Add to `values`, which are to be its own, what an update holds of its rows; the update's begin at `first`."""
        start, stop = max(first, self.start), min(first + update.shape[0], self.stop)
        if start < stop:
            rows = _dense(update.rows(start - first, stop - first), values.device)
            values[start - self.start : stop - self.start] += rows.reshape(-1, *values.shape[1:])


class PipelineModel:
    """See Model. What it applies takes the place of what any PipelineModel has applied to the same components."""

    checkpoint = None

    def __init__(self, pipe: Any) -> None:
        """Raises HostError for what is no pipeline."""
        self.name = type(pipe).__name__
        self._components = {name: part for name in COMPONENTS if (part := getattr(pipe, name, None)) is not None}
        if not self._components:
            raise HostError(f"{self.name} has neither a UNet nor a transformer nor a text encoder, so it takes no LoRA")
        self._layers = _layers(self._components)
        self._applied: dict[FusedLora, Winners] = {}
        self._kept: dict[tuple[nn.Module, str], Tensor] = {}
        self._merged: Hashable = None

    @cached_property
    def family(self) -> Family | None:
        """The model family that its layers tell of, as those of a LoRA do."""
        shapes = {name: pieces[0].parameter.shape for name, pieces in self._layers.items()}
        widths = {name: shape[1] for name, shape in shapes.items() if len(shape) > 1}
        return models.detect(widths, [piece.name for pieces in self._layers.values() for piece in pieces])

    def token(self) -> Hashable:
        """See Model."""
        return tuple(map(id, self._components.values()))

    def blocks(self) -> Collection[Block]:
        """See Model."""
        return {ModuleKey(name, Slot(name).part).place.block for name in self._layers}

    def dtype(self, key: ModuleKey) -> torch.dtype:
        """See Model."""
        return self._layers[str(key.name)][0].parameter.dtype

    def load(self, file: ShelfFile) -> LoraWeights:
        """See Model. Raises HostError for layers whose values cannot be changed."""
        lora = read_lora(Path(file.path), Originals(self, self.name, str(self.token())), names_apart=False)
        there = [key for key in lora.weights.deltas if key.name in self._layers]
        if not there:
            raise self._mismatch(lora, f"none of its {len(lora.weights.deltas)} layers is there")
        for key in there:
            self._check_shape(lora, key)
        others = [str(key) for key in lora.weights.deltas if key.name not in self._layers]
        made = {key: partial(lora.weights.deltas.__getitem__, key) for key in there}
        return LoraWeights(file.name, lora.weights.digest, DeltaMap({}, made), (*lora.weights.unmatched, *others))

    def apply(self, fused: Sequence[FusedLora]) -> None:
        """See Model."""
        for name, component in self._components.items():
            if any(getattr(module, "fused_projections", False) for module in component.modules()):
                raise HostError(f"q, k and v of {self.name} are fused: call {name}.unfuse_qkv_projections() first")
        for component in self._components.values():
            if (standing := getattr(component, STATE, None)) is not None:
                standing.clear()
        self._merged = self._merges()
        for component in self._components.values():
            setattr(component, STATE, self)
        self._applied = {lora: lora.first_winners() for lora in fused}
        try:
            self._write({str(key.name) for lora in fused for key in lora.deltas})
        except BaseException:
            self.clear()
            raise

    def swap(self, fused: FusedLora, winners: Winners) -> None:
        """See Model. A fusion that does not stand any more is left alone."""
        standing = self._applied.get(fused)
        if standing is not None:
            changed = {str(key.name) for key, winner in winners.items() if standing[key] != winner}
            self._applied[fused] = {**standing, **winners}
            self._write(changed)

    def clear(self) -> None:
        """See Model. Raises HostError if the weights are out of reach, or are not those that were kept."""
        if self._kept and self._merges() != self._merged:
            raise HostError(
                f"since the fusion, LoRAs were merged into {self.name} or taken out of it (fuse_lora, unfuse_lora): "
                "bring back what was there, then undo the fusion"
            )
        if any(getattr(module, leaf).is_meta for module, leaf in self._kept):
            raise HostError(
                f"since the fusion, layers of {self.name} were offloaded: call its remove_all_hooks() first"
            )
        for (module, leaf), values in reversed(self._kept.items()):
            getattr(module, leaf).data.copy_(values)
        self._kept, self._applied = {}, {}
        for component in self._components.values():
            if getattr(component, STATE, None) is self:
                delattr(component, STATE)

    def holds(self, fused: FusedLora) -> bool:
        """Whether a fusion is applied."""
        return fused in self._applied

    def adapters(self) -> Hashable:
        """What PEFT does to the layers: the LoRAs that it has merged into them or runs beside them, how strongly."""
        modules = (module for component in self._components.values() for module in component.modules())
        return tuple(
            (
                tuple(module.merged_adapters),
                tuple(module.active_adapters),
                tuple(getattr(module, "scaling", {}).items()),
                module.disable_adapters,
            )
            for module in modules
            if hasattr(module, "merged_adapters")
        )

    def pieces(self, layer: str) -> Sequence[Piece]:
        """The parameters that a layer is made of, in the order of their rows; none if it is not there."""
        return self._layers.get(layer, ())

    def original(self, piece: Piece) -> Tensor:
        """Its values without any fusion of ours. Raises HostError."""
        piece.check()
        where = piece.module, piece.leaf
        standing = [getattr(component, STATE, None) for component in self._components.values()]
        return next((model._kept[where] for model in standing if model and where in model._kept), piece.parameter.data)

    def _check_shape(self, lora: LoraFile, key: ModuleKey) -> None:
        """Raises MismatchError unless a layer of the LoRA is of the shape that it has here."""
        pieces = self._layers[str(key.name)]
        for piece in pieces:
            piece.check()
        height, width = pieces[-1].stop, prod(pieces[0].parameter.shape[1:])
        out, *in_ = lora.shapes[key]
        fits = key.rows[1] <= height if key.rows else out == height
        if not fits or prod(in_) != width:
            theirs = f"{key.rows[1] if key.rows else out} x {prod(in_)}"
            reason = f"layer {pieces[0].name} is {theirs} in the LoRA and {height} x {width} in the pipeline"
            raise self._mismatch(lora, reason)

    def _mismatch(self, lora: LoraFile, reason: str) -> MismatchError:
        theirs, ours = (family.label if family else "" for family in (lora.family, self.family))
        made_for = theirs if theirs and theirs != ours else f"another {theirs or 'model'}"
        here = f"{self.name} ({ours})" if ours else self.name
        return MismatchError(f"'{lora.path.name}' is made for {made_for}, not for this {here}: {reason}")

    def _write(self, layers: Collection[str]) -> None:
        """Give these layers the values that they are to have by now. Raises HostError."""
        updates: dict[str, list[tuple[Delta, int]]] = {name: [] for name in layers}
        for lora, winners in self._applied.items():
            for key in lora.deltas:
                if key.name in layers:
                    updates[str(key.name)].append((lora.update(key, winners), key.rows[0] if key.rows else 0))
        with exact_math():
            for name, held in updates.items():
                for piece in self._layers[name]:
                    self._write_piece(piece, held)

    def _write_piece(self, piece: Piece, updates: Iterable[tuple[Delta, int]]) -> None:
        piece.check()
        parameter, where = piece.parameter, (piece.module, piece.leaf)
        if where not in self._kept:
            self._kept[where] = parameter.data.to("cpu", copy=True)
        exact = torch.promote_types(parameter.dtype, torch.float32)
        values = self._kept[where].to(parameter.device, exact, copy=True)
        for update, first in updates:
            piece.add(values, update, first)
        rounded = values.to(parameter.dtype)
        if not rounded.isfinite().all():
            raise HostError(f"the update of layer {piece.name} is too large for {parameter.dtype}: lower the weights")
        parameter.data.copy_(rounded)

    def _merges(self) -> Hashable:
        """The LoRAs that PEFT has merged into the layers."""
        modules = (module for component in self._components.values() for module in component.modules())
        return tuple(tuple(merged) for module in modules if (merged := getattr(module, "merged_adapters", ())))


@dataclass(frozen=True, eq=False)
class Originals:
    """See Weights: those of a pipeline without any fusion of ours."""

    model: PipelineModel
    name: str
    digest: str

    def shape(self, slot: Slot) -> tuple[int, ...]:
        """See Weights."""
        pieces = self._found(slot)
        return (pieces[-1].stop - pieces[0].start, *pieces[0].parameter.shape[1:])

    def weight(self, slot: Slot) -> Tensor:
        """See Weights. Raises HostError, too."""
        whole = torch.cat([self.model.original(piece).to("cpu", torch.float32) for piece in self._found(slot)])
        return whole.roll(len(whole) // 2, 0) if slot.is_swapped(tuple(whole.shape)) else whole

    def _found(self, slot: Slot) -> Sequence[Piece]:
        pieces = self.model.pieces(slot.layer)
        first, last = map(int, slot.slices or (0, len(pieces) or 1))
        if len(pieces) < last:
            raise FileError(f"{self.name} has no layer {slot.layer}, which a LoRA changes: use another LoRA")
        return pieces[first:last]


def _layers(components: Mapping[str, nn.Module]) -> dict[str, list[Piece]]:
    """The layers that files have a name for, by that name. A bias is a layer, as in files."""
    found: dict[str, dict[int, Piece]] = {}
    for component, part in components.items():
        for name, module, leaf in _parameters(part, component):
            if leaf in ("weight", "bias") and (slot := slot_of(name)):
                slices = found.setdefault(slot.layer + BIAS * (leaf == "bias"), {})
                slices.setdefault(int(slot.slices[0]) if slot.slices else 0, Piece(name, module, leaf))
    return {layer: _in_order(slices) for layer, slices in found.items() if _is_whole(layer, slices)}


def _parameters(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module, str]]:
    """(name of its module, module, its own name) of each parameter, as if nothing were compiled or wrapped by PEFT."""
    while isinstance(inner := getattr(module, "_orig_mod", getattr(module, "base_layer", None)), nn.Module):
        module = inner
    for leaf, _ in module.named_parameters(recurse=False):
        yield name, module, leaf
    for child, part in module.named_children():
        yield from _parameters(part, f"{name}.{child}")


def _is_whole(layer: str, slices: Mapping[int, Piece]) -> bool:
    """Whether all slices of a layer are there that files may hold one by one."""
    return len(slices) == (models.slice_count(layer.removesuffix(BIAS)) or 1)


def _in_order(slices: Mapping[int, Piece]) -> list[Piece]:
    """The slices of a layer, each with its place in it."""
    pieces: list[Piece] = []
    for _, piece in sorted(slices.items()):
        pieces.append(Piece(piece.name, piece.module, piece.leaf, pieces[-1].stop if pieces else 0))
    return pieces


def _dense(update: Delta, device: torch.device) -> Tensor:
    """The update as a matrix, made where it is needed."""
    if isinstance(update, LowRankDelta):
        return update.up.to(device) @ update.down.to(device)
    return update.matrix.to(device)
