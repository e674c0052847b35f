"""Files that are written for newer models, looked up in the tables by which the hosts find a LoRA's layers.

Every linear layer of the model is fused, so that no name is left out, and no row. NPLORA_FORGE_DIR and NPLORA_NEO_DIR
name the hosts' folders.
"""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache
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

HEADERS = {**newer.HEADERS, "Flux": {"ss_base_model_version": "flux1"}}
READ = {
    "forge": {"Flux": ("diffusers",), "Chroma": ("kohya", "comfyui")},
    "neo": {
        "Flux": ("diffusers",),
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
    return {
        name.removeprefix("diffusion_model.").removesuffix(".weight"): (
            torch.randn(rows, 1, generator=generator),
            torch.randn(1, columns, generator=generator) / columns**0.5,
        )
        for name, (rows, columns) in shapes.items()
    }


def fused(folder: Path, family: str, pair: tuple[newer.Lora, newer.Lora], spelling: str) -> dict[str, Tensor]:
    content = newer.write(folder / "content.safetensors", newer.comfyui(pair[0]), HEADERS[family])
    style = newer.write(folder / "style.safetensors", newer.kohya(pair[1]), HEADERS[family])
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
        up, down = (state[f"{module}.{end}.weight"].double() for end in ends)
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
    for weight, (height, columns) in known["shapes"].items():
        probe = torch.linspace(-1, 1, columns, dtype=torch.float64)
        got, covered = torch.zeros(height, dtype=torch.float64), torch.zeros(height)
        for (start, stop), up, down in found[weight]:
            got[start:stop] += up @ (down @ probe)
            covered[start:stop] += 1
        assert covered.eq(1).all(), weight
        layer = weight.removeprefix("diffusion_model.").removesuffix(".weight")
        right = sum(up.double() @ (down.double() @ probe) for up, down in (lora[layer] for lora in pair))
        torch.testing.assert_close(got, right, atol=1e-5, rtol=1e-4, msg=weight)
