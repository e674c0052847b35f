"""Files that are written, looked up in the tables by which the hosts find a LoRA's layers.

Every linear layer and convolution of the model and of its text encoders is fused, so that no name is left out, and no
row. NPLORA_FORGE_DIR and NPLORA_NEO_DIR name the hosts' folders.
"""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lib_nplora.command_line.main import main
from lib_nplora.files.models import families

from ..files import newer
from .driver import KINDS

HEADERS = {
    **newer.HEADERS,
    "SD 1": {"ss_base_model_version": "sd_v1"},
    "SD 2": {"ss_base_model_version": "sd_v2"},
    "SDXL": {"ss_base_model_version": "sdxl_base_v1-0"},
    "SD 3": {"ss_base_model_version": "sd3"},
    "Flux": {"ss_base_model_version": "flux1"},
}
READ = {
    "forge": {
        "SD 1": ("kohya",),
        "SD 2": ("kohya",),
        "SDXL": ("kohya",),
        "SD 3": ("kohya", "comfyui"),
        "Flux": ("kohya", "comfyui", "diffusers"),
        "Chroma": ("kohya", "comfyui"),
    },
    "neo": {
        "SD 1": ("kohya",),
        "SDXL": ("kohya",),
        "Flux": ("kohya", "comfyui", "diffusers"),
        "Chroma": ("kohya", "comfyui"),
        "FLUX.2": ("kohya", "comfyui"),
        "Qwen-Image": ("kohya", "comfyui", "diffusers"),
        "Z-Image": ("kohya", "comfyui", "diffusers"),
        "Lumina 2": ("kohya", "comfyui"),
        "Wan": ("kohya", "comfyui"),
        "Krea 2": ("kohya", "comfyui", "diffusers"),
        "Anima": ("kohya", "comfyui"),
        "ERNIE-Image": ("kohya", "comfyui", "diffusers"),
    },
}
"""Host -> family -> the spellings of which it knows every layer."""

MODEL = "diffusion_model."
T5 = {"SD 3": "lora_te3_", "Flux": "lora_te2_", "Chroma": "lora_te1_"}
"""Family -> how trainers begin the names of its T5's layers: by the number of the text encoder."""

CLIP = {
    "clip_l.transformer.": "lora_te1_",
    "clip_h.transformer.": "lora_te1_",
    "clip_g.transformer.": "lora_te2_",
}
QWEN = {"qwen3_06b.model.": "lora_te_", "qwen3_06b.": "lora_te_"}
"""How the hosts' names of a text encoder's layers begin -> how kohya's scripts do. A language model's layers are
written as they are named, which kohya's scripts do for Anima alone."""


@lru_cache
def tables(host: str) -> dict[str, Any]:
    folder = KINDS[host].folder
    if folder is None:
        pytest.skip(f"{KINDS[host].variable} is not set")
    script = Path(__file__).with_name("key_tables.py")
    command = [str(folder / "venv/bin/python"), str(script), host]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def random_lora(shapes: dict[str, list[int]], seed: int) -> newer.Lora:
    generator = torch.Generator().manual_seed(seed)
    lora = {}
    for name, (rows, columns, *kernel) in shapes.items():
        down = torch.randn(1, columns, *kernel, generator=generator) / (columns * prod(kernel)) ** 0.5
        up = torch.randn(rows, 1, *(1 for _ in kernel), generator=generator)
        lora[name.removesuffix(".weight")] = up, down
    return lora


def spelled(lora: newer.Lora, family: str, in_kohya: bool) -> dict[str, Tensor]:
    """The tensors of a file, in kohya's names or, but for those of Anima's texts, in the model's own."""
    write, rest = newer.kohya if in_kohya else newer.comfyui, dict(lora)
    state = write({name.removeprefix(MODEL): rest.pop(name) for name in lora if name.startswith(MODEL)})
    begins = {**CLIP, "t5xxl.transformer.": T5.get(family, "")} if in_kohya else {}
    for theirs, prefix in (QWEN if family == "Anima" else begins).items():
        own = {name.removeprefix(theirs): rest.pop(name) for name in [*rest] if name.startswith(theirs)}
        state |= newer.kohya(own, prefix)
    return state | newer.comfyui(rest, "text_encoders.")


def fused(folder: Path, family: str, pair: tuple[newer.Lora, newer.Lora], spelling: str) -> dict[str, Tensor]:
    content, style = (
        newer.write(folder / f"{role}.safetensors", spelled(lora, family, role == "style"), HEADERS[family])
        for role, lora in zip(("content", "style"), pair)
    )
    out = folder / "out.safetensors"
    options = ("--method", "direct", "--dtype", "fp32", "--overwrite", "--spelling", spelling)
    assert main(["fuse", str(content), str(style), "-o", str(out), *options]) == 0
    return load_file(out)


def looked_up(state: dict[str, Tensor], names: dict[str, Any]) -> tuple[dict[str, list[Any]], set[str]]:
    """Weight -> rows, up and down of what the host adds to it; and the modules that it has no name for."""
    found: dict[str, list[Any]] = {}
    unknown = set()
    for module in {name.partition(".lora_")[0].removesuffix(".alpha") for name in state}:
        if module not in names:
            unknown.add(module)
            continue
        weight, rows, swapped = names[module]
        ends = ("lora_up", "lora_down") if f"{module}.lora_up.weight" in state else ("lora_B", "lora_A")
        up, down = (state[f"{module}.{end}.weight"].double().flatten(1) for end in ends)
        alpha = state.get(f"{module}.alpha")
        scale = 1.0 if alpha is None else float(alpha) / len(down)
        up = up.roll(len(up) // 2, 0) if swapped else up
        found.setdefault(weight, []).append((rows or [0, len(up)], scale * up, down))
    return found, unknown


@pytest.mark.parametrize(
    ("host", "family", "spelling"),
    [
        (host, family, spelling)
        for host, read in READ.items()
        for family in read
        for spelling in next(one for one in families() if one.label == family).entries
    ],
)
def test_every_row_of_every_layer_is_found(tmp_path: Path, host: str, family: str, spelling: str) -> None:
    """In spellings that a host does not read throughout, it is the names that it does not know."""
    known = tables(host)[family]
    pair = random_lora(known["shapes"], 1), random_lora(known["shapes"], 2)
    found, unknown = looked_up(fused(tmp_path, family, pair, spelling), known["names"])
    if spelling not in READ[host][family]:
        assert unknown
        return
    assert not unknown
    assert found.keys() == known["shapes"].keys()
    for weight, (height, *columns) in known["shapes"].items():
        probe = torch.linspace(-1, 1, prod(columns), dtype=torch.float64)
        got, covered = torch.zeros(height, dtype=torch.float64), torch.zeros(height)
        for (start, stop), up, down in found[weight]:
            got[start:stop] += up @ (down @ probe)
            covered[start:stop] += 1
        assert covered.eq(1).all(), weight
        layer = weight.removesuffix(".weight")
        right = sum(
            up.flatten(1).double() @ (down.flatten(1).double() @ probe) for up, down in (lora[layer] for lora in pair)
        )
        torch.testing.assert_close(got, right, atol=1e-5, rtol=1e-4, msg=weight)
