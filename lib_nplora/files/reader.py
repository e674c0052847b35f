"""A LoRA file, of any spelling, as LoraWeights that are read from disk layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import FileError, did_you_mean
from ..lowrank import LowRankDelta
from ..weights import LoraWeights, ModuleKey
from . import names
from .families import Family, detect
from .hashing import sha256
from .peft_scale import PeftScales, read_scales

_PICKLES = (".pt", ".pth", ".ckpt", ".bin")
_DAMAGED = "the file is damaged: download or save it again"


@dataclass(frozen=True, eq=False)
class LoraFile:
    """A LoRA file whose names and shapes are checked; its values are read when weights.deltas is asked for them.

    family
        The model family it is made for, None if nothing tells.
    """

    path: Path
    weights: LoraWeights
    family: Family | None


def read_lora(path: Path) -> LoraFile:
    """Open a .safetensors file. weights.digest is the file's SHA-256.

    Raises FileError, here for whatever names and shapes show, and when a layer is read for its values.
    """
    file = _open(path)
    modules = _modules(path, file)
    deltas = _LazyDeltas(path, file, modules, read_scales(path, file.metadata() or {}))
    family = detect({str(key.name): file.get_slice(module["down"]).get_shape()[1] for key, module in modules.items()})
    return LoraFile(path, LoraWeights(path.stem, sha256(path), deltas), family)


_Module = dict[names.Role, str]
"""Role -> name of the tensor in the file."""


class _LazyDeltas(Mapping[ModuleKey, LowRankDelta]):
    """Reads a layer each time it is asked for, and keeps none. Holds the file open."""

    def __init__(self, path: Path, file: Any, modules: Mapping[ModuleKey, _Module], scales: PeftScales) -> None:
        self._path = path
        self._file = file
        self._modules = modules
        self._scales = scales

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[ModuleKey]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def __getitem__(self, key: ModuleKey) -> LowRankDelta:
        module = self._modules[key]
        tensors = {role: self._file.get_tensor(name) for role, name in module.items()}
        for tensor in tensors.values():
            if not torch.isfinite(tensor.float()).all():
                raise FileError(
                    f"'{self._path.name}' holds values that are not finite in layer {key.name}: "
                    "its training failed, use another version of it"
                )
        return LowRankDelta.from_factors(
            tensors["up"], tensors["down"], tensors.get("mid"), self._scale(module, tensors)
        )

    def _scale(self, module: _Module, tensors: Mapping[names.Role, torch.Tensor]) -> float:
        rank = tensors["down"].shape[0]
        if "scale" in tensors:
            return float(tensors["scale"])
        if "alpha" in tensors:
            return float(tensors["alpha"]) / rank
        split = names.split(module["down"])
        assert split is not None
        return self._scales.of(split[0], rank)


def _open(path: Path) -> Any:
    if path.suffix.lower() in _PICKLES:
        raise FileError(f"'{path.name}' is of a kind that can run code when opened: convert it to .safetensors first")
    if not path.is_file():
        siblings = (file.name for file in path.parent.glob("*.safetensors"))
        raise FileError(f"there is no file '{path}'.{did_you_mean(path.name, siblings)}")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise FileError(
            f"'{path.name}' cannot be opened as a .safetensors file ({error}): download or save it again"
        ) from error


def _modules(path: Path, file: Any) -> dict[ModuleKey, _Module]:
    """The file's modules, in its order, checked. Raises FileError."""
    modules: dict[ModuleKey, _Module] = {}
    for tensor, (name, role) in _split(path, file).items():
        canonical = names.canonical(name)
        if canonical is None:
            raise FileError(
                f"'{path.name}' holds layer {name}, which is in no UNet and no CLIP text encoder: "
                "only LoRAs for SD 1, SD 2 and SDXL can be fused"
            )
        module = modules.setdefault(ModuleKey(canonical, "unet" if canonical.startswith("lora_unet_") else "te"), {})
        if role in module:
            raise FileError(f"'{path.name}' holds one thing twice, as {module[role]} and as {tensor}: {_DAMAGED}")
        module[role] = tensor
    for key, module in modules.items():
        _check(path, file, str(key.name), module)
    return modules


def _split(path: Path, file: Any) -> dict[str, tuple[str, names.Role]]:
    """The file's tensors, each with its module and role. Raises FileError if not all of them are a LoRA's."""
    tensors = [tensor for tensor in list(file.keys()) if not names.is_ignored(tensor)]
    splits = {tensor: split for tensor in tensors if (split := names.split(tensor))}
    strangers = [tensor for tensor in tensors if tensor not in splits]
    for tensor in strangers:
        if kind := names.other_kind(tensor):
            raise FileError(f"'{path.name}' holds {kind} modules ({tensor}): only LoRA and LoCon can be fused")
    if not any(role in ("up", "down") for _, role in splits.values()):
        raise FileError(f"'{path.name}' holds no LoRA: choose a LoRA file")
    if strangers:
        raise FileError(
            f"'{path.name}' holds {strangers[0]}, which is no part of a LoRA: only LoRA and LoCon can be fused"
        )
    return splits


def _check(path: Path, file: Any, name: str, module: _Module) -> None:
    """Raises FileError unless the shapes in the header make a delta weight."""

    def refuse(problem: str) -> FileError:
        return FileError(f"'{path.name}': layer {name} has {problem}, so {_DAMAGED}")

    for role, other in (("up", "down"), ("down", "up")):
        if role not in module:
            raise refuse(f"{other} but no {role}" if other in module else f"neither {other} nor {role}")
    shapes: dict[str, list[int]] = {}
    for role, tensor in module.items():
        header = file.get_slice(tensor)
        shapes[role] = header.get_shape()
        if role in ("up", "down", "mid") and not header.get_dtype().startswith(("F", "BF")):
            raise refuse(f"{role} in the number format {header.get_dtype()}")
    for number in ("alpha", "scale"):
        if math.prod(shapes.get(number, [])) != 1:
            raise refuse(f"{number} that is not one number")
    up, down, mid = shapes["up"], shapes["down"], shapes.get("mid")
    for factor, shape in (("up", up), ("down", down), ("mid", mid or up)):
        if len(shape) < 2 or 0 in shape:
            raise refuse(f"{factor} of shape {tuple(shape)}")
    rank = math.prod(up[1:])
    if (mid or [rank, rank])[:2] != [rank, down[0]] or (not mid and rank != down[0]):
        raise refuse(f"up of rank {rank} and down of rank {down[0]}")
