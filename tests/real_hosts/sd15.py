"""The layers of Stable Diffusion 1.5 that a LoRA trainer changes, by their kohya names."""

from __future__ import annotations

from collections.abc import Iterator

from ..hosts.driver import Module


def _unet() -> Iterator[Module]:
    blocks = [(f"down_blocks_{i}", width, 2) for i, width in enumerate((320, 640, 1280))]
    blocks += [("mid_block", 1280, 1)]
    blocks += [(f"up_blocks_{i}", width, 3) for i, width in ((1, 1280), (2, 640), (3, 320))]
    for block, width, attentions in blocks:
        for j in range(attentions):
            name = f"lora_unet_{block}_attentions_{j}"
            yield Module(f"{name}_proj_in", width, width, 1)
            for attention, context in (("attn1", width), ("attn2", 768)):
                for layer, inp in (("to_q", width), ("to_k", context), ("to_v", context), ("to_out_0", width)):
                    yield Module(f"{name}_transformer_blocks_0_{attention}_{layer}", width, inp)
            yield Module(f"{name}_transformer_blocks_0_ff_net_0_proj", 8 * width, width)
            yield Module(f"{name}_transformer_blocks_0_ff_net_2", width, 4 * width)
            yield Module(f"{name}_proj_out", width, width, 1)
    for i, (inp, out) in enumerate(((320, 320), (320, 640), (640, 1280), (1280, 1280))):
        yield Module(f"lora_unet_down_blocks_{i}_resnets_0_conv1", out, inp, 3)
        yield Module(f"lora_unet_down_blocks_{i}_resnets_0_conv2", out, out, 3)


def _text_encoder() -> Iterator[Module]:
    for i in range(12):
        name = f"lora_te_text_model_encoder_layers_{i}"
        for projection in ("q", "k", "v", "out"):
            yield Module(f"{name}_self_attn_{projection}_proj", 768, 768)
        yield Module(f"{name}_mlp_fc1", 3072, 768)
        yield Module(f"{name}_mlp_fc2", 768, 3072)


MODULES = (*_text_encoder(), *_unet())

NORMS = tuple(
    Module(f"lora_unet_{block}_attentions_0_transformer_blocks_0_norm{i}", width, 0)
    for block, width in (("down_blocks_0", 320), ("mid_block", 1280))
    for i in (1, 3)
)
