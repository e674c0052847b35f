"""Layers of newer transformers, written down from their authors' code, and small LoRAs of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

H = 12
"""Width of the hidden states."""

Sizes = dict[str, tuple[int, int]]
Lora = dict[str, tuple[Tensor, Tensor]]
"""Layer, as its first authors call it -> up, down."""


def _of(prefix: str, sizes: Mapping[str, tuple[float, float]]) -> Sizes:
    """Sizes in widths of the hidden states -> in numbers."""
    return {prefix + name: (round(rows * H), round(columns * H)) for name, (rows, columns) in sizes.items()}


_FLUX_ATTENTION = {
    f"{of}_attn.{name}": (rows, 1.0) for of in ("img", "txt") for name, rows in (("qkv", 3), ("proj", 1))
}
_LUMINA_BLOCK = {"attention.out": (1.0, 1.0), "feed_forward.w1": (4, 1), "feed_forward.w2": (1, 4)}
_SQUARE = (1.0, 1.0)

LAYERS: dict[str, Sizes] = {
    "Chroma": {
        **_of("double_blocks.1.", {**_FLUX_ATTENTION, "img_mlp.0": (4, 1), "txt_mlp.2": (1, 4)}),
        **_of("single_blocks.2.", {"linear1": (7, 1), "linear2": (1, 5)}),
        **_of("distilled_guidance_layer.", {"layers.0.in_layer": (2, 2), "layers.4.out_layer": (2, 2)}),
    },
    "FLUX.2": {
        **_of("double_blocks.1.", {**_FLUX_ATTENTION, "img_mlp.0": (6, 1), "img_mlp.2": (1, 3), "txt_mlp.0": (6, 1)}),
        **_of("single_blocks.19.", {"linear1": (9, 1), "linear2": (1, 4)}),
        **_of("", {"img_in": (1, 2), "time_in.in_layer": (1, 1), "final_layer.linear": (2, 1)}),
        **_of("", {"single_stream_modulation.lin": (3, 1), "double_stream_modulation_img.lin": (6, 1)}),
    },
    "Qwen-Image": {
        **_of(
            "transformer_blocks.59.attn.", dict.fromkeys(("to_q", "to_k", "to_v", "to_out.0", "to_add_out"), _SQUARE)
        ),
        **_of("transformer_blocks.0.attn.", dict.fromkeys(("add_q_proj", "add_k_proj", "add_v_proj"), _SQUARE)),
        **_of("transformer_blocks.0.", {"img_mlp.net.0.proj": (4, 1), "txt_mlp.net.2": (1, 4), "img_mod.1": (6, 1)}),
        **_of("", {"img_in": (1, 2), "norm_out.linear": (2, 1)}),
    },
    "Z-Image": {
        **_of("layers.29.", {**_LUMINA_BLOCK, "attention.qkv": (3, 1), "feed_forward.w1": (8 / 3, 1)}),
        **_of("layers.29.", {"feed_forward.w2": (1, 8 / 3), "adaLN_modulation.0": (4, 1)}),
        **_of("noise_refiner.1.", {"attention.qkv": (3, 1)}),
        **_of("context_refiner.0.", {"attention.out": (1, 1)}),
    },
    "Lumina 2": {
        **_of("layers.25.", {**_LUMINA_BLOCK, "attention.qkv": (5 / 3, 1), "feed_forward.w3": (4, 1)}),
        **_of("layers.25.", {"adaLN_modulation.1": (4, 1)}),
    },
    "Wan": {
        **_of("blocks.3.self_attn.", dict.fromkeys("qkvo", _SQUARE)),
        **_of("blocks.3.cross_attn.", dict.fromkeys((*"qkvo", "k_img", "v_img"), _SQUARE)),
        **_of("blocks.3.", {"ffn.0": (4, 1), "ffn.2": (1, 4)}),
        **_of("", {"time_projection.1": (6, 1), "text_embedding.0": (1, 2), "head.head": (2, 1)}),
    },
    "Krea 2": {
        **_of("blocks.27.attn.", {"wq": (1, 1), "wk": (0.25, 1), "wv": (0.25, 1), "wo": (1, 1), "gate": (1, 1)}),
        **_of("blocks.27.mlp.", {"gate": (3, 1), "up": (3, 1), "down": (1, 3)}),
        **_of("txtfusion.", {"layerwise_blocks.0.attn.wq": _SQUARE, "refiner_blocks.1.mlp.up": (3, 1)}),
        **_of("", {"first": (1, 2), "tproj.1": (6, 1), "txtmlp.3": (1, 1), "last.linear": (2, 1)}),
    },
    "Anima": {
        **_of("blocks.27.self_attn.", dict.fromkeys(("q_proj", "k_proj", "v_proj", "output_proj"), _SQUARE)),
        **_of("blocks.27.", {"cross_attn.k_proj": (1, 0.5), "mlp.layer1": (4, 1), "mlp.layer2": (1, 4)}),
        **_of("blocks.27.", {"adaln_modulation_self_attn.1": (0.25, 1), "adaln_modulation_mlp.2": (3, 0.25)}),
    },
    "ERNIE-Image": {
        **_of("layers.35.self_attention.", dict.fromkeys(("to_q", "to_k", "to_v", "to_out.0"), _SQUARE)),
        **_of("layers.35.mlp.", {"gate_proj": (3, 1), "up_proj": (3, 1), "linear_fc2": (1, 3)}),
    },
    "HunyuanVideo": {
        **_of("double_blocks.1.", {name.replace("attn.", "attn_"): size for name, size in _FLUX_ATTENTION.items()}),
        **_of("double_blocks.1.", {"img_mlp.fc1": (4, 1), "txt_mlp.fc2": (1, 4), "img_mod.linear": (6, 1)}),
        **_of("single_blocks.39.", {"linear1": (7, 1), "linear2": (1, 5), "modulation.linear": (3, 1)}),
        **_of("txt_in.individual_token_refiner.blocks.1.", {"self_attn_qkv": (3, 1), "adaLN_modulation.1": (2, 1)}),
        **_of("", {"time_in.mlp.0": (1, 2), "txt_in.c_embedder.linear_2": (1, 1), "final_layer.linear": (2, 1)}),
    },
}
"""Family -> some of its layers, as its first authors call them, with rows and columns."""

HEADERS = {
    "Chroma": {"ss_base_model_version": "chroma"},
    "FLUX.2": {"modelspec.architecture": "flux.2-klein-4b/lora"},
    "Qwen-Image": {"ss_base_model_version": "qwen_image"},
    "Z-Image": {"ss_base_model_version": "zimage"},
    "Lumina 2": {"modelspec.architecture": "lumina-2"},
    "Wan": {"ss_base_model_version": "wan2.1"},
    "Krea 2": {"ss_base_model_version": "krea2"},
    "Anima": {"ss_base_model_version": "anima"},
    "ERNIE-Image": {"ss_base_model_version": "ernie_image"},
    "HunyuanVideo": {"modelspec.architecture": "hunyuan-video"},
}


def random_lora(family: str, rank: int, seed: int) -> Lora:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(rows, rank, generator=generator), torch.randn(rank, columns, generator=generator) / rank)
        for name, (rows, columns) in LAYERS[family].items()
    }


def comfyui(lora: Lora, prefix: str = "diffusion_model.") -> dict[str, Tensor]:
    state = {f"{prefix}{name}.lora_B.weight": up for name, (up, _) in lora.items()}
    return state | {f"{prefix}{name}.lora_A.weight": down for name, (_, down) in lora.items()}


def kohya(lora: Lora, prefix: str = "lora_unet_") -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, (up, down) in lora.items():
        flat = prefix + name.replace(".", "_")
        state |= {f"{flat}.lora_up.weight": up, f"{flat}.lora_down.weight": down}
        state[f"{flat}.alpha"] = torch.tensor(float(down.shape[0]))
    return state


def dense(lora: Lora) -> dict[str, Tensor]:
    return {name.replace(".", "_"): up.double() @ down.double() for name, (up, down) in lora.items()}


def write(path: Path, state: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> Path:
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, path, dict(header or {}))
    return path


@dataclass(frozen=True)
class Written:
    """A file of factors, as its hosts see it: the deltas by names without prefix."""

    deltas: dict[str, Tensor]

    @classmethod
    def of(cls, state: Mapping[str, Tensor], prefix: str) -> Written:
        deltas = {}
        for name, up in state.items():
            for ends in ((".lora_B.weight", ".lora_A.weight"), (".lora_up.weight", ".lora_down.weight")):
                if name.endswith(ends[0]):
                    module = name.removesuffix(ends[0])
                    down = state[module + ends[1]].double()
                    scale = float(state.get(f"{module}.alpha", torch.tensor(float(len(down))))) / len(down)
                    deltas[module.removeprefix(prefix)] = scale * up.double() @ down
        return cls(deltas)
