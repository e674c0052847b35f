"""Print, as JSON, under which names a host looks for LoRAs of the models that it has: run by the host's own Python.

    cd HOST && venv/bin/python .../key_tables.py neo

The network of each family is made as the host makes it, of the real size but for its depth, and without values.
`shapes`: the weights of its linear layers. `names`: what the host maps on weights of the model, as a weight, the rows
of it, and whether their halves are exchanged.
"""

from __future__ import annotations

import importlib
import json
import sys
from types import SimpleNamespace
from typing import Any

HOST = sys.argv[1]
sys.argv = [sys.argv[0], {"neo": "--cpu", "forge": "--always-cpu"}[HOST]]
sys.path[:0] = [".", "modules_forge/packages", "packages_3rdparty", "repositories/huggingface_guess"]

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

MODELS: dict[str, dict[str, tuple[str, str, str, dict[str, Any]]]] = {
    "neo": {
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
        from modules_forge.packages.comfy.lora import model_lora_keys_unet as table
        from modules_forge.packages.huggingface_guess import model_list
    else:
        from backend.patcher.lora import model_lora_keys_unet as table
        from huggingface_guess import model_list
    found = {}
    for family, (module, network, guess, config) in MODELS[HOST].items():
        with torch.device("meta"):
            model = getattr(importlib.import_module(module), network)(**config)
        model.config = config
        state = {f"diffusion_model.{name}": tensor for name, tensor in model.state_dict().items()}
        known = getattr(model_list, guess, SimpleNamespace(huggingface_repo=guess))
        holder = SimpleNamespace(state_dict=lambda state=state: state, diffusion_model=model, config=known)
        linear = [
            f"diffusion_model.{name}.weight" for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)
        ]
        found[family] = {
            "shapes": {name: list(state[name].shape) for name in linear},
            "names": {name: _target(to) for name, to in _names(table(holder, {})).items()},
        }
    print("\n" + json.dumps(found))


def _names(found: Any) -> dict[str, Any]:
    """Forge returns the keys of the model as well."""
    names = found[-1] if isinstance(found, tuple) else found
    return dict(names)


def _target(to: Any) -> list[Any]:
    if isinstance(to, str):
        return [to, None, False]
    rows = to[1] if len(to) > 1 else None
    return [to[0], None if rows is None else [rows[1], rows[1] + rows[2]], len(to) > 2]


main()
