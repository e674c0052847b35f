"""Newer models as diffusers has them, of the real width but of two blocks and without values, and its loaders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers.loaders import lora_pipeline
from torch import Tensor

from tests.files import newer

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "SD 3": (
        "SD3Transformer2DModel",
        "SD3",
        {"num_layers": 2, "num_attention_heads": 24, "caption_projection_dim": 1536},
    ),
    "Flux": ("FluxTransformer2DModel", "Flux", {"num_layers": 2, "num_single_layers": 2, "guidance_embeds": True}),
    "Chroma": ("ChromaTransformer2DModel", "Flux", {"num_layers": 2, "num_single_layers": 2}),
    "FLUX.2": ("Flux2Transformer2DModel", "Flux2", {"num_layers": 2, "num_single_layers": 2}),
    "Qwen-Image": ("QwenImageTransformer2DModel", "QwenImage", {"num_layers": 2}),
    "Z-Image": ("ZImageTransformer2DModel", "ZImage", {"n_layers": 2}),
    "Lumina 2": ("Lumina2Transformer2DModel", "Lumina2", {"num_layers": 2}),
    "Wan": (
        "WanTransformer3DModel",
        "Wan",
        {"num_layers": 2, "num_attention_heads": 12, "ffn_dim": 8960, "image_dim": 1280, "added_kv_proj_dim": 1536},
    ),
    "Krea 2": ("Krea2Transformer2DModel", "Krea2", {"num_layers": 2}),
    "Anima": ("CosmosTransformer3DModel", "Anima", {"num_layers": 2, "num_attention_heads": 16}),
    "ERNIE-Image": ("ErnieImageTransformer2DModel", "ErnieImage", {"num_layers": 2}),
    "HunyuanVideo": ("HunyuanVideoTransformer3DModel", "HunyuanVideo", {"num_layers": 2, "num_single_layers": 2}),
}
"""Family -> the model's class, how its loader's name begins, and the model's settings."""


@dataclass(frozen=True)
class Loader:
    """What diffusers makes of LoRAs for one model.

    sizes
        Its linear layers, by their names, with rows and columns.
    """

    family: str
    sizes: newer.Sizes

    @classmethod
    def of(cls, family: str) -> Loader:
        name, _, settings = MODELS[family]
        with torch.device("meta"):
            model = getattr(diffusers, name)(**settings)
        linear = {name: one for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)}
        return cls(family, {name: (one.out_features, one.in_features) for name, one in linear.items()})

    def loaded(self, state: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer by its own name -> up, down: what its pipelines would load. Raises what diffusers raises."""
        mixin = getattr(lora_pipeline, f"{MODELS[self.family][1]}LoraLoaderMixin")
        converted = mixin.lora_state_dict({name: tensor.clone() for name, tensor in state.items()})
        found = {}
        for name, down in converted.items():
            if name.endswith(".lora_A.weight"):
                module = name.removesuffix(".lora_A.weight")
                found[module.removeprefix("transformer.")] = converted[f"{module}.lora_B.weight"], down
        if 2 * len(found) != len(converted):
            raise ValueError("some tensors are no factors of PEFT's")
        return found
