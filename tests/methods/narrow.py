"""LoRA.rar's hypernetwork for models that are smaller than SDXL."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_nplora.methods import rar

from ..reference import lora_rar


def written(path: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A random one with `width` in place of 640, which is what rar looks for until the test ends."""
    monkeypatch.setitem(rar.FIRST, width, "input_1")
    monkeypatch.setitem(rar.SHAPES, "input_1.weight", (128, 2 * width))
    save_file({name: torch.from_numpy(values) for name, values in lora_rar.narrow_hypernet(width).items()}, path)
    return path
