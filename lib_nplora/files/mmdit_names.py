"""How Flux and Stable Diffusion 3 name their layers.

Facts: diffusers 0.42 loaders/lora_conversion_utils.py and scripts/convert_sd3_to_diffusers.py; the model code of Black
Forest Labs (BFL), Stability AI (SAI) and XLabs. Canonical is diffusers' naming with q, k and v fused, as BFL and SAI
have them, since all hosts but diffusers hold them so: `transformer_blocks_0_attn_qkv`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .place import MLP, Place

_FLUX_DOUBLE = {
    "img_attn.qkv": "attn.qkv",
    "txt_attn.qkv": "attn.add_qkv",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
}
_FLUX_SINGLE = {
    "linear1": "qkv_mlp",
    "linear2": "proj_out",
    "modulation.lin": "norm.linear",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}
_FLUX_SINGLES = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "final_layer.linear": "proj_out",
}
_SD3_JOINT = {
    "x_block.attn.qkv": "attn.qkv",
    "context_block.attn.qkv": "attn.add_qkv",
    "x_block.attn2.qkv": "attn2.qkv",
    "x_block.attn.proj": "attn.to_out.0",
    "context_block.attn.proj": "attn.to_add_out",
    "x_block.attn2.proj": "attn2.to_out.0",
    "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2",
    "context_block.mlp.fc1": "ff_context.net.0.proj",
    "context_block.mlp.fc2": "ff_context.net.2",
    "x_block.adaLN_modulation.1": "norm1.linear",
    "context_block.adaLN_modulation.1": "norm1_context.linear",
    "x_block.attn.ln_q": "attn.norm_q",
    "x_block.attn.ln_k": "attn.norm_k",
    "context_block.attn.ln_q": "attn.norm_added_q",
    "context_block.attn.ln_k": "attn.norm_added_k",
    "x_block.attn2.ln_q": "attn2.norm_q",
    "x_block.attn2.ln_k": "attn2.norm_k",
}
_SD3_SINGLES = {
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "final_layer.linear": "proj_out",
}
_SWAPPED = {"final_layer_adaLN_modulation_1", "context_block_adaLN_modulation_1"}
"""Rows are shift, scale where diffusers has scale, shift; the second only in the last block, twice as high as wide."""

_FUSED = {
    "attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "attn.add_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
}
_FUSED_SINGLE = {"qkv_mlp": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}
"""Fused layer -> its slices in diffusers, in the order of their rows."""

_XLABS_DOUBLE = {
    "processor_qkv_lora1": ("attn_qkv", None),
    "processor_qkv_lora2": ("attn_add_qkv", None),
    "processor_proj_lora1": ("attn_to_out_0", None),
    "processor_proj_lora2": ("attn_to_add_out", None),
}
_XLABS_SINGLE = {"processor_qkv": ("qkv_mlp", (0, MLP)), "processor_proj": ("proj_out", None)}

_Tails = dict[str, tuple[str, "tuple[int, int] | None"]]


def _flat(dotted: str) -> str:
    return dotted.replace(".", "_")


def _whole(table: Mapping[str, str]) -> _Tails:
    return {_flat(name): (_flat(ours), None) for name, ours in table.items()}


def _slices(table: Mapping[str, tuple[str, ...]]) -> _Tails:
    return {
        _flat(name): (_flat(fused), (slot, slot + 1))
        for fused, names in table.items()
        for slot, name in enumerate(names)
    }


_BLOCKS: dict[str, tuple[str, _Tails]] = {
    "double_blocks": ("transformer_blocks", {**_whole(_FLUX_DOUBLE), **_XLABS_DOUBLE}),
    "single_blocks": ("single_transformer_blocks", {**_whole(_FLUX_SINGLE), **_XLABS_SINGLE}),
    "joint_blocks": ("transformer_blocks", _whole(_SD3_JOINT)),
    "transformer_blocks": ("transformer_blocks", _slices(_FUSED)),
    "single_transformer_blocks": ("single_transformer_blocks", _slices(_FUSED_SINGLE)),
}
"""Blocks as files call them -> as diffusers does, and their layers: canonical tail, slots."""

_SINGLES = {**_whole(_FLUX_SINGLES), **_whole(_SD3_SINGLES)}

_DOTTED = {_flat(name): name for name in (*_FLUX_SINGLES.values(), *_SD3_SINGLES.values())}
_DOTTED_TAILS = {_flat(name): name for table in (_FLUX_DOUBLE, _FLUX_SINGLE, _SD3_JOINT) for name in table.values()}


def place(rest: str, prefix: str) -> Place | None:
    """The place of a layer named `rest`, dots already underscores; None if neither model has such a layer."""
    if match := re.fullmatch(rf"({'|'.join(_BLOCKS)})_(\d+)_(.+)", rest):
        block, tails = _BLOCKS[match[1]]
        tail, slots = tails.get(match[3], (match[3], None))
        if tail not in _DOTTED_TAILS:
            return None
        return Place(f"{prefix}{block}_{match[2]}_{tail}", slots, match[3] in _SWAPPED)
    if rest in _SINGLES:
        return Place(f"{prefix}{_SINGLES[rest][0]}", None, rest in _SWAPPED)
    return Place(f"{prefix}{rest}") if rest in _DOTTED else None


def dotted(layer: str) -> str | None:
    """The name in diffusers of a layer named `layer`, without prefix; None if neither model has such a layer."""
    if match := re.fullmatch(r"((?:single_)?transformer_blocks)_(\d+)_(.+)", layer):
        return f"{match[1]}.{match[2]}.{_DOTTED_TAILS[match[3]]}" if match[3] in _DOTTED_TAILS else None
    return _DOTTED.get(layer)


def slices(name: str, width: int) -> Iterator[tuple[str, int, int | None]]:
    """The slices that diffusers has of the fused layer `name`, as `dotted` calls it: (name, start, stop) of its rows.

    `width` is the layer's input width, and the height of q, k and v; mlp goes to the end.
    """
    head, tail = re.fullmatch(r"((?:single_)?transformer_blocks\.\d+\.)(.+)", name).groups()  # type: ignore[union-attr]
    for slot, piece in enumerate((_FUSED | _FUSED_SINGLE)[tail]):
        yield head + piece, slot * width, None if slot == MLP else (slot + 1) * width


def is_fused(name: str) -> bool:
    """Whether diffusers has the layer `name`, as `dotted` calls it, in slices."""
    return name.endswith((*_FUSED, *_FUSED_SINGLE))


def original(name: str, sd3: bool) -> str | None:
    """The name that BFL, or SAI, gives to the layer `name`, as `dotted` calls it; None if the model has none such."""
    if match := re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", name):
        double, block = (_SD3_JOINT, "joint_blocks") if sd3 else (_FLUX_DOUBLE, "double_blocks")
        table, block = (_FLUX_SINGLE, "single_blocks") if match[1] else (double, block)
        head, tail = f"{block}.{match[2]}.", match[3]
    else:
        table, head, tail = (_SD3_SINGLES if sd3 else _FLUX_SINGLES), "", name
    return next((head + theirs for theirs, ours in table.items() if ours == tail), None)
