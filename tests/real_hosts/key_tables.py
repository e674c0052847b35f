"""Print, as JSON, under which names a host looks for LoRAs of the models that it has: run by the host's own Python.

    cd HOST && venv/bin/python .../key_tables.py neo

The networks of each family, its text encoders among them, are made as the host makes them, of the real size but for
their depth, and without values. `shapes`: the weights of their linear layers and convolutions, those of text encoders
but for the projection of a CLIP, which has no name in Neo. `names`: what the host maps on weights of the model, as a
weight, the rows of it, and whether their halves are exchanged.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

HOST = sys.argv[1]
sys.argv = [sys.argv[0], {"neo": "--cpu", "forge": "--always-cpu"}[HOST]]
sys.path[:0] = [".", "modules_forge/packages", "packages_3rdparty", "repositories/huggingface_guess"]

UNET: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "num_head_channels": 64,
}
SD1: dict[str, Any] = {
    **UNET,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "context_dim": 768,
}
SD2: dict[str, Any] = {**SD1, "context_dim": 1024, "use_linear_in_transformer": True}
SDXL: dict[str, Any] = {
    **UNET,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "context_dim": 2048,
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
}
SD3: dict[str, Any] = {
    "input_size": None,
    "in_channels": 16,
    "depth": 24,
    "adm_in_channels": 2048,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": 4096, "out_features": 1536},
    },
    "pos_embed_max_size": 192,
    "num_patches": 36864,
    "qk_norm": "rms",
    "x_block_self_attn_layers": list(range(13)),
}
FLUX: dict[str, Any] = {
    "in_channels": 16,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "mlp_ratio": 4.0,
    "num_heads": 24,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "qkv_bias": True,
}
OF_NEO = {"out_channels": 16, "patch_size": 2, "txt_ids_dims": []}
CHROMA: dict[str, Any] = {**FLUX, "in_channels": 64}
KLEIN: dict[str, Any] = {
    **FLUX,
    **OF_NEO,
    "in_channels": 128,
    "out_channels": 128,
    "vec_in_dim": None,
    "context_in_dim": 7680,
    "mlp_ratio": 3.0,
    "axes_dim": [32, 32, 32, 32],
    "patch_size": 1,
    "qkv_bias": False,
    "guidance_embed": False,
    "global_modulation": True,
    "mlp_silu_act": True,
    "ops_bias": False,
    "txt_ids_dims": [3],
}
LUMINA: dict[str, Any] = {
    "in_channels": 16,
    "dim": 2304,
    "cap_feat_dim": 2304,
    "n_layers": 2,
    "qk_norm": True,
    "n_heads": 24,
    "n_kv_heads": 8,
    "axes_dims": [32, 32, 32],
    "axes_lens": [300, 512, 512],
    "ffn_dim_multiplier": 4.0,
}
Z_IMAGE: dict[str, Any] = {
    **LUMINA,
    "dim": 3840,
    "cap_feat_dim": 2560,
    "n_heads": 30,
    "n_kv_heads": 30,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512],
    "ffn_dim_multiplier": 8.0 / 3.0,
    "z_image_modulation": True,
}
WAN: dict[str, Any] = {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 2}
ANIMA: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 2048,
    "num_blocks": 2,
}


def clip(width: int) -> Any:
    from backend.nn.clip import IntegratedCLIP
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2, num_attention_heads=width // 64
    )
    return IntegratedCLIP(CLIPTextModel, config, add_text_projection=True)


def t5(vocabulary: int = 32128) -> Any:
    from backend.nn.t5 import IntegratedT5

    config = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 2, "vocab_size": vocabulary}
    kind = {"model_type": "t5", "is_gated_act": True, "dense_act_fn": "gelu_pytorch_tanh"}
    return IntegratedT5({**config, **kind})


def language_model(name: str) -> Any:
    import torch
    from backend.operations import using_forge_operations

    with using_forge_operations(device="meta", dtype=torch.float32):
        return getattr(importlib.import_module("backend.nn.llm.llama"), name)({})


ENCODERS: dict[str, Callable[[], Any]] = {
    "clip_l": lambda: clip(768),
    "clip_h": lambda: clip(1024),
    "clip_g": lambda: clip(1280),
    "t5xxl": t5,
    "umt5xxl": lambda: t5(256384),
    "qwen3": lambda: language_model("Qwen3_4B"),
    "qwen3_06b": lambda: language_model("Qwen3_06B"),
    "qwen3vl_4b": lambda: language_model("Qwen3VL"),
    "qwen25_7b": lambda: language_model("Qwen25_7BVLI"),
    "gemma2": lambda: language_model("Gemma2_2B"),
    "ministral3": lambda: language_model("Ministral3_3B"),
}
"""Text encoder, as the hosts call it -> its network."""

TEXTS = {
    "SD 1": ("clip_l",),
    "SD 2": ("clip_h",),
    "SDXL": ("clip_l", "clip_g"),
    "SD 3": ("clip_l", "clip_g", "t5xxl"),
    "Flux": ("clip_l", "t5xxl"),
    "Chroma": ("t5xxl",),
    "FLUX.2": ("qwen3",),
    "Lumina 2": ("gemma2",),
    "Z-Image": ("qwen3",),
    "Wan": ("umt5xxl",),
    "Anima": ("qwen3_06b",),
    "Qwen-Image": ("qwen25_7b",),
    "Krea 2": ("qwen3vl_4b",),
    "ERNIE-Image": ("ministral3",),
}
"""Family -> its text encoders."""

_UNET = ("backend.nn.unet", "IntegratedUNet2DConditionModel")

MODELS: dict[str, dict[str, tuple[str, str, str, dict[str, Any]]]] = {
    "neo": {
        "SD 1": (*_UNET, "SD15", SD1),
        "SDXL": (*_UNET, "SDXL", SDXL),
        "Flux": (
            "backend.nn.flux",
            "IntegratedFluxTransformer2DModel",
            "Flux",
            {**FLUX, **OF_NEO, "guidance_embed": True},
        ),
        "FLUX.2": ("backend.nn.flux", "IntegratedFluxTransformer2DModel", "Flux2K4B", KLEIN),
        "Chroma": (
            "backend.nn.chroma",
            "IntegratedChromaTransformer2DModel",
            "Chroma",
            {**CHROMA, **OF_NEO, "in_dim": 64, "out_dim": 3072, "hidden_dim": 5120, "n_layers": 5},
        ),
        "Lumina 2": ("backend.nn.lumina", "NextDiT", "Lumina2", LUMINA),
        "Z-Image": ("backend.nn.lumina", "NextDiT", "ZImage", Z_IMAGE),
        "Wan": ("backend.nn.wan", "WanModel", "WAN21_I2V", {**WAN, "model_type": "i2v", "in_dim": 36}),
        "Anima": ("backend.nn.anima", "Anima", "Anima", ANIMA),
        "Qwen-Image": ("backend.nn.qwen", "QwenImageTransformer2DModel", "QwenImage", {"num_layers": 2}),
        "Krea 2": ("backend.nn.krea", "SingleStreamDiT", "Krea2", {"layers": 2}),
        "ERNIE-Image": ("backend.nn.ernie", "ErnieImageModel", "ErnieImage", {"num_layers": 2}),
    },
    "forge": {
        "SD 1": (*_UNET, "SD15", SD1),
        "SD 2": (*_UNET, "SD20", SD2),
        "SDXL": (*_UNET, "SDXL", SDXL),
        "SD 3": ("backend.nn.mmditx", "MMDiTX", "SD3", SD3),
        "Flux": (
            "backend.nn.flux",
            "IntegratedFluxTransformer2DModel",
            "Flux",
            {**FLUX, "guidance_embed": True},
        ),
        "Chroma": (
            "backend.nn.chroma",
            "IntegratedChromaTransformer2DModel",
            "Chroma",
            {
                **CHROMA,
                "in_channels": 16,
                "guidance_out_dim": 3072,
                "guidance_hidden_dim": 5120,
                "guidance_n_layers": 5,
            },
        ),
    },
}
"""Host -> family -> module and class of the network, the model as the host's guesses know it, and the settings."""


def main() -> None:
    import torch

    if HOST == "neo":
        from modules_forge.packages.comfy import lora
        from modules_forge.packages.huggingface_guess import model_list
    else:
        from backend.patcher import lora
        from huggingface_guess import model_list
    found = {}
    for family, (module, network, guess, config) in MODELS[HOST].items():
        with torch.device("meta"):
            model = getattr(importlib.import_module(module), network)(**config)
            text = torch.nn.ModuleDict({name: ENCODERS[name]() for name in TEXTS[family]})
        whole = torch.nn.ModuleDict({"diffusion_model": model})
        known = getattr(model_list, guess, SimpleNamespace(huggingface_repo=guess))
        holder = SimpleNamespace(
            state_dict=whole.state_dict, diffusion_model=SimpleNamespace(config=config), config=known
        )
        names = {
            **_names(lora.model_lora_keys_unet(holder, {})),
            **_names(lora.model_lora_keys_clip(text, {})),
        }
        found[family] = {
            "shapes": {
                f"{name}.weight": list(one.weight.shape)
                for name, one in (*whole.named_modules(), *text.named_modules())
                if isinstance(one, (torch.nn.Linear, torch.nn.Conv2d)) and not name.endswith("text_projection")
            },
            "names": {name: _target(to) for name, to in names.items()},
        }
    print("\n" + json.dumps(found))


def _names(found: Any) -> dict[str, Any]:
    """Forge returns the keys of the model as well."""
    return dict(found[-1] if isinstance(found, tuple) else found)


def _target(to: Any) -> list[Any]:
    if isinstance(to, str):
        return [to, None, False]
    rows = to[1] if len(to) > 1 else None
    return [to[0], None if rows is None else [rows[1], rows[1] + rows[2]], len(to) > 2]


main()
