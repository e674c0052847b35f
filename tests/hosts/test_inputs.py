"""What layers are fed with, by hooks on real modules, against the inputs themselves in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib_nplora.errors import HostError
from lib_nplora.hosts.inputs import inputs_watched

from ..matrices import randn


def moment(x: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """E[z z^T] over inputs (n, in)."""
    z = x.double() @ down.double().T
    return z.T @ z / len(z)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == torch.float64
    assert (found - expected).norm() < 1e-6 * expected.norm()


def test_a_linear_layer_s_inputs_of_all_calls_count_alike():
    layer, down = nn.Linear(10, 4), randn(3, 10, seed=1)
    calls = [randn(2, 5, 10, seed=2), randn(7, 10, seed=3)]
    with inputs_watched({"x": ("layer", layer, down)}) as moments:
        layer(calls[0])
        layer(input=calls[1])
    assert_close(moments["x"].mean, moment(torch.cat([call.flatten(0, -2) for call in calls]), down))


@pytest.mark.parametrize(
    ("kernel", "settings"), [(3, {"padding": 1, "stride": 2}), (1, {}), (3, {"padding": 2, "dilation": 2})]
)
def test_a_convolution_s_inputs_are_what_its_kernel_covers(kernel, settings):
    layer, down, x = nn.Conv2d(4, 6, kernel, **settings), randn(3, 4 * kernel**2, seed=1), randn(2, 4, 8, 8, seed=2)
    with inputs_watched({"x": ("layer", layer, down)}) as moments:
        layer(x)
    assert_close(moments["x"].mean, moment(F.unfold(x, kernel, **settings).transpose(1, 2).flatten(0, 1), down))


def test_autocast_does_not_round_what_is_seen():
    layer, down, x = nn.Linear(10, 4), randn(3, 10, seed=1), randn(6, 10, seed=2)
    with inputs_watched({"x": ("layer", layer, down)}) as moments, torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert_close(moments["x"].mean, moment(x, down))


def test_no_hook_is_left_behind():
    model = nn.Sequential(nn.Linear(10, 4), nn.Conv2d(1, 1, 1, groups=1))
    watched = {i: (str(i), layer, randn(2, layer.weight[0].numel(), seed=i)) for i, layer in enumerate(model)}
    hooks = inputs_watched(watched)
    hooks.__enter__()
    assert all(layer._forward_pre_hooks for layer in model)
    assert not hooks.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert not any(layer._forward_pre_hooks for layer in model)
    grouped = nn.Conv2d(4, 4, 3, groups=2)
    with pytest.raises(HostError, match=r"the inputs of layer odd \(Conv2d\) cannot be looked at"):
        inputs_watched({**watched, "odd": ("odd", grouped, randn(2, 18, seed=5))}).__enter__()
    assert not any(layer._forward_pre_hooks for layer in (*model, grouped))


def test_what_cannot_be_told_is_told_in_a_sentence():
    layer, down = nn.Linear(10, 4), randn(3, 10, seed=1)
    with inputs_watched({"x": ("proj", layer, down)}) as moments:
        with pytest.raises(HostError, match="layer proj is not used for these pictures"):
            _ = moments["x"].mean
        layer(torch.full((2, 10), torch.inf))
        with pytest.raises(HostError, match="layer proj is fed with infinite numbers"):
            _ = moments["x"].mean
