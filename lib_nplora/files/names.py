"""How files spell their tensors and modules. A new spelling is one row of a table.

A tensor's name is a module's name and a role, such as `lora_unet_mid_block_attentions_0_proj_in` and `.lora_up.weight`.
Whatever a module's spelling, its canonical name is the one that kohya's scripts give it in diffusers' block naming:
`lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q`, `lora_te1_text_model_...`, `lora_te2_...`, and
`lora_te3_...` for a T5; for transformers see models/transformers.py.
"""

from __future__ import annotations

import re

from . import models, text_encoders
from .models import Family
from .slot import Slot

_ADAPTER = r"(?:\.[^.]+)?"
"""PEFT writes the adapter's name into a tensor's; it may hold any sign but a dot."""

_ROLES = (
    (r"\.lora_up\.weight", "up"),
    (r"\.lora_down\.weight", "down"),
    (r"\.lora_mid\.weight", "mid"),
    (rf"\.lora_B{_ADAPTER}\.weight", "up"),
    (rf"\.lora_A{_ADAPTER}\.weight", "down"),
    (r"[._]lora\.up\.weight", "up"),
    (r"[._]lora\.down\.weight", "down"),
    (r"(?<=_lora1|_lora2)\.up\.weight", "up"),
    (r"(?<=_lora1|_lora2)\.down\.weight", "down"),
    (r"\.lora_linear_layer\.up\.weight", "up"),
    (r"\.lora_linear_layer\.down\.weight", "down"),
    (rf"\.(?:lora_up|lora_B{_ADAPTER})\.bias", "lora_bias"),
    (rf"\.hada_(w[12]_[ab]|t[12]){_ADAPTER}", "hada_{}"),
    (rf"\.lokr_(w[12]|w[12]_[ab]|t2){_ADAPTER}", "lokr_{}"),
    (r"\.([ab][12]|bm)\.weight", "glora_{}"),
    (r"\.oft_(blocks|diag)", "oft_{}"),
    (r"\.rescale", "rescale"),
    (r"\.on_input", "on_input"),
    (r"\.dora_scale", "dora_scale"),
    (rf"\.lora_magnitude_vector{_ADAPTER}(?:\.weight)?", "magnitude"),
    (r"\.diff", "diff"),
    (r"\.w_norm", "norm"),
    (r"\.(?:diff_b|b_norm)", "bias"),
    (r"\.set_weight", "set"),
    (r"\.bias_(values|indices|size)", "sparse_{}"),
    (r"\.alpha", "alpha"),
    (r"(?<=query_norm)\.scale", "set"),
    (r"(?<=key_norm)\.scale", "set"),
    (r"\.scale", "scale"),
    (r"\.weight", "factor"),
)
"""How a tensor's name ends -> what the tensor is; a group's text goes into the role's braces."""

_REFUSED = (
    (r"\.lora_embedding_[AB]", "token-embedding"),
    (r"\.oft_blocks\.\d+$", "OFT by slices (kohya's for Flux)"),
    (r"\.oft_R(\.[^.]+)?\.weight$", "OFTv2"),
    (r"\.(?:[qp]_layer\.weight|lambda_layer)$", "T-LoRA"),
    (r"\.reshape_weight$", "layer-widening"),
    (r"\.lokr_t1$", "LoKr with a Tucker core in w1"),
    (r"\.ia3_l\b", "PEFT's IA3"),
    (r"\.(?:vera|hra|boft|fourierft|shira|c3a|randlora|road|miss|bone|delora|waveft)_\w+|\.lora_E\b", "other PEFT"),
    (
        r"\.(?:qweight|qzeros|wscales|weight_scale|scale_weight|input_scale|comfy_quant|SCB|absmax|quant_map)$",
        "quantised",
    ),
)
"""What a tensor's name holds -> the kind of network it belongs to, which cannot be fused."""


_WRAPPED = r"(?:base_model\.model\.)*((?:unet|transformer|text_encoder(?:_[23])?)\.)?(?:\1|base_model\.model\.)*"
"""How a module's name starts if PEFT wraps its model, or the component is said twice: `unet.unet.`, as in files of
diffusers 0.23."""


def _bare(*names: str) -> str:
    return rf"(?=(?:{'|'.join(names)})(?:\.|$))"


_PREFIXES = (
    (r"lora_unet__?|lora_transformer_|oft_unet_", "lora_unet_"),
    (r"(?:lora|oft)_te1?_", "lora_te1_"),
    (r"(?:lora|oft)_te2_", "lora_te2_"),
    (r"lora_te3_", "lora_te3_"),
    (r"lycoris_(?=text_model_)", "lora_te1_"),
    (r"lycoris_", "lora_unet_"),
    (r"(?:unet|transformer|(?:model\.)?diffusion_model)\.", "lora_unet_"),
    (r"text_encoder\.|(?:text_encoders\.)?clip_[lh]\.transformer\.", "lora_te1_"),
    (r"text_encoder_2\.|(?:text_encoders\.)?clip_g\.transformer\.", "lora_te2_"),
    (r"text_encoder_3\.|(?:text_encoders\.)?t5xxl\.transformer\.", "lora_te3_"),
)
_PREFIXES_OF_OTHER_TEXT = ((r"text_encoders\.\w+\.", "lora_te1_"),)
_PREFIXES_OF_BARE_TEXT = (
    (_bare("text_model", r"encoder\.layers"), "lora_te1_"),
    (_bare(r"encoder\.block"), "lora_te3_"),
)
"""How a module's name starts -> how its canonical name starts. Families add the names that stand for themselves."""


_WRITTEN = ((r"^oft_", "lora_"), (r"^lora_unet__$", "lora_unet_"))
"""Prefixes that no file of factors has, or not every host reads -> those that are written."""


def is_ignored(tensor: str) -> bool:
    """Whether the tensor may stand beside a LoRA without being part of it: a bundled textual inversion."""
    return tensor.startswith("bundle_emb.")


def split(tensor: str) -> tuple[str, str] | None:
    """The module's name as the file spells it, and the tensor's role; None if it is no tensor of a LoRA."""
    for ending, role in _ENDINGS:
        if match := ending.search(tensor):
            if match.start() == 0:
                continue
            return _unwrapped(tensor[: match.start()]), role.format(*match.groups())
    return None


def _unwrapped(module: str) -> str:
    """The name with nothing but its component before what the model calls it."""
    return re.sub(_WRAPPED, lambda match: match[1] or "", module, count=1)


def refused_kind(tensor: str) -> str | None:
    """The kind of network that the tensor belongs to, if it is known as one that cannot be fused."""
    return next((kind for pattern, kind in _REFUSED if re.search(pattern, tensor)), None)


def taken_apart(module: str) -> tuple[str, str, str]:
    """What a file that is written names the module's part by, its canonical prefix, and what the model calls it.

    A name that begins with no part is taken for one of the diffusion model.
    """
    for pattern, part in (*_PREFIXES, *_PREFIXES_OF_BARE_TEXT, *_PREFIXES_OF_OTHER_TEXT):
        if match := re.match(pattern, module):
            prefix = match[0]
            for read, written in _WRITTEN:
                prefix = re.sub(read, written, prefix)
            return prefix, part, module[match.end() :]
    return "", models.PREFIX, module


def flat(name: str) -> str:
    """The name with underscores for dots."""
    return name.replace(".", "_").removesuffix("_")


def slot_of(module: str, family: Family | None = None) -> Slot | None:
    """The slot of a module as files spell it; None if it belongs to no diffusion model and no text encoder.

    family
        The model's, if it is known.
    """
    of_models = [(_bare(pattern), models.PREFIX) for pattern in models.bare()]
    if family and family.is_apart:
        of_models = []
    for pattern, prefix in (*_PREFIXES, *of_models, *_PREFIXES_OF_BARE_TEXT):
        if match := re.match(pattern, module):
            rest = flat(module[match.end() :])
            return models.slot_of(rest, family) if prefix == models.PREFIX else text_encoders.slot_of(rest, prefix)
    return models.slot_of(flat(module), family) if family and family.is_apart else None


_ENDINGS = tuple((re.compile(rf"{ending}\Z"), role) for ending, role in _ROLES)
