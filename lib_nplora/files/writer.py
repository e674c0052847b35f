"""Fused layers as a kohya LoRA file, which every host reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..errors import FileError
from ..lowrank import LowRankDelta
from ..weights import ModuleKey
from .families import Family
from .hashing import kohya_hashes

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def write_lora(
    path: Path,
    layers: Iterable[tuple[ModuleKey, LowRankDelta]],
    dtype: str,
    family: Family | None,
    metadata: Mapping[str, str],
) -> None:
    """Write `layers`, whose keys are canonical names, with alpha = rank.

    `dtype` is a name from DTYPES, `metadata` is added to what kohya's scripts write. The file appears once it is
    complete, or not at all. Raises FileError, and whatever `layers` raises.
    """
    with _replacing(path) as part:
        tensors: dict[str, Tensor] = {}
        ranks = set()
        for key, delta in layers:
            tensors |= _tensors(_file_name(key, family), delta, dtype)
            ranks.add(delta.rank)
        rank = str(ranks.pop()) if len(ranks) == 1 else "Dynamic"
        training = {
            "ss_network_module": "networks.lora",
            "ss_network_dim": rank,
            "ss_network_alpha": rank,
            "ss_output_name": path.stem,
            **(family.metadata if family else {}),
        }
        save_file(tensors, part, training)
        save_file(tensors, part, {**training, **metadata, **kohya_hashes(part)})


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` that takes its place in the end. Nothing is left behind if the work is cut short.

    safetensors creates files that only their owner can read; this one gets the permissions of any new file here.
    """
    try:
        with TemporaryDirectory(prefix=".nplora-", dir=path.parent) as folder:
            part = Path(folder) / path.name
            part.touch()
            permissions = part.stat().st_mode
            yield part
            part.chmod(permissions)
            os.replace(part, path)
    except (OSError, SafetensorError) as error:
        raise FileError(f"'{path}' cannot be written: {error}") from error


def _file_name(key: ModuleKey, family: Family | None) -> str:
    name = str(key.name)
    if family and name.startswith("lora_te1_"):
        return family.te_prefix + name.removeprefix("lora_te1_")
    return name


def _tensors(name: str, delta: LowRankDelta, dtype: str) -> dict[str, Tensor]:
    up, down = (factor.to(DTYPES[dtype]).contiguous() for factor in delta.balanced().factors())
    if not (up.isfinite().all() and down.isfinite().all()):
        raise FileError(
            f"layer {name} holds values too large for {dtype}: choose --dtype bf16 or fp32, or a smaller weight"
        )
    return {
        f"{name}.lora_up.weight": up,
        f"{name}.lora_down.weight": down,
        f"{name}.alpha": torch.tensor(float(delta.rank)),
    }
