"""Files that are written for newer models, given to diffusers' own loaders: how much of a model they reach."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_nplora.command_line.main import main
from lib_nplora.files.models import families
from tests.files import newer

from .diffusers_models import Loader

HEADERS = {
    **newer.HEADERS,
    "SD 3": {"ss_base_model_version": "sd3"},
    "Flux": {"ss_base_model_version": "flux1"},
}
REACHED = {
    "SD 3": {"kohya": "none", "comfyui": "none", "diffusers": "all"},
    "Flux": {"kohya": "blocks", "comfyui": "none", "diffusers": "all"},
    "Chroma": {"kohya": "blocks", "comfyui": "none", "diffusers": "all"},
    "FLUX.2": {"kohya": "blocks", "comfyui": "blocks", "diffusers": "all"},
    "Qwen-Image": {"kohya": "all", "comfyui": "all", "diffusers": "all"},
    "Z-Image": {"kohya": "blocks", "comfyui": "none", "diffusers": "all"},
    "Lumina 2": {"kohya": "none", "comfyui": "blocks", "diffusers": "all"},
    "Wan": {"kohya": "blocks", "comfyui": "all", "diffusers": "all"},
    "Krea 2": {"kohya": "none", "comfyui": "all", "diffusers": "all"},
    "Anima": {"kohya": "none", "comfyui": "all", "diffusers": "all"},
    "ERNIE-Image": {"kohya": "none", "comfyui": "all", "diffusers": "all"},
    "HunyuanVideo": {"kohya": "none", "comfyui": "blocks", "diffusers": "all"},
}
"""Family -> spelling -> the linear layers that diffusers' loader finds by it: all, those of the blocks, or not even
those.

Its converters of FLUX.2 and HunyuanVideo leave the rows of the last modulation as they are, which its models have the
other way round, and that of HunyuanVideo cuts a factor of the text's q, k and v in three.
"""
_IN_BLOCKS = r"^(?:\w*blocks|layers|\w+_refiner)\.\d"


@lru_cache
def loader(family: str) -> Loader:
    return Loader.of(family)


def random_lora(sizes: newer.Sizes, seed: int) -> newer.Lora:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(rows, 1, generator=generator), torch.randn(1, columns, generator=generator) / columns**0.5)
        for name, (rows, columns) in sizes.items()
    }


def is_read(folder: Path, family: str, spelling: str, sizes: newer.Sizes) -> bool:
    """Whether the fusion of two LoRAs of these layers, written so, is loaded as what it is."""
    pair = random_lora(sizes, 1), random_lora(sizes, 2)
    paths = [
        newer.write(folder / f"{i}.safetensors", newer.comfyui(lora, "transformer."), HEADERS[family])
        for i, lora in enumerate(pair)
    ]
    out = folder / "out.safetensors"
    options = ("--method", "direct", "--dtype", "fp32", "--overwrite", "--spelling", spelling)
    assert main(["fuse", *map(str, paths), "-o", str(out), *options]) == 0
    try:
        found = loader(family).loaded(load_file(out))
    except (ValueError, IndexError, RuntimeError):
        return False
    if found.keys() != sizes.keys():
        return False
    for name, (rows, columns) in sizes.items():
        (up, down), probe = found[name], torch.linspace(-1, 1, columns)
        if (up.shape[0], *down.shape) != (rows, up.shape[1], columns):
            return False
        right = sum(up @ (down @ probe) for up, down in (lora[name] for lora in pair))
        if not torch.allclose(up @ (down @ probe), right, atol=1e-4, rtol=1e-3):
            return False
    return True


@pytest.mark.parametrize(("family", "spelling"), [(one, spelling) for one, of in REACHED.items() for spelling in of])
def test_diffusers_loads_what_is_written(tmp_path: Path, family: str, spelling: str) -> None:
    sizes = loader(family).sizes
    blocks = {name: size for name, size in sizes.items() if re.search(_IN_BLOCKS, name)}
    assert 0 < len(blocks) < len(sizes)
    reached = "none"
    if is_read(tmp_path, family, spelling, blocks):
        reached = "all" if is_read(tmp_path, family, spelling, sizes) else "blocks"
    assert reached == REACHED[family][spelling]


def test_no_spelling_is_left_out() -> None:
    written = {family.label: {*family.entries} for family in families() if "comfyui" in family.entries}
    assert written == {family: {*of} for family, of in REACHED.items()}
