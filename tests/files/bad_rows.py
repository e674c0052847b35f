"""The pieces that bad files are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

QUERY = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
KEY = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
CONV = "lora_unet_down_blocks_1_resnets_0_conv1"
NORM = "lora_unet_down_blocks_1_resnets_0_norm1"
SHAPES = {QUERY: (8, 8), KEY: (8, 768), CONV: (8, 8, 3, 3)}
"""Layers of a narrow SD 1."""

DOTTED = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
"""QUERY as PEFT spells it."""

Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Row:
    """One file.

    name
        What is wrong with it.
    make
        Its bytes, or a function that makes something else at a path.
    fine
        It is odd, and can be fused all the same.
    reads
        It can be read; only with the good file it does not go together.
    either
        It may be fused or refused, as long as that is done at once.
    file
        Its name, where that is what is wrong. It has to start with `slug`.
    """

    name: str
    make: bytes | Callable[[Path], object]
    fine: bool = False
    reads: bool = False
    either: bool = False
    file: str = ""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 8


def lora(layer: str = QUERY, rank: int = 2, seed: int = 0) -> Tensors:
    """up, down and alpha of one layer."""
    out, in_, *kernel = SHAPES[layer]
    return {
        f"{layer}.lora_up.weight": normal(out, rank, *(1 for _ in kernel), seed=seed),
        f"{layer}.lora_down.weight": normal(rank, in_, *kernel, seed=seed + 1),
        f"{layer}.alpha": torch.tensor(1.0),
    }


def whole(seed: int = 0) -> Tensors:
    """A LoRA of all layers."""
    return {name: tensor for layer in SHAPES for name, tensor in lora(layer, seed=seed).items()}


def packed(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    return save({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, metadata)


def changed(metadata: dict[str, str] | None = None, /, **roles: Tensor | None) -> bytes:
    """A whole LoRA whose QUERY layer has other tensors; None takes one away. `lora_up` stands for lora_up.weight."""
    tensors = whole()
    for role, tensor in roles.items():
        name = f"{QUERY}.{role}.weight" if role in WEIGHTS else f"{QUERY}.{role}"
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    return packed(tensors, metadata)


WEIGHTS = ("lora_up", "lora_down", "lora_mid", "a1", "a2", "b1", "b2")
"""Roles whose tensors' names end in .weight."""


def instead(layer: str = QUERY, /, **roles: Tensor) -> bytes:
    """A whole LoRA but for one layer, which has these tensors only."""
    tensors = {name: tensor for name, tensor in whole().items() if not name.startswith(f"{layer}.")}
    for role, tensor in roles.items():
        tensors[f"{layer}.{role}.weight" if role in WEIGHTS else f"{layer}.{role}"] = tensor
    return packed(tensors)


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A .safetensors file by hand. `header` is bytes, or anything that JSON can hold."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def split(file: bytes) -> tuple[dict[str, object], bytes]:
    """The header and the data of a good file."""
    end = 8 + int.from_bytes(file[:8], "little")
    return json.loads(file[8:end]), file[end:]
