"""The layers of Stable Diffusion 1.5 that a LoRA trainer changes, by their kohya names."""

from __future__ import annotations

from collections.abc import Iterator

from ..hosts.driver import Module


def transformer(name: str, width: int, context: int, depth: int, kernel: int) -> Iterator[Module]:
    """A transformer of a UNet, whose ends have a kernel, or none if they are linear layers."""
    yield Module(f"{name}_proj_in", width, width, kernel)
    for i in range(depth):
        for attention, inp_of_text in (("attn1", width), ("attn2", context)):
            for layer, inp in (("to_q", width), ("to_k", inp_of_text), ("to_v", inp_of_text), ("to_out_0", width)):
                yield Module(f"{name}_transformer_blocks_{i}_{attention}_{layer}", width, inp)
        yield Module(f"{name}_transformer_blocks_{i}_ff_net_0_proj", 8 * width, width)
        yield Module(f"{name}_transformer_blocks_{i}_ff_net_2", width, 4 * width)
    yield Module(f"{name}_proj_out", width, width, kernel)


def text_encoder(prefix: str, layers: int, width: int) -> Iterator[Module]:
    """A text encoder of that many layers."""
    for i in range(layers):
        name = f"{prefix}_text_model_encoder_layers_{i}"
        for projection in ("q", "k", "v", "out"):
            yield Module(f"{name}_self_attn_{projection}_proj", width, width)
        yield Module(f"{name}_mlp_fc1", 4 * width, width)
        yield Module(f"{name}_mlp_fc2", width, 4 * width)


def _unet() -> Iterator[Module]:
    blocks = [(f"down_blocks_{i}", width, 2) for i, width in enumerate((320, 640, 1280))]
    blocks += [("mid_block", 1280, 1)]
    blocks += [(f"up_blocks_{i}", width, 3) for i, width in ((1, 1280), (2, 640), (3, 320))]
    for block, width, attentions in blocks:
        for j in range(attentions):
            yield from transformer(f"lora_unet_{block}_attentions_{j}", width, context=768, depth=1, kernel=1)
    for i, (inp, out) in enumerate(((320, 320), (320, 640), (640, 1280), (1280, 1280))):
        yield Module(f"lora_unet_down_blocks_{i}_resnets_0_conv1", out, inp, 3)
        yield Module(f"lora_unet_down_blocks_{i}_resnets_0_conv2", out, out, 3)


MODULES = (*text_encoder("lora_te", layers=12, width=768), *_unet())

NORMS = tuple(
    Module(f"lora_unet_{block}_attentions_0_transformer_blocks_0_norm{i}", width, 0)
    for block, width in (("down_blocks_0", 320), ("mid_block", 1280))
    for i in (1, 3)
)
