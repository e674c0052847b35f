"""One module of a file, read as delta weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import FileError
from ..layers.key import ModuleKey
from ..maths.delta import Delta
from ..maths.dense import DenseDelta
from ..maths.lowrank import LowRankDelta, pays
from ..maths.products import Factors
from .base import Weights
from .formulas import MAGNITUDES, decomposed
from .kinds import LORA, SCALARS, Kind, Shapes, is_decomposed
from .peft_scale import PeftScales
from .slot import BIAS, Slot, swapped
from .tensor_file import TensorFile

DAMAGED = "the file is damaged, or of a kind that is not known here: download or save it again"
BIASES = ("bias", "lora_bias")
"""Roles of a bias; the second is scaled as its LoRA is."""
_HUGE = 1e18
"""Squares of it still fit into float32."""


@dataclass(frozen=True, eq=False)
class Module:
    """A module whose names and shapes are checked: see checks.py.

    name
        What the file calls it.
    tensors
        Role -> name of the tensor in the file.
    shapes
        Role -> shape of the tensor.
    layer_shape
        Shape of its weight's delta, None if it is a bias alone.
    """

    file: TensorFile
    base: Weights | None
    scales: PeftScales
    name: str
    slot: Slot
    kind: Kind
    tensors: Mapping[str, str]
    shapes: Shapes
    layer_shape: tuple[int, ...] | None

    @property
    def needs_base(self) -> bool:
        return self.kind.needs_base or is_decomposed(self.shapes)

    @property
    def scale_beside(self) -> float | None:
        """Its scale, if that stands beside the tensors alone: in the header, or in a file of settings."""
        if not self.kind.peft or "alpha" in self.tensors or "scale" in self.tensors:
            return None
        return self.scales.of(self.name, self.kind.rank(self.shapes))

    @property
    def key(self) -> ModuleKey:
        """The key of the weight's delta."""
        assert self.layer_shape is not None
        return ModuleKey(self.slot.layer, self.slot.part, self.slot.rows(self.layer_shape))

    @property
    def bias_shape(self) -> tuple[int, ...] | None:
        """The shape of the bias's delta, None if the module has none."""
        return next((self.shapes[role] for role in BIASES if role in self.shapes), None)

    @property
    def bias_key(self) -> ModuleKey | None:
        """The key of the bias's delta, None if the module has none."""
        shape = self.bias_shape
        if shape is None:
            return None
        return ModuleKey(self.slot.layer + BIAS, self.slot.part, self.slot.rows(shape))

    def delta(self) -> Delta:
        """Read the weight's delta. Raises FileError."""
        assert self.layer_shape is not None
        delta = self._delta({role: self._read(role) for role in self.tensors if role not in BIASES})
        factors = (delta.up, delta.down) if isinstance(delta, LowRankDelta) else (delta.matrix,)
        if not all(factor.abs().max() < _HUGE for factor in factors):
            raise refusal(self.file, self.slot, "values too large to be weights")
        return swapped(delta) if self.slot.is_swapped(self.layer_shape) else delta

    def bias(self) -> Delta:
        """Read the bias's delta. Raises FileError."""
        (role,) = (role for role in BIASES if role in self.tensors)
        values = self._read(role).float()
        if role == "lora_bias":
            values = values * self._scale({name: self._read(name) for name in SCALARS if name in self.tensors})
        delta = DenseDelta.of(values)
        return swapped(delta) if self.slot.is_swapped(delta.layer_shape) else delta

    def _read(self, role: str) -> Tensor:
        return read_finite(self.file, self.slot, self.tensors[role])

    def _delta(self, tensors: dict[str, Tensor]) -> Delta:
        scale = self._scale(tensors)
        plain = "sparse_values" not in tensors and not is_decomposed(self.shapes)
        if self.kind is LORA and plain:
            return LowRankDelta.from_factors(tensors["up"], tensors["down"], tensors.get("mid"), scale)
        if plain and (factors := self._factors(tensors)):
            return LowRankDelta.from_factors(*factors, scale=scale)
        weight = self._weight(tensors)
        if "sparse_values" in tensors:
            weight = weight + self._sparse(tensors, weight)
        weight = weight * scale
        base = self._base_weight()
        if is_decomposed(self.shapes) and base is not None:
            weight = decomposed(weight, {role: tensors[role].double() for role in MAGNITUDES if role in tensors}, base)
        return DenseDelta.of(weight.reshape(self.layer_shape or ()))

    def _factors(self, tensors: Mapping[str, Tensor]) -> Factors | None:
        """The delta without scale as factors, in float64, if its kind has some that are small enough."""
        if self.kind.factors is None or self.layer_shape is None:
            return None
        made = self.kind.factors(
            {role: torch.empty(shape, device="meta") for role, shape in self.shapes.items()},
            torch.empty(self.layer_shape, device="meta"),
        )
        if made is None or not pays(made[1].shape[0], self.layer_shape):
            return None
        made = self.kind.factors({role: tensor.double() for role, tensor in tensors.items()}, self._base_weight())
        assert made is not None
        up, down = made
        return up, down.reshape(len(down), *self.layer_shape[1:])

    def _weight(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The delta without scale, in float64."""
        if self.kind.formula is None:
            factors = LowRankDelta.from_factors(tensors["up"], tensors["down"], tensors.get("mid"))
            return factors.up.double() @ factors.down.double()
        wide = {role: tensor.double() for role, tensor in tensors.items()}
        return self.kind.formula(wide, self._base_weight() if self.kind.needs_base else None)

    def _base_weight(self) -> Tensor | None:
        return self.base.weight(self.slot).double() if self.base and self.needs_base else None

    def _sparse(self, tensors: Mapping[str, Tensor], weight: Tensor) -> Tensor:
        """What LyCORIS' extraction keeps beside the factors: single entries of the weight."""
        size = [int(length) for length in tensors["sparse_size"].flatten().tolist()]
        if min(size, default=0) < 1 or math.prod(size) != weight.numel():
            raise refusal(self.file, self.slot, f"bias_size {size}")
        indices, values = tensors["sparse_indices"].long(), tensors["sparse_values"].double().flatten()
        limits = torch.tensor(size)[:, None]
        if indices.shape != (len(size), len(values)) or ((indices < 0) | (indices >= limits)).any():
            raise refusal(self.file, self.slot, "bias_indices that do not fit")
        entries = torch.sparse_coo_tensor(indices, values, size, check_invariants=True)
        return entries.to_dense().reshape(weight.shape)

    def _scale(self, tensors: Mapping[str, Tensor]) -> float:
        rank = self.kind.rank(self.shapes)
        if "scale" in tensors:
            return float(tensors["scale"])
        if "alpha" in tensors and rank:
            return float(tensors["alpha"]) / rank
        beside = self.scale_beside
        return 1.0 if beside is None else beside


def refusal(file: TensorFile, slot: Slot, problem: str) -> FileError:
    return FileError(f"'{file.path.name}': layer {slot.layer} has {problem}, so {DAMAGED}")


def read_finite(file: TensorFile, slot: Slot, name: str) -> Tensor:
    """Read a tensor of the module at `slot`. Raises FileError."""
    tensor = file.read(name)
    if not tensor.float().isfinite().all():
        raise FileError(
            f"'{file.path.name}' holds values that are not finite in layer {slot.layer}: "
            "its training failed, use another version of it"
        )
    return tensor
