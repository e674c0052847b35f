"""Reads LoRAs by Forge's own loader.

A source is asked the patch that the host's own `load_lora` returns: for its factors if it is a plain LoRA, or else for
what the host's own calculation makes of the original weight.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import FileError, HostError, MismatchError
from ...layers.key import ModuleKey
from ...layers.weights import LoraWeights
from ...maths.dense import DenseDelta
from ...maths.lowrank import exact_math
from ..collected import Collected, module_names
from ..protocol import ShelfFile
from .parts import Names, model_of, patchers
from .target import Target


class Reader:
    def __init__(self, networks: Any, patcher_module: Any, names: Names, model_data: Any) -> None:
        from backend.utils import load_torch_file

        self._networks = networks
        self._patcher = patcher_module
        self._names = names
        self._model_data = model_data
        self._read = load_torch_file

    def load(self, file: ShelfFile, token: Hashable) -> LoraWeights:
        model = self._model_data.sd_model.forge_objects_original
        try:
            state = self._renamed(self._tensors(file.path), model)
        except Exception as error:
            raise FileError(f"'{file.name}' cannot be read: {error}") from error
        collected = Collected(file)
        unmatched: set[str] = set()
        with exact_math():
            for part, patcher in patchers(model):
                try:
                    patches, state = self._patcher.load_lora(state, self._names.of(part, patcher))
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
        """The file's. Of a pickle, by torch's reader of weights alone: Forge's own may run what code stands in it."""
        if path.lower().endswith(".safetensors"):
            return dict(self._read(path, safe_load=True))
        try:
            loaded = torch.serialization.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError("it is damaged, or a pickle that can run code: use a .safetensors version") from error
        return dict(loaded.get("state_dict", loaded))

    def _renamed(self, state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
        """The file's tensors by the names that Neo gives them before it looks for their layers."""
        if hasattr(self._networks, "state_dict_prefix_replace"):
            state = self._networks.state_dict_prefix_replace(state, {"lora_unet__": "lora_unet_"})
        if type(model.unet.model.diffusion_model).__name__ == "Anima" and hasattr(self._networks, "process_anima"):
            self._networks.process_anima(state)
        return state

    def _collect(self, collected: Collected, target: Target, patch: Any, shape: torch.Size | None) -> bool:
        """Take one patch. False if the host's calculation fails at it, which leaves the layer alone.

        shape
            Of the layer's weight; None if it is quantised and does not tell.
        """
        key = ModuleKey(target.key, target.part, target.rows)
        factors = _factors(patch)
        if factors and target.change is None and not _is_padded(factors, shape):
            up, down, alpha, mid = factors
            collected.add_factors(key, shape, up, down, mid, lambda: _scale(alpha, down))
            return True

        def calculated() -> DenseDelta:
            return DenseDelta.of(self._update(collected.name, target, patch))

        if not self._is_calculable(collected.name, target, patch):
            return False
        delta = calculated()
        if not (delta.matrix.any() or _is_null(patch)):
            return False
        collected.add_dense(key, shape, delta, calculated)
        return True

    def _is_calculable(self, name: str, target: Target, patch: Any) -> bool:
        """Whether the host's calculation works out, tried without values.

        Factors that fit no layer fail here, before their product takes all memory there is.
        """
        weight = torch.empty(self._original(target).shape, device="meta")
        try:
            after = self._merged(weight, target, patch)
        except Exception as error:
            return "meta" in str(error).lower()
        if after.shape != weight.shape:
            raise MismatchError(f"'{name}' would change the shape of layer {target.key}, which no fusion can")
        return True

    def _update(self, name: str, target: Target, patch: Any) -> Tensor:
        """What the host's own calculation adds to the original weight.

        In float64, target the small difference of two large weights is exact, or in float32 if the host knows no other.
        """
        weight = self._original(target)
        problem: Exception | None = None
        for before in (weight.double(), weight):
            try:
                update: Tensor = self._merged(before, target, patch).clone() - before
                return update
            except Exception as error:
                problem = error
        raise FileError(f"this WebUI cannot calculate what '{name}' adds to layer {target.key}: {problem}") from problem

    def _merged(self, weight: Tensor, target: Target, patch: Any) -> Tensor:
        """The weight with one patch, by the host. Raises what the host raises, or logs instead."""
        with _logged_errors() as errors:
            merged: Tensor = self._patcher.merge_lora_to_weight(
                [(1.0, patch, 1.0, None, target.change)], weight.clone(), target.key, computation_dtype=weight.dtype
            )
        if errors:
            raise RuntimeError(errors[0])
        return merged

    def _original(self, target: Target) -> Tensor:
        """The weight, or the rows of it, as the checkpoint has it, in float32, whatever is merged into it now."""
        patcher = dict(patchers(self._model_data.sd_model.forge_objects_original))[target.part]
        model = model_of(target.part, patcher)
        inner: Any = getattr(patcher, "patcher", patcher)
        backup = getattr(inner, "lora_loader", inner).backup.get(target.key)
        weight = getattr(backup, "weight", backup)
        if weight is None:
            weight = model.get_parameter(target.key)
        weight = _dequantised(weight, model.get_submodule(target.key.rpartition(".")[0]))
        if not weight.is_floating_point():
            raise HostError("this model's weights cannot be read as they are stored, so it takes plain LoRAs only")
        weight = weight.detach().to("cpu", torch.float32)
        return cast("Tensor", weight[slice(*target.rows)] if target.rows else weight)


def _factors(patch: Any) -> tuple[Tensor, Tensor, Any, Tensor | None] | None:
    """(up, down, alpha, mid) of a plain LoRA patch: a tuple (kind, fields) in Forge, an adapter object in Neo."""
    kind, fields = (patch.name, patch.weights) if hasattr(patch, "weights") else (patch[0], patch[-1])
    if kind != "lora" or any(field is not None for field in fields[4:]):
        return None
    return tuple(fields[:4])


@contextmanager
def _logged_errors() -> Iterator[list[str]]:
    """What Neo's patches log on the root logger instead of raising it, kept from the console."""
    found: list[str] = []
    thread = threading.get_ident()

    def collect(record: logging.LogRecord) -> bool:
        ours = record.levelno >= logging.ERROR and record.thread == thread
        if ours:
            found.append(record.getMessage())
        return not ours

    root = logging.getLogger()
    root.addFilter(collect)
    try:
        yield found
    finally:
        root.removeFilter(collect)


def _is_null(patch: Any) -> bool:
    """Whether a patch means no change, because its alpha or one of its factors is 0."""
    fields = patch.weights if hasattr(patch, "weights") else patch[-1]
    return any(
        not field.any() if isinstance(field, Tensor) else field == 0
        for field in fields
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
    """Of the weight, or of these rows; None if it is packed."""
    if not weight.is_floating_point() and getattr(weight, "gguf_cls", None) is None:
        return None
    return torch.Size((rows[1] - rows[0], *weight.shape[1:])) if rows else weight.shape


def _dequantised(weight: Any, layer: Any) -> Any:
    """By the host's own functions."""
    if hasattr(weight, "bnb_quantized"):
        return importlib.import_module("backend.operations_bnb").functional_dequantize_4bit(weight)
    if getattr(weight, "gguf_cls", None) is not None:
        return importlib.import_module("backend.operations_gguf").dequantize_tensor(weight)
    return layer.convert_weight(weight) if hasattr(layer, "convert_weight") else weight
