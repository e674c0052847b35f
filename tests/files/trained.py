"""Networks that LyCORIS trained, with what they do to each layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lycoris.modules.full import FullModule
from lycoris.modules.norms import NormModule
from lycoris.wrapper import LycorisNetwork
from torch import Tensor, nn

from tests.files import small_unets

PLAIN = {"lora_dim": 4, "conv_lora_dim": 3, "alpha": 2, "conv_alpha": 1}
RECIPES: dict[str, dict[str, Any]] = {
    "LoCon": {"network_module": "locon"},
    "LoCon Tucker": {"network_module": "locon", "use_tucker": True},
    "LoCon with a scalar": {"network_module": "locon", "use_scalar": True},
    "rsLoRA": {"network_module": "locon", "rs_lora": True},
    "norm": {"network_module": "locon", "train_norm": True},
    "LoHa": {"network_module": "loha"},
    "LoHa Tucker": {"network_module": "loha", "use_tucker": True},
    "LoHa rsLoRA": {"network_module": "loha", "rs_lora": True},
    "LoKr": {"network_module": "lokr", "factor": 4, "lora_dim": 2, "conv_lora_dim": 2},
    "LoKr Tucker": {"network_module": "lokr", "factor": 2, "lora_dim": 2, "conv_lora_dim": 2, "use_tucker": True},
    "LoKr both": {"network_module": "lokr", "factor": 8, "lora_dim": 1, "conv_lora_dim": 1, "decompose_both": True},
    "LoKr whole": {"network_module": "lokr", "factor": 4, "lora_dim": 999, "conv_lora_dim": 999},
    "LoKr full_matrix": {"network_module": "lokr", "full_matrix": True},
    "LoKr unbalanced": {"network_module": "lokr", "factor": 4, "lora_dim": 2, "unbalanced_factorization": True},
    "full": {"network_module": "full"},
    "GLoRA": {"network_module": "glora"},
    "IA3": {"network_module": "ia3"},
    "IA3 on input": {"network_module": "ia3", "train_on_input": True},
    "OFT": {"network_module": "diag-oft"},
    "OFT rescaled": {"network_module": "diag-oft", "rescaled": True},
    "OFT constrained": {"network_module": "diag-oft", "constraint": 0.05},
    "BOFT": {"network_module": "boft"},
    "BOFT rescaled": {"network_module": "boft", "rescaled": True, "constraint": 0.05},
    "DoRA": {"network_module": "locon", "weight_decompose": True},
    "DoRA on input": {"network_module": "locon", "weight_decompose": True, "wd_on_out": False},
    "DoRA Tucker": {"network_module": "locon", "weight_decompose": True, "use_tucker": True},
    "DoRA LoHa": {"network_module": "loha", "weight_decompose": True},
    "DoRA LoHa on input": {"network_module": "loha", "weight_decompose": True, "wd_on_out": False},
    "DoRA LoKr": {"network_module": "lokr", "factor": 4, "lora_dim": 2, "weight_decompose": True},
    "DoRA LoKr on input": {"network_module": "lokr", "factor": 4, "weight_decompose": True, "wd_on_out": False},
}
"""Every kind of network that LyCORIS trains, in its variants."""

NEEDS_BASE = tuple(name for name in RECIPES if name.startswith(("GLoRA", "IA3", "OFT", "BOFT", "DoRA")))
"""Those whose delta depends on the weights of the model."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A network that LyCORIS trained on `base_model()` and saved.

    base
        The model's weights, for kinds whose deltas depend on them.
    deltas
        What it adds to each layer.
    """

    path: Path
    base: Path | None
    deltas: dict[str, np.ndarray]


LAYERS = [r"conv_in", r"down_blocks\.0\.downsamplers", r"down_blocks\.1\.", r"up_blocks\.1\.resnets\.0"]
"""The part of the model that is trained: every kind of layer, few of each."""


@cache
def base_model() -> nn.Module:
    torch.manual_seed(0)
    return small_unets.tiny_unet().requires_grad_(False)


def fresh_model() -> nn.Module:
    model = small_unets.tiny_unet()
    model.load_state_dict(base_model().state_dict())
    return model


def randomise(network: nn.Module, seed: int = 1) -> None:
    """Move every trained value, and magnitudes by a tenth of themselves."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if name.endswith(("dora_scale", "rescale", "scalar")):
            weight.data = weight.data.abs().clamp(min=0.5) * (1 + 0.1 * noise)
        else:
            weight.data += 0.3 * noise


@cache
def trained(folder: Path, recipe: str, prefix: str = "lycoris") -> Trained:
    path = folder / f"{prefix} {recipe}.safetensors"
    LycorisNetwork.apply_preset({"lora_prefix": prefix, "target_module": [], "target_name": LAYERS})
    network = LycorisNetwork(fresh_model(), **{**PLAIN, **RECIPES[recipe]}, warn_on_unmatched=False)
    network.apply_to()
    randomise(network)
    network.save_weights(path, torch.float32, {})
    base = folder / "base.safetensors" if recipe in NEEDS_BASE else None
    return Trained(path, base, added(network.loras, base_model(), "unet", prefix))


@torch.no_grad()
def added(modules: list[nn.Module], model: nn.Module, component: str, prefix: str) -> dict[str, np.ndarray]:
    """What the network's modules add to the layers of `model`, from the outputs with and without them."""
    layers = {f"{prefix}_{name.replace('.', '_')}": (name, layer) for name, layer in model.named_modules()}
    found = {}
    for lora in modules:
        name, layer = layers[lora.lora_name]
        name = small_unets.canonical(component, name)
        if isinstance(lora, NormModule):
            weight, bias = lora.get_diff_weight()
        else:
            weight, bias = response(lora, layer)
        found[name] = weight.double().reshape(len(weight), -1).numpy()
        if isinstance(lora, (NormModule, FullModule)) and layer.bias is not None:
            found[f"{name}.bias"] = bias.double()[:, None].numpy()
    return found


def response(lora: nn.Module, layer: nn.Linear | nn.Conv2d) -> tuple[Tensor, Tensor]:
    """(weight as a matrix, bias) that turn `layer` into `lora`: the answers to unit inputs.

    A convolution gives one column of its weight at pixel (1, 1) for each input.
    """
    if isinstance(layer, nn.Linear):
        inputs = torch.eye(layer.in_features)
    else:
        channels, height, width = layer.weight.shape[1:]
        pixels = torch.zeros(channels, height, width, channels, 5, 5)
        for row in range(height):
            for column in range(width):
                y, x = (layer.stride[0] - layer.padding[0] + offset for offset in (row, column))
                pixels[:, row, column, :, y, x] = torch.eye(channels)
        inputs = pixels.flatten(0, 2)
    inputs = torch.cat([torch.zeros_like(inputs[:1]), inputs])
    answers = lora(inputs) - layer(inputs)
    answers = answers if isinstance(layer, nn.Linear) else answers[:, :, 1, 1]
    return (answers[1:] - answers[0]).T, answers[0]
