"""A FLUX.2 Klein 4B with random weights, two blocks deep, and random LoRAs of it.

The transformer and the VAE are as wide as those of the public configuration. The text encoder has as many layers as the
host reads the hidden states of, and a small width: see small_encoder.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..files import newer
from ..hosts.contract.loras import GAINS
from ..reference.matrices import Factors
from .checkpoint import vae

WIDTH = 3072
HEAD = 128
ENCODER_WIDTH = 64
ENCODER_LAYERS = 28
"""The host takes the hidden states before the 10th, the 19th and the 28th."""
VOCABULARY = 151936
LATENT = 32
PACKED = 4 * LATENT

Shape = tuple[int, ...]
Updates = dict[str, list[Factors]]
"""Layer by kohya's name -> what its slices of rows get; one update if they are not told apart."""

DOUBLE = {
    f"double_blocks.0.{of}_{layer}": (rows * WIDTH, columns * WIDTH)
    for of in ("img", "txt")
    for layer, rows, columns in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.0", 6, 1), ("mlp.2", 1, 3))
}
SINGLE = {"single_blocks.0.linear1": (9 * WIDTH, WIDTH), "single_blocks.0.linear2": (WIDTH, 4 * WIDTH)}
BLOCKS: dict[str, Shape] = {**DOUBLE, **SINGLE}
"""The layers that trainers change, in the model's own names, with rows and columns."""

SPLIT = {
    "double_blocks.0.img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "double_blocks.0.txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "double_blocks.0.img_attn.proj": ("attn.to_out.0",),
    "double_blocks.0.txt_attn.proj": ("attn.to_add_out",),
    "double_blocks.0.img_mlp.0": ("ff.linear_in",),
    "double_blocks.0.img_mlp.2": ("ff.linear_out",),
    "double_blocks.0.txt_mlp.0": ("ff_context.linear_in",),
    "double_blocks.0.txt_mlp.2": ("ff_context.linear_out",),
    "single_blocks.0.linear1": ("attn.to_qkv_mlp_proj",),
    "single_blocks.0.linear2": ("attn.to_out",),
}
"""Layer -> what diffusers has in its place, from its first row on."""


def write_checkpoint(path: Path) -> Path:
    """Weights of the host's layout, in bfloat16 as the public ones."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        **{f"model.diffusion_model.{name}": tensor for name, tensor in _made(_transformer(), generator)},
        **{f"text_encoders.qwen3_4b.transformer.model.{name}": tensor for name, tensor in _made(_encoder(), generator)},
        **dict(_made(vae("vae.", LATENT), generator)),
        "vae.bn.running_mean": torch.zeros(PACKED),
        "vae.bn.running_var": torch.ones(PACKED),
        "vae.bn.num_batches_tracked": torch.tensor(0),
    }
    save_file(tensors, path)
    return path


def diffusers_lora(path: Path, *, seed: int, rank: int) -> Updates:
    """Write a LoRA under diffusers' names, some of which are slices of a layer."""
    shapes = {}
    for layer, names in SPLIT.items():
        rows, columns = BLOCKS[layer]
        shapes |= {diffusers_name(layer, name): (rows // len(names), columns) for name in names}
    lora = _random(shapes, seed, rank)
    newer.write(path, newer.comfyui(lora, prefix="transformer."), newer.HEADERS["FLUX.2"])
    return {
        kohya_name(layer): [_float64(*lora[diffusers_name(layer, name)]) for name in names]
        for layer, names in SPLIT.items()
    }


def kohya_lora(path: Path, *, seed: int, rank: int, alpha: float, near: Updates) -> Updates:
    """Write a LoRA that has the layers whole, under kohya's names, and half of its input side from another.

    Some layers are stronger than others, so that they lose them to another at different steps.
    """
    lora = _random(BLOCKS, seed, rank)
    for (name, (up, down)), gain in zip(lora.items(), itertools.cycle(GAINS)):
        _, other = near[kohya_name(name)][0]
        lora[name] = gain * up, (down + torch.from_numpy(other[:rank]).float()) / 2**0.5
    state = newer.kohya(lora)
    state |= {name: torch.tensor(alpha) for name in state if name.endswith(".alpha")}
    newer.write(path, state, newer.HEADERS["FLUX.2"])
    return {kohya_name(name): [_float64(up * alpha / rank, down)] for name, (up, down) in lora.items()}


def kohya_name(layer: str) -> str:
    return f"lora_unet_{layer.replace('.', '_')}"


def diffusers_name(layer: str, name: str) -> str:
    return f"{'single_' if layer in SINGLE else ''}transformer_blocks.0.{name}"


def _random(shapes: Mapping[str, Shape], seed: int, rank: int) -> newer.Lora:
    """Updates as strong as the weights."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            torch.randn(rows, rank, generator=generator) / rank**0.5,
            torch.randn(rank, columns, generator=generator) / columns**0.5,
        )
        for name, (rows, columns) in shapes.items()
    }


def _float64(up: Tensor, down: Tensor) -> Factors:
    return up.double().numpy(), down.double().numpy()


def _made(shapes: Iterator[tuple[str, Shape]], generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Weights that keep the size of what they are given; of vectors, 1 for scales and 0 for biases."""
    for name, shape in shapes:
        if len(shape) == 1:
            yield name, torch.full(shape, 0.0 if name.endswith(".bias") else 1.0, dtype=torch.bfloat16)
        else:
            fan_in = torch.Size(shape[1:]).numel()
            yield name, (torch.randn(shape, generator=generator) / fan_in**0.5).bfloat16()


def _transformer() -> Iterator[tuple[str, Shape]]:
    linear = {
        **BLOCKS,
        "img_in": (WIDTH, PACKED),
        "txt_in": (WIDTH, 3 * ENCODER_WIDTH),
        "time_in.in_layer": (WIDTH, 256),
        "time_in.out_layer": (WIDTH, WIDTH),
        "double_stream_modulation_img.lin": (6 * WIDTH, WIDTH),
        "double_stream_modulation_txt.lin": (6 * WIDTH, WIDTH),
        "single_stream_modulation.lin": (3 * WIDTH, WIDTH),
        "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH),
        "final_layer.linear": (PACKED, WIDTH),
    }
    for name, shape in linear.items():
        yield f"{name}.weight", shape
    for block in ("double_blocks.0.img_attn", "double_blocks.0.txt_attn", "single_blocks.0"):
        yield f"{block}.norm.query_norm.scale", (HEAD,)
        yield f"{block}.norm.key_norm.scale", (HEAD,)


def _encoder() -> Iterator[tuple[str, Shape]]:
    wide = 2 * ENCODER_WIDTH
    yield "embed_tokens.weight", (VOCABULARY, ENCODER_WIDTH)
    for i in range(ENCODER_LAYERS):
        for name in ("q", "k", "v"):
            yield f"layers.{i}.self_attn.{name}_proj.weight", (HEAD, ENCODER_WIDTH)
        yield f"layers.{i}.self_attn.o_proj.weight", (ENCODER_WIDTH, HEAD)
        for name in ("gate", "up"):
            yield f"layers.{i}.mlp.{name}_proj.weight", (wide, ENCODER_WIDTH)
        yield f"layers.{i}.mlp.down_proj.weight", (ENCODER_WIDTH, wide)
        for name in ("self_attn.q_norm", "self_attn.k_norm"):
            yield f"layers.{i}.{name}.weight", (HEAD,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"layers.{i}.{name}.weight", (ENCODER_WIDTH,)
    yield "norm.weight", (ENCODER_WIDTH,)
