"""Reads LoRAs by Forge's own loader.

The patches that the host's own `load_lora` returns are asked for their factors if they are plain LoRAs; of others, the
host's own calculation on the original weight tells what they add.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from ...errors import FileError, HostError
from ...layers.key import ModuleKey
from ...layers.weights import LoraWeights
from ...maths.dense import DenseDelta
from ...maths.lowrank import exact_math
from ...maths.remade import Making
from ..collected import Collected, module_names
from ..protocol import ShelfFile
from .calculation import Calculation
from .dialect import Dialect
from .parts import KeyTables, model_of, patchers
from .target import Target


class Reader:
    """Takes what the host's patches add to the model's parameters."""

    def __init__(self, dialect: Dialect, names: KeyTables, model_data: Any) -> None:
        self._dialect = dialect
        self._names = names
        self._model_data = model_data
        self._calculation = Calculation(dialect, model_data)

    def load(self, file: ShelfFile, token: Hashable) -> LoraWeights:
        """The deltas for the loaded model, whose token this is. Raises FileError, MismatchError, HostError."""
        model = self._model_data.sd_model.forge_objects_original
        try:
            state = self._dialect.renamed(self._tensors(file.path), model)
        except Exception as error:
            raise FileError(f"'{file.name}' cannot be read: {error}") from error
        collected = Collected(file)
        unmatched: set[str] = set()
        with exact_math():
            for part, patcher in patchers(model):
                try:
                    patches, state = self._dialect.load(state, self._names.of(part, patcher))
                except HostError as error:
                    raise FileError(f"'{file.name}' cannot be read: {error}") from error
                except Exception as error:
                    raise FileError(f"'{file.name}' cannot be read: {type(error).__name__} {error}") from error
                layers = dict(model_of(part, patcher).named_parameters())
                for named, patch in patches.items():
                    target = Target.of(part, named)
                    layer = layers.get(target.key)
                    if layer is None or not self._collect(collected, target, patch, _shape(layer, target.rows)):
                        unmatched.add(str(named))
        return collected.weights(unmatched | module_names(state), token)

    def _tensors(self, path: str) -> dict[str, Tensor]:
        """The file's tensors; those of a pickle by torch's reader of weights alone: Forge's own may run its code."""
        if path.lower().endswith(".safetensors"):
            return dict(self._dialect.read(path))
        try:
            loaded = torch.serialization.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError("it is damaged, or a pickle that can run code: use a .safetensors version") from error
        return dict(loaded.get("state_dict", loaded))

    def _collect(self, collected: Collected, target: Target, patch: Any, shape: torch.Size | None) -> bool:
        """Take one patch. False if the host's calculation fails at it, which leaves the layer alone.

        shape
            That of the layer's weight; None if it is quantised and does not tell.
        """
        key = ModuleKey(target.key, target.part, target.rows)
        factors = _factors(patch)
        if factors and target.change is None and not _is_padded(factors, shape):
            up, down, alpha, mid = factors
            collected.add_factors(key, shape, up, down, mid, lambda: _scale(alpha, down))
            return True

        if not self._calculation.is_possible(collected.name, target, patch):
            return False
        name, only_adds = collected.name, _only_adds(patch)
        delta = DenseDelta.of(self._calculation.update(name, target, patch, only_adds=only_adds))
        if not (delta.energy() != 0 or _is_null(patch)):
            return False
        again = Making(
            lambda device: self._calculation.update(name, target, patch, device, only_adds),
            sum(field.nbytes for field in _fields(patch) if isinstance(field, Tensor)),
            delta.energy(),
        )
        collected.add_dense(key, shape, delta, again if delta.has_input_side else None)
        return True


def _factors(patch: Any) -> tuple[Tensor, Tensor, Any, Tensor | None] | None:
    """(up, down, alpha, mid) of a plain LoRA patch."""
    fields = _fields(patch)
    if _kind(patch) != "lora" or any(field is not None for field in fields[4:]):
        return None
    return tuple(fields[:4])


def _only_adds(patch: Any) -> bool:
    """Whether what a patch adds is the same whatever the weight is: in LoKr and LoHa the scale of DoRA comes last."""
    kind = _kind(patch)
    return kind == "diff" or (kind in ("lokr", "loha") and _fields(patch)[-1] is None)


def _kind(patch: Any) -> str:
    """The host's word for what a patch is made of."""
    return str(patch.name if hasattr(patch, "weights") else patch[0])


def _fields(patch: Any) -> Any:
    """What a patch holds: a tuple (kind, fields), or an adapter object in Neo and reForge."""
    return patch.weights if hasattr(patch, "weights") else patch[-1]


def _is_null(patch: Any) -> bool:
    """Whether a patch means no change, because its alpha or one of its factors is 0."""
    return any(
        not field.any() if isinstance(field, Tensor) else field == 0
        for field in _fields(patch)
        if isinstance(field, Tensor | float | int)
    )


def _is_padded(factors: tuple[Tensor, Tensor, Any, Tensor | None], shape: torch.Size | None) -> bool:
    """Whether the layer has more inputs than the LoRA knows, as in models that are made to fill or to be controlled."""
    up, down, _, mid = factors
    width = down.shape[1:2].numel() * (down if mid is None else mid).shape[2:].numel()
    return shape is not None and up.shape[0] == shape[0] and width < shape[1:].numel()


def _scale(alpha: float | None, down: Tensor) -> float:
    return 1.0 if alpha is None else float(alpha) / down.shape[0]


def _shape(weight: Tensor, rows: tuple[int, int] | None) -> torch.Size | None:
    """The shape of the weight, or of these rows; None if it is packed."""
    if not weight.is_floating_point() and getattr(weight, "gguf_cls", None) is None:
        return None
    return torch.Size((rows[1] - rows[0], *weight.shape[1:])) if rows else weight.shape
