"""The checkpoints of random weights that real hosts are given: no host is needed here."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from . import checkpoint, sd15, sdxl

SIZES = {"sd15": 859_520_964, "sdxl": 2_567_463_684}
"""How many parameters the published UNets have."""


@pytest.mark.parametrize("model", list(SIZES))
def test_they_have_the_published_models_size(model):
    shapes = dict(checkpoint.MODELS[model]())
    unet = sum(math.prod(shape) for name, shape in shapes.items() if name.startswith("model.diffusion_model."))
    assert unet == SIZES[model]


def test_every_layer_of_the_loras_is_there():
    """But for those that the file of SDXL keeps in one, and those of Stable Diffusion 1.5 that have other names."""
    shapes = {
        name.removesuffix(".weight").replace(".", "_"): shape for name, shape in checkpoint.sdxl() if len(shape) == 2
    }
    prefixes = {
        "lora_unet_": "model_diffusion_model_",
        "lora_te1_": "conditioner_embedders_0_transformer_",
    }
    found = 0
    for module in sdxl.MODULES:
        for ours, theirs in prefixes.items():
            if module.name.startswith(ours):
                assert shapes[module.name.replace(ours, theirs, 1)] == (module.out, module.inp), module.name
                found += 1
    assert found == 722 + 72
    assert len(sdxl.MODULES) == found + 6 * 32
    assert len(sd15.MODULES) == 72 + 200


def test_a_written_file_is_what_it_says(tmp_path):
    layers = [
        ("a.weight", (3, 5)),
        ("norm.weight", (4,)),
        ("norm.bias", (4,)),
        ("scale", ()),
        ("token_embedding", (2, 3)),
    ]
    read = load_file(checkpoint.write(tmp_path / "one.safetensors", iter(layers), "bf16", seed=3))
    assert {name: tuple(tensor.shape) for name, tensor in read.items()} == dict(layers)
    assert all(tensor.dtype == torch.bfloat16 for tensor in read.values())
    assert read["norm.weight"].eq(1).all()
    assert 0 < read["norm.bias"].abs().max() < 0.1
    again = load_file(checkpoint.write(tmp_path / "two.safetensors", iter(layers), "bf16", seed=3))
    other = load_file(checkpoint.write(tmp_path / "three.safetensors", iter(layers), "bf16", seed=4))
    assert all(torch.equal(read[name], again[name]) for name in read)
    assert not torch.equal(read["a.weight"], other["a.weight"])
