"""Whether the tensors of a module make a delta weight, by their names and shapes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ..errors import FileError, Remedy
from . import models
from .base import Weights
from .formulas import decomposed
from .kinds import FREE, LORA, SCALARS, Kind, Shapes, is_decomposed, kind_of
from .module import BIASES, DAMAGED, Module, read_finite, refusal
from .peft_scale import PeftScales
from .refusals import described, short, strange
from .slot import Slot
from .tensor_file import TensorFile

_LARGEST = 2**29
"""Entries of a delta weight; no layer of a model is larger."""
_NAME_THE_MODEL = Remedy(
    "name its .safetensors file with --base", "load it into the WebUI first, as a .safetensors file"
)
_TOGETHER = (("sparse_values", "sparse_indices", "sparse_size"),)
"""Roles of which a module holds all or none."""


_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
"""Number formats that torch makes float32 of."""

_PRODUCTS = (("up", "down"), ("hada_w1_a", "hada_w1_b"), ("hada_w2_a", "hada_w2_b"), ("lokr_w1_a", "lokr_w1_b"),
             ("lokr_w2_a", "lokr_w2_b"))  # fmt: skip
"""Factors of a delta, or of a factor of it."""


def effective(file: TensorFile, tensors: dict[str, str]) -> dict[str, str]:
    """The tensors by role that can change a model: at most the bias where the weight's delta is a product of rank 0.

    Trainers that choose ranks layer by layer (AdaLoRA, resizing by energy) leave such layers.
    """
    shapes = {role: file.shapes[name] for role, name in tensors.items()}
    if is_decomposed(shapes) or not any(_is_of_rank_0(shapes.get(a, ()), shapes.get(b, ())) for a, b in _PRODUCTS):
        return tensors
    return {role: name for role, name in tensors.items() if role == "bias"}


def _is_of_rank_0(up: tuple[int, ...], down: tuple[int, ...]) -> bool:
    return bool(up and down) and up[0] > 0 == math.prod(up[1:]) and down[0] == 0 < math.prod(down[1:])


def checked(
    file: TensorFile, base: Weights | None, scales: PeftScales, module: str, slot: Slot, tensors: Mapping[str, str]
) -> Module:
    """The module at `slot`, which the file calls `module`, its tensors named by role. Raises FileError."""
    shapes = {role: file.shapes[name] for role, name in tensors.items()}
    kind = kind_of(shapes)
    if kind is None:
        if "factor" in tensors:
            raise strange(
                file, f"holds {described(file, [tensors['factor']])}, which is no part of a LoRA of a known kind"
            )
        raise refusal(file, slot, "neither down nor up")
    _check_roles(file, slot, kind, tensors)
    _check_tensors(file, slot, tensors)
    if (kind.needs_base or is_decomposed(shapes)) and base is None:
        label = "DoRA" if is_decomposed(shapes) else kind.label
        raise FileError(
            f"'{file.path.name}' holds {label} modules ({module}), which need the weights of the model that they were "
            "made for",
            _NAME_THE_MODEL,
        )
    shape = None
    if not kind.is_bias:
        shape = _layer_shape(file, base, slot, kind, tensors, shapes)
    _check_rows(file, module, slot, shape, next((shapes[role] for role in BIASES if role in shapes), None))
    return Module(file, base, scales, module, slot, kind, tensors, shapes, shape)


def _check_roles(file: TensorFile, slot: Slot, kind: Kind, tensors: Mapping[str, str]) -> None:
    roles = frozenset(tensors)
    need = next((need for need in kind.needs if need <= roles), None)
    if need is None:
        held = " and ".join(sorted(roles & frozenset().union(*kind.needs)))
        raise refusal(file, slot, f"{held} but no {' and '.join(sorted(kind.missing(roles)))}")
    for role, name in tensors.items():
        if role not in need | kind.may | {"bias"}:
            raise FileError(
                f"'{file.path.name}' holds {name} in a {kind.label} module, which has no such part: {DAMAGED}"
            )
    for together in _TOGETHER:
        if 0 < len(roles.intersection(together)) < len(together):
            raise refusal(file, slot, f"not all of {', '.join(together)}")
    for one, other in (BIASES, ("dora_scale", "magnitude")):
        if {one, other} <= roles:
            raise refusal(file, slot, f"{one} and {other}")


def _check_tensors(file: TensorFile, slot: Slot, tensors: Mapping[str, str]) -> None:
    for role, name in tensors.items():
        shape, dtype = file.shapes[name], file.dtypes[name]
        if dtype not in _FLOATS and not (role in FREE and dtype.startswith(("I", "U"))):
            quantised = ", as quantised files do," if dtype.startswith(("I", "U", "F")) else ""
            raise strange(
                file,
                f"holds {short(name)} in the number format {dtype}{quantised} and not in one of {', '.join(_FLOATS)}, "
                "which can be fused",
            )
        if role in SCALARS:
            if math.prod(shape) != 1:
                raise refusal(file, slot, f"{role} that is not one number")
        elif len(shape) == 5:
            raise strange(file, f"holds {described(file, [name])} of a convolution over time, which cannot be fused")
        elif not 0 < len(shape) <= 4:
            raise refusal(file, slot, f"{role} of {len(shape)} dimensions")
        elif 0 in shape and not role.startswith("sparse_"):
            raise refusal(file, slot, f"{role} of shape {shape}")
        elif role in (*BIASES, "norm") and len(shape) != 1:
            raise refusal(file, slot, f"a {role} of shape {shape}")


def _layer_shape(
    file: TensorFile, base: Weights | None, slot: Slot, kind: Kind, tensors: Mapping[str, str], shapes: Shapes
) -> tuple[int, ...]:
    """The shape of the weight's delta."""
    numbers = {role: read_finite(file, slot, tensors[role]) for role in SCALARS if role in tensors}
    found = ", ".join(f"{role} {shape}" for role, shape in shapes.items() if role not in SCALARS)
    if base is None or not (kind.needs_base or is_decomposed(shapes)):
        try:
            shape = _made_shape(kind, shapes, numbers, None)
        except _MISFITS as error:
            raise refusal(file, slot, str(error) if kind is LORA else f"{found}, which do not fit") from error
    else:
        layer = base.shape(slot)
        try:
            shape = _made_shape(kind, shapes, numbers, layer)
        except _MISFITS as error:
            raise _stranger(file.path.name, base.name, slot, f"has {found} in one", layer) from error
        shape = layer if math.prod(layer) == math.prod(shape) else shape
    kernel = models.kernel(slot.layer)
    if kind is not LORA and len(shape) == 2 and kernel and shape[1] % math.prod(kernel) == 0:
        shape = (shape[0], shape[1] // math.prod(kernel), *kernel)
    if len(shape) not in (1, 2, 4) or math.prod(shape) > _LARGEST:
        raise refusal(file, slot, f"a weight of shape {shape}")
    return shape


_MISFITS = (RuntimeError, ValueError, IndexError, OverflowError, TypeError)
"""What torch raises for shapes that do not fit."""


def _stranger(file: str, base: str, slot: Slot, problem: str, layer: tuple[int, ...]) -> FileError:
    return FileError(
        f"'{file}' does not fit '{base}': layer {slot.layer} {problem} and is of shape {layer} in the other"
    )


def _made_shape(
    kind: Kind, shapes: Shapes, numbers: Mapping[str, torch.Tensor], layer: tuple[int, ...] | None
) -> tuple[int, ...]:
    """The shape of what the formulas make of tensors without values, and of a base weight of shape `layer`.

    Raises _MISFITS.
    """
    tensors = {role: torch.empty(shape, dtype=torch.float64, device="meta") for role, shape in shapes.items()}
    tensors |= numbers
    base = None if layer is None else torch.empty(layer, dtype=torch.float64, device="meta")
    if kind.formula is None:
        made = torch.empty(_lora_shape(shapes), dtype=torch.float64, device="meta")
    else:
        made = kind.formula(tensors, base)
    if base is not None and is_decomposed(shapes):
        made = decomposed(made, tensors, base)
    return tuple(made.shape)


def _lora_shape(shapes: Shapes) -> tuple[int, ...]:
    """Raises ValueError that says what does not fit."""
    up, down, mid = shapes["up"], shapes["down"], shapes.get("mid")
    for factor, shape in (("up", up), ("down", down), ("mid", mid or up)):
        if len(shape) < 2:
            raise ValueError(f"{factor} of shape {shape}")
    rank = math.prod(up[1:])
    if (mid or (rank, rank))[:2] != (rank, down[0]) or (not mid and rank != down[0]):
        raise ValueError(f"up of rank {rank} and down of rank {down[0]}")
    if mid and math.prod(down[2:]) != 1:
        raise ValueError(f"down of shape {down} beside a mid")
    return (up[0], down[1], *(mid or down)[2:])


def _check_rows(
    file: TensorFile, module: str, slot: Slot, layer: tuple[int, ...] | None, bias: tuple[int, ...] | None
) -> None:
    """Raises FileError unless weight and bias fit each other, and their slot."""
    if layer and bias and bias[0] != layer[0]:
        raise refusal(file, slot, f"a bias of shape {bias} and a weight of shape {layer}")
    try:
        for shape in filter(None, (layer, bias)):
            slot.rows(shape)
    except ValueError as error:
        raise strange(
            file, f"holds {short(module)}, which has {error} in the models whose files can be fused"
        ) from error
