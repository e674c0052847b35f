"""LoRA files for small pipelines, in the spellings that users of diffusers have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.files import mmdit
from tests.reference.pipelines import Module

COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
ENCODERS = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2", "text_encoder_3": "lora_te3"}


def layers(pipe: Any) -> dict[str, nn.Module]:
    """The linear layers and convolutions of a pipeline, by name."""
    return {
        f"{name}.{layer}": module
        for name in COMPONENTS
        for layer, module in (getattr(pipe, name, None) or nn.Module()).named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }


def weights(pipe: Any) -> dict[str, Tensor]:
    """All that may ever change, by name; to be held against later."""
    return {
        f"{name}.{key}": value.clone()
        for name in COMPONENTS
        if getattr(pipe, name, None) is not None
        for key, value in getattr(pipe, name).state_dict().items()
    }


@dataclass(frozen=True, eq=False)
class Held:
    """A module of a file.

    name
        Whatever comes before its tensors' own part of their names.
    layers
        See Module.
    swapped
        Whether the file has the two halves of the rows the other way round.
    """

    name: str
    layers: dict[str, int]
    up: Tensor
    down: Tensor
    swapped: bool = False

    @property
    def module(self) -> Module:
        """What it does to the pipeline."""
        matrix = self.up.flatten(1).double().numpy() @ self.down.flatten(1).double().numpy()
        return Module(self.layers, np.roll(matrix, len(matrix) // 2, 0) if self.swapped else matrix)


def dotted(pipe: Any) -> dict[str, list[str]]:
    """PEFT's and diffusers' modules: the layers themselves."""
    return {name: [name] for name in layers(pipe)}


def kohya(pipe: Any) -> dict[str, list[str]]:
    """The modules of kohya's scripts, with the names and the fused layers of a transformer's first authors."""
    found = {}
    for name in layers(pipe):
        component, _, rest = name.partition(".")
        if component in ENCODERS:
            t5 = rest.startswith("encoder.block")
            clip = re.sub("^(?=encoder)", "text_model.", rest)
            found[f"lora_te3_{_flat(rest)}" if t5 else f"{ENCODERS[component]}_{_flat(clip)}"] = [name]
        elif component == "unet":
            found[f"lora_unet_{_flat(rest)}"] = [name]
    if hasattr(pipe, "transformer"):
        table = mmdit.layers_of("flux" if type(pipe).__name__ == "FluxPipeline" else "sd3")
        found |= {
            f"lora_unet_{_flat(theirs)}": [f"transformer.{one}" for one in ours] for theirs, ours in table.items()
        }
    return found


def _flat(name: str) -> str:
    return name.replace(".", "_")


MODULES: dict[str, Callable[[Any], dict[str, list[str]]]] = {"kohya": kohya, "peft": dotted, "diffusers": dotted}
NAMES = {
    "kohya": ("lora_up.weight", "lora_down.weight"),
    "peft": ("lora_B.weight", "lora_A.weight"),
    "diffusers": ("lora.up.weight", "lora.down.weight"),
}


def write(
    path: Path, pipe: Any, spelling: str = "peft", seed: int = 0, rank: int = 2, only: str = "", size: float = 0.1
) -> list[Module]:
    """A LoRA for the layers of a pipeline whose name holds the pattern `only`. Returns what it does."""
    generator = torch.Generator().manual_seed(seed)
    held = [
        one for one in _held(pipe, MODULES[spelling](pipe), rank, generator, size) if re.search(only, str(one.layers))
    ]
    up, down = NAMES[spelling]
    tensors = {}
    for one in held:
        tensors |= {f"{one.name}.{up}": one.up / (2 if spelling == "kohya" else 1), f"{one.name}.{down}": one.down}
        if spelling == "kohya":
            tensors[f"{one.name}.alpha"] = torch.tensor(2.0 * rank)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return [one.module for one in held]


def _held(
    pipe: Any, modules: dict[str, list[str]], rank: int, generator: torch.Generator, size: float
) -> Iterable[Held]:
    there = layers(pipe)
    for name, names in modules.items():
        weights = [there[one].weight for one in names]
        heights = {one: weight.shape[0] for one, weight in zip(names, weights)}
        kernel = weights[0].shape[2:]
        up = torch.randn(sum(heights.values()), rank, *([1] * len(kernel)), generator=generator) * size
        down = torch.randn(rank, *weights[0].shape[1:], generator=generator) * size
        is_swapped = any(name == f"lora_unet_{_flat(theirs)}" for theirs in mmdit.SWAPPED)
        yield Held(name, heights, up, down, is_swapped)
