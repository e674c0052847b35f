"""Checkpoints of random weights with the layers of Stable Diffusion 1.5 or SDXL, for hosts to load.

    python -m tests.real_hosts.checkpoint sd15 OUT.safetensors

Names and shapes are those of the original files: of LDM, OpenCLIP for SDXL's second text encoder, transformers for the
others. Pictures are noise, but what a LoRA does to the weights is real.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

Layers = Iterator[tuple[str, tuple[int, ...]]]
"""Names of tensors, and their shapes."""

DTYPES = {"fp16": ("F16", torch.float16), "bf16": ("BF16", torch.bfloat16), "fp32": ("F32", torch.float32)}
"""Their names in a file's header."""


@dataclass(frozen=True)
class Unet:
    """A UNet of 320 channels.

    multipliers
        What the channels are multiplied by, level by level.
    depths
        Layers of its transformers there.
    context
        Width of the text.
    linear
        Whether the transformers' ends are linear layers instead of convolutions.
    label
        Width of what is told besides, such as the picture's size; 0 if nothing is.
    """

    multipliers: tuple[int, ...]
    depths: tuple[int, ...]
    context: int
    linear: bool
    label: int


def _layer(name: str, out: int, inp: int, kernel: int = 0, bias: bool = True) -> Layers:
    yield f"{name}.weight", (out, inp, kernel, kernel) if kernel else (out, inp)
    if bias:
        yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Layers:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _residual(name: str, inp: int, out: int) -> Layers:
    yield from _norm(f"{name}.in_layers.0", inp)
    yield from _layer(f"{name}.in_layers.2", out, inp, 3)
    yield from _layer(f"{name}.emb_layers.1", out, 1280)
    yield from _norm(f"{name}.out_layers.0", out)
    yield from _layer(f"{name}.out_layers.3", out, out, 3)
    if inp != out:
        yield from _layer(f"{name}.skip_connection", out, inp, 1)


def _transformer(name: str, width: int, depth: int, model: Unet) -> Layers:
    kernel = 0 if model.linear else 1
    yield from _norm(f"{name}.norm", width)
    yield from _layer(f"{name}.proj_in", width, width, kernel)
    for i in range(depth):
        block = f"{name}.transformer_blocks.{i}"
        for attention, context in (("attn1", width), ("attn2", model.context)):
            for layer, inp in (("to_q", width), ("to_k", context), ("to_v", context)):
                yield from _layer(f"{block}.{attention}.{layer}", width, inp, bias=False)
            yield from _layer(f"{block}.{attention}.to_out.0", width, width)
        yield from _layer(f"{block}.ff.net.0.proj", 8 * width, width)
        yield from _layer(f"{block}.ff.net.2", width, 4 * width)
        for number in (1, 2, 3):
            yield from _norm(f"{block}.norm{number}", width)
    yield from _layer(f"{name}.proj_out", width, width, kernel)


def unet(model: Unet, prefix: str = "model.diffusion_model.") -> Layers:
    """The tensors of a UNet."""
    yield from _layer(f"{prefix}time_embed.0", 1280, 320)
    yield from _layer(f"{prefix}time_embed.2", 1280, 1280)
    if model.label:
        yield from _layer(f"{prefix}label_emb.0.0", 1280, model.label)
        yield from _layer(f"{prefix}label_emb.0.2", 1280, 1280)
    yield from _layer(f"{prefix}input_blocks.0.0", 320, 4, 3)
    levels = list(zip(model.multipliers, model.depths))
    width, skips = 320, [320]
    for level, (multiplier, depth) in enumerate(levels):
        for _ in range(2):
            block = f"{prefix}input_blocks.{len(skips)}"
            yield from _residual(f"{block}.0", width, 320 * multiplier)
            width = 320 * multiplier
            if depth:
                yield from _transformer(f"{block}.1", width, depth, model)
            skips.append(width)
        if level < len(levels) - 1:
            yield from _layer(f"{prefix}input_blocks.{len(skips)}.0.op", width, width, 3)
            skips.append(width)
    yield from _residual(f"{prefix}middle_block.0", width, width)
    yield from _transformer(f"{prefix}middle_block.1", width, max(model.depths), model)
    yield from _residual(f"{prefix}middle_block.2", width, width)
    for number, (level, turn) in enumerate(product(range(len(levels) - 1, -1, -1), range(3))):
        multiplier, depth = levels[level]
        block = f"{prefix}output_blocks.{number}"
        yield from _residual(f"{block}.0", width + skips.pop(), 320 * multiplier)
        width = 320 * multiplier
        if depth:
            yield from _transformer(f"{block}.1", width, depth, model)
        if level and turn == 2:
            yield from _layer(f"{block}.{2 if depth else 1}.conv", width, width, 3)
    yield from _norm(f"{prefix}out.0", 320)
    yield from _layer(f"{prefix}out.2", 4, 320, 3)


def _vae_block(name: str, inp: int, out: int) -> Layers:
    yield from _norm(f"{name}.norm1", inp)
    yield from _layer(f"{name}.conv1", out, inp, 3)
    yield from _norm(f"{name}.norm2", out)
    yield from _layer(f"{name}.conv2", out, out, 3)
    if inp != out:
        yield from _layer(f"{name}.nin_shortcut", out, inp, 1)


def vae(prefix: str = "first_stage_model.", latent: int = 4) -> Layers:
    """The tensors of an autoencoder with so many channels between its halves; both models have it with 4."""
    widths = (128, 256, 512, 512)
    yield from _layer(f"{prefix}encoder.conv_in", 128, 3, 3)
    width = 128
    for level, block in product(range(4), range(2)):
        yield from _vae_block(f"{prefix}encoder.down.{level}.block.{block}", width, widths[level])
        width = widths[level]
        if block == 1 and level < 3:
            yield from _layer(f"{prefix}encoder.down.{level}.downsample.conv", width, width, 3)
    for part in ("encoder", "decoder"):
        yield from _vae_block(f"{prefix}{part}.mid.block_1", 512, 512)
        yield from _norm(f"{prefix}{part}.mid.attn_1.norm", 512)
        for layer in ("q", "k", "v", "proj_out"):
            yield from _layer(f"{prefix}{part}.mid.attn_1.{layer}", 512, 512, 1)
        yield from _vae_block(f"{prefix}{part}.mid.block_2", 512, 512)
    yield from _norm(f"{prefix}encoder.norm_out", 512)
    yield from _layer(f"{prefix}encoder.conv_out", 2 * latent, 512, 3)
    yield from _layer(f"{prefix}decoder.conv_in", 512, latent, 3)
    for level, block in product((3, 2, 1, 0), range(3)):
        yield from _vae_block(f"{prefix}decoder.up.{level}.block.{block}", width, widths[level])
        width = widths[level]
        if block == 2 and level:
            yield from _layer(f"{prefix}decoder.up.{level}.upsample.conv", width, width, 3)
    yield from _norm(f"{prefix}decoder.norm_out", 128)
    yield from _layer(f"{prefix}decoder.conv_out", 3, 128, 3)
    yield from _layer(f"{prefix}quant_conv", 2 * latent, 2 * latent, 1)
    yield from _layer(f"{prefix}post_quant_conv", latent, latent, 1)


def clip_l(prefix: str) -> Layers:
    """The tensors of the text encoder that both models have."""
    yield f"{prefix}embeddings.token_embedding.weight", (49408, 768)
    yield f"{prefix}embeddings.position_embedding.weight", (77, 768)
    for i in range(12):
        layer = f"{prefix}encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _layer(f"{layer}.self_attn.{name}", 768, 768)
        yield from _norm(f"{layer}.layer_norm1", 768)
        yield from _norm(f"{layer}.layer_norm2", 768)
        yield from _layer(f"{layer}.mlp.fc1", 3072, 768)
        yield from _layer(f"{layer}.mlp.fc2", 768, 3072)
    yield from _norm(f"{prefix}final_layer_norm", 768)


def clip_g(prefix: str) -> Layers:
    """The tensors of SDXL's second text encoder, q, k and v in one."""
    yield f"{prefix}token_embedding.weight", (49408, 1280)
    yield f"{prefix}positional_embedding", (77, 1280)
    yield f"{prefix}text_projection", (1280, 1280)
    yield f"{prefix}logit_scale", ()
    for i in range(32):
        layer = f"{prefix}transformer.resblocks.{i}"
        yield f"{layer}.attn.in_proj_weight", (3840, 1280)
        yield f"{layer}.attn.in_proj_bias", (3840,)
        yield from _layer(f"{layer}.attn.out_proj", 1280, 1280)
        yield from _norm(f"{layer}.ln_1", 1280)
        yield from _norm(f"{layer}.ln_2", 1280)
        yield from _layer(f"{layer}.mlp.c_fc", 5120, 1280)
        yield from _layer(f"{layer}.mlp.c_proj", 1280, 5120)
    yield from _norm(f"{prefix}ln_final", 1280)


def sd15() -> Layers:
    """The tensors of Stable Diffusion 1.5."""
    yield from unet(Unet((1, 2, 4, 4), (1, 1, 1, 0), context=768, linear=False, label=0))
    yield from vae()
    yield from clip_l("cond_stage_model.transformer.text_model.")


def sdxl() -> Layers:
    """The tensors of SDXL."""
    yield from unet(Unet((1, 2, 4), (0, 2, 10), context=2048, linear=True, label=2816))
    yield from vae()
    yield from clip_l("conditioner.embedders.0.transformer.text_model.")
    yield from clip_g("conditioner.embedders.1.model.")


MODELS = {"sd15": sd15, "sdxl": sdxl}


def _scale(name: str, shape: tuple[int, ...]) -> float:
    """How large random values are, so that neither pictures nor texts fade or overflow."""
    if "embedding" in name:
        return 0.05
    return 0.6 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.01


def write(path: Path, layers: Layers, dtype: str = "fp16", seed: int = 0) -> Path:
    """Write a checkpoint, one tensor at a time: it may be larger than the memory."""
    format_name, torch_dtype = DTYPES[dtype]
    shapes = dict(layers)
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * torch_dtype.itemsize
        header[name] = {"dtype": format_name, "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(seed)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            values = torch.randn(shape, generator=generator) * _scale(name, shape)
            if len(shape) == 1 and name.endswith("weight"):
                values.fill_(1)
            file.write(values.to(torch_dtype).reshape(-1).view(torch.uint8).numpy().data)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.real_hosts.checkpoint", description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write(arguments.out, MODELS[arguments.model](), arguments.dtype, arguments.seed)


if __name__ == "__main__":
    main()
