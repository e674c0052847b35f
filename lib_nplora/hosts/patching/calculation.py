"""What the host's own calculation makes of an original weight, for patches that are no plain factors."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import FileError, HostError, MismatchError
from .dialect import Dialect
from .parts import model_patcher, patchers
from .target import Target

_CPU = torch.device("cpu")


class Calculation:
    """Adds patches to copies of the loaded model's original weights."""

    def __init__(self, dialect: Dialect, model_data: Any) -> None:
        self._dialect = dialect
        self._model_data = model_data

    def is_possible(self, name: str, target: Target, patch: Any) -> bool:
        """Whether the host's calculation works out, tried without values.

        Factors that fit no layer fail here, before their product takes all memory there is.
        """
        weight = self._original(target, torch.device("meta"))
        try:
            after = self._merged(weight, target, patch)
        except Exception as error:
            return "meta" in str(error).lower()
        if after.shape != weight.shape:
            raise MismatchError(f"'{name}' would change the shape of layer {target.key}, which no fusion can")
        return True

    def update(
        self, name: str, target: Target, patch: Any, device: torch.device | None = _CPU, only_adds: bool = False
    ) -> Tensor:
        """What the host's own calculation adds to the original weight, on this device, or on the layer's own.

        In float64, where the small difference of two large weights is exact, or in float32 if the host or the device
        knows no other.

        only_adds
            Whether that is the same whatever the weight: it is added to nothing then, where float32 is as exact.
        """
        try:
            added = self._sum_with_nothing if only_adds else self._difference
            return added(target, patch, device)
        except Exception as error:
            raise FileError(f"this WebUI cannot calculate what '{name}' adds to layer {target.key}: {error}") from error

    def _difference(self, target: Target, patch: Any, device: torch.device | None) -> Tensor:
        weight = self._original(target, device)
        try:
            return self._merged(weight.to(torch.float64, copy=True), target, patch) - weight
        except Exception:
            return self._merged(weight.clone(), target, patch) - weight

    def _sum_with_nothing(self, target: Target, patch: Any, device: torch.device | None) -> Tensor:
        parameter = self._patcher(target).model.get_parameter(target.key)
        shape = self._original(target, torch.device("meta"))
        return self._merged(torch.zeros_like(shape, device=device or parameter.device), target, patch)

    def _merged(self, weight: Tensor, target: Target, patch: Any) -> Tensor:
        """The weight, which may change, with one patch, by the host. Raises what the host raises, or logs instead."""
        with _logged_errors() as errors:
            merged: Tensor = self._dialect.merged(self._patcher(target), patch, weight, target)
        if errors:
            raise RuntimeError(errors[0])
        return merged

    def _original(self, target: Target, device: torch.device | None = _CPU) -> Tensor:
        """The weight, or the rows of it, as the checkpoint has it, in float32, whatever is merged into it now."""
        patcher = self._patcher(target)
        parameter = patcher.model.get_parameter(target.key)
        weight = self._dialect.kept(patcher, target.key)
        if weight is None:
            weight = parameter
        weight = _dequantised(weight, patcher.model.get_submodule(target.key.rpartition(".")[0]))
        if not weight.is_floating_point():
            raise HostError("this model's weights cannot be read as they are stored, so it takes plain LoRAs only")
        weight = weight.detach().to(device or parameter.device, torch.float32)
        return cast("Tensor", weight[slice(*target.rows)] if target.rows else weight)

    def _patcher(self, target: Target) -> Any:
        """The original model's patcher of the part."""
        return model_patcher(dict(patchers(self._model_data.sd_model.forge_objects_original))[target.part])


@contextmanager
def _logged_errors() -> Iterator[list[str]]:
    """What the patches of Neo and reForge log on the root logger instead of raising it, kept from the console."""
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


def _dequantised(weight: Any, layer: Any) -> Any:
    """The weight as numbers, by the host's own functions."""
    if hasattr(weight, "bnb_quantized"):
        return importlib.import_module("backend.operations_bnb").functional_dequantize_4bit(weight)
    if getattr(weight, "gguf_cls", None) is not None:
        return importlib.import_module("backend.operations_gguf").dequantize_tensor(weight)
    return layer.convert_weight(weight) if hasattr(layer, "convert_weight") else weight
