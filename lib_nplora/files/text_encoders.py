"""How CLIP text encoders and T5 name their layers, in files of every model family."""

from __future__ import annotations

import re

from .slot import Slot

T5 = "lora_te3_"
"""Canonical names of a T5's layers start so; no model with a UNet reads its text."""

PREFIXES = ("lora_te1_", "lora_te2_", T5)
"""Canonical names of the layers of CLIP-L, of CLIP-G, and of a T5 start so."""

_REWRITES = (
    (r"^(?=encoder_|embeddings_|final_layer_norm)", "text_model_"),
    (r"_to_([qkv])$", r"_\1_proj"),
    (r"_to_out$", "_out_proj"),
)
"""Older and newer spellings of diffusers and transformers -> kohya's, after the prefix, dots already underscores."""

_CLIP = r"text_model_|text_projection"
_T5 = r"encoder_|shared|final_layer_norm"
"""How the name of every layer of such an encoder starts, after the prefix."""

_TEXT_ENCODERS = {"lora_te1_": "text_encoder.", "lora_te2_": "text_encoder_2."}
_TEXT_MODEL = (
    (r"^text_model_", "text_model."),
    (r"(encoder|embeddings)_(layers_(\d+)_)?", lambda m: f"{m[1]}." + (f"layers.{m[3]}." if m[2] else "")),
    (r"(self_attn|mlp)_", r"\1."),
)


def is_text(layer: str) -> bool:
    """Whether a canonical name is that of a text encoder's layer."""
    return layer.startswith(PREFIXES)


def slot_of(rest: str, prefix: str) -> Slot | None:
    """The slot of a layer named `rest`, dots already underscores, of the text encoder that `prefix` stands for.

    None if no CLIP and no T5 has such a layer: other models read their texts with language models.
    """
    if rest.startswith("encoder_block_"):
        prefix = T5
    if prefix != T5:
        for wrong, right in _REWRITES:
            rest = re.sub(wrong, right, rest)
    return Slot(prefix + rest) if re.match(_T5 if prefix == T5 else _CLIP, rest) else None


def in_diffusers(name: str) -> str:
    """The name in diffusers of a layer by its canonical name; a T5's stays kohya's."""
    for prefix, theirs in _TEXT_ENCODERS.items():
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            for pattern, replacement in _TEXT_MODEL:
                rest = re.sub(pattern, replacement, rest, count=1)
            return theirs + rest
    return name
