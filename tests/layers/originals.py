"""The names that the makers of the models gave the layers, each beside those of diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Names = Mapping[str, Sequence[str]]
"""Original name -> the layers of diffusers that are the same layer, or its slices."""

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}
_TRANSFORMER_BLOCK = (
    *("norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2"),
    *(f"{attention}.{layer}" for attention in ("attn1", "attn2") for layer in ("to_q", "to_k", "to_v", "to_out.0")),
)
_ENDS = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_SDXL_ENDS = {"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2"}


def _resnet(theirs: str, ours: str, shortcut: bool) -> dict[str, str]:
    layers = _RESNET | ({"skip_connection": "conv_shortcut"} if shortcut else {})
    return {f"{theirs}.{original}": f"{ours}.{name}" for original, name in layers.items()}


def _transformer(theirs: str, ours: str, depth: int) -> dict[str, str]:
    blocks = [f"transformer_blocks.{i}.{layer}" for i in range(depth) for layer in _TRANSFORMER_BLOCK]
    return {f"{theirs}.{name}": f"{ours}.{name}" for name in ("norm", "proj_in", "proj_out", *blocks)}


def unet(widths: Sequence[int], depths: Sequence[int], middle: int) -> dict[str, str]:
    """A UNet in the original code: the levels' widths, the depths of their transformers (0: none), the middle's."""
    found = dict(_ENDS)
    number = 0
    for level, (width, depth) in enumerate(zip(widths, depths)):
        for layer in range(2):
            number += 1
            wider = layer == 0 and level > 0 and width != widths[level - 1]
            found |= _resnet(f"input_blocks.{number}.0", f"down_blocks.{level}.resnets.{layer}", wider)
            if depth:
                found |= _transformer(f"input_blocks.{number}.1", f"down_blocks.{level}.attentions.{layer}", depth)
        if level < len(widths) - 1:
            number += 1
            found[f"input_blocks.{number}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
    found |= _resnet("middle_block.0", "mid_block.resnets.0", False)
    found |= _transformer("middle_block.1", "mid_block.attentions.0", middle)
    found |= _resnet("middle_block.2", "mid_block.resnets.1", False)
    for level, depth in enumerate(reversed(depths)):
        for layer in range(3):
            block = f"output_blocks.{3 * level + layer}"
            found |= _resnet(f"{block}.0", f"up_blocks.{level}.resnets.{layer}", True)
            if depth:
                found |= _transformer(f"{block}.1", f"up_blocks.{level}.attentions.{layer}", depth)
        if level < len(widths) - 1:
            found[f"{block}.{2 if depth else 1}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
    return found


_FLUX_DOUBLE = {
    "img_attn.qkv": "attn.to_q attn.to_k attn.to_v",
    "txt_attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
}
_FLUX_SINGLE = {
    "linear1": "attn.to_q attn.to_k attn.to_v proj_mlp",
    "linear2": "proj_out",
    "modulation.lin": "norm.linear",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}
_TRANSFORMER_ENDS = {"final_layer.adaLN_modulation.1": "norm_out.linear", "final_layer.linear": "proj_out"}
_FLUX_ENDS = _TRANSFORMER_ENDS | {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    **{
        f"{theirs}_in.{end}": f"time_text_embed.{ours}_embedder.{linear}"
        for theirs, ours in (("time", "timestep"), ("vector", "text"), ("guidance", "guidance"))
        for end, linear in (("in_layer", "linear_1"), ("out_layer", "linear_2"))
    },
}
_SD3_ENDS = _TRANSFORMER_ENDS | {
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
}
_SD3_PICTURE = {
    "x_block.attn.qkv": "attn.to_q attn.to_k attn.to_v",
    "x_block.attn.proj": "attn.to_out.0",
    "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2",
    "x_block.adaLN_modulation.1": "norm1.linear",
    "context_block.attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
    "context_block.adaLN_modulation.1": "norm1_context.linear",
}
_SD3_TEXT = {
    "context_block.attn.proj": "attn.to_add_out",
    "context_block.mlp.fc1": "ff_context.net.0.proj",
    "context_block.mlp.fc2": "ff_context.net.2",
}
_SD3_NORMS = {
    "x_block.attn.ln_q": "attn.norm_q",
    "x_block.attn.ln_k": "attn.norm_k",
    "context_block.attn.ln_q": "attn.norm_added_q",
    "context_block.attn.ln_k": "attn.norm_added_k",
}
_SD3_SECOND = {
    "x_block.attn2.qkv": "attn2.to_q attn2.to_k attn2.to_v",
    "x_block.attn2.proj": "attn2.to_out.0",
    "x_block.attn2.ln_q": "attn2.norm_q",
    "x_block.attn2.ln_k": "attn2.norm_k",
}


def _block(theirs: str, ours: str, layers: Mapping[str, str]) -> dict[str, list[str]]:
    return {f"{theirs}.{original}": [f"{ours}.{name}" for name in names.split()] for original, names in layers.items()}


def flux() -> dict[str, list[str]]:
    found = {original: [name] for original, name in _FLUX_ENDS.items()}
    for i in range(19):
        found |= _block(f"double_blocks.{i}", f"transformer_blocks.{i}", _FLUX_DOUBLE)
    for i in range(38):
        found |= _block(f"single_blocks.{i}", f"single_transformer_blocks.{i}", _FLUX_SINGLE)
    return found


def sd3(second: int = 0) -> dict[str, list[str]]:
    """Stable Diffusion 3, whose last block drops the text; 3.5 has norms, and its first `second` blocks an attn2."""
    found = {original: [name] for original, name in _SD3_ENDS.items()}
    for i in range(24):
        layers = _SD3_PICTURE | (_SD3_TEXT if i < 23 else {}) | (_SD3_NORMS if second else {})
        found |= _block(f"joint_blocks.{i}", f"transformer_blocks.{i}", layers | (_SD3_SECOND if i < second else {}))
    return found


DIFFUSION_MODELS: dict[str, Names] = {
    "SD 1.5": {original: [name] for original, name in unet((1, 2, 4, 4), (1, 1, 1, 0), 1).items()},
    "SDXL": {original: [name] for original, name in (unet((1, 2, 4), (0, 2, 10), 10) | _SDXL_ENDS).items()},
    "SD 3": sd3(),
    "SD 3.5": sd3(second=13),
    "Flux": flux(),
}


def open_clip(layers: int) -> dict[str, str]:
    """CLIP-G as OpenCLIP names it, and A1111 its layers; q, k and v, which are one weight there, as A1111 does."""
    inner = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        **{f"attn.{name}_proj": f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")},
    }
    found = {"token_embedding": "text_model.embeddings.token_embedding", "ln_final": "text_model.final_layer_norm"}
    for i in range(layers):
        found |= {f"transformer.resblocks.{i}.{a}": f"text_model.encoder.layers.{i}.{b}" for a, b in inner.items()}
    return found
