"""`fuse_into` does to every layer of a pipeline what the formula says, and is undone to the bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib_nplora.pipelines import fuse_into
from tests.pipelines import loras, tiny
from tests.reference import pipelines as reference


def added(pipe, before) -> dict[str, np.ndarray]:
    """What was added to each layer that changed."""
    found = {}
    for name, layer in loras.layers(pipe).items():
        change = layer.weight.detach().double() - before[f"{name}.weight"].double()
        if change.any():
            found[name] = change.flatten(1).numpy()
    return found


def check(pipe, before, expected, relative: float = 1e-5) -> None:
    found = added(pipe, before)
    assert found.keys() == expected.keys()
    for name, change in expected.items():
        error = np.linalg.norm(found[name] - change) / np.linalg.norm(change)
        assert error < relative, f"{name}: {error}"


def same(pipe, before) -> bool:
    now = loras.weights(pipe)
    return now.keys() == before.keys() and all(torch.equal(now[name], value) for name, value in before.items())


@pytest.fixture(params=tiny.PIPELINES)
def pipe(request):
    return tiny.made(request.param)


@pytest.mark.parametrize(("content", "style"), [("peft", "peft"), ("kohya", "peft"), ("diffusers", "kohya")])
def test_every_layer_is_fused_and_comes_back(pipe, tmp_path, content, style):
    contents = loras.write(tmp_path / "dog.safetensors", pipe, content, seed=1, rank=3)
    styles = loras.write(tmp_path / "vangogh.safetensors", pipe, style, seed=2, rank=2)
    before = loras.weights(pipe)
    fusion = fuse_into(pipe, tmp_path / "dog.safetensors", tmp_path / "vangogh.safetensors", "hard")
    check(pipe, before, reference.fused(contents, styles, lambda layer: math.inf))
    fusion = fuse_into(pipe, tmp_path / "dog.safetensors", tmp_path / "vangogh.safetensors")
    check(pipe, before, reference.fused(contents, styles, lambda layer: 0.5))
    fusion.undo()
    assert same(pipe, before)
