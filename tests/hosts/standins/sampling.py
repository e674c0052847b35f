"""The hosts' way from noise to a picture: samplers that call a denoiser, which tells scripts of each call.

Order of things, signatures and what is counted when are those of the hosts' `sd_samplers_*` modules.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

SHARE = 0.7
"""What share of the steps img2img makes."""


class InterruptedException(BaseException):
    """Ends the sampling; what there is by then is the picture."""


class State(types.SimpleNamespace):
    """`shared.state`."""

    def begin(self) -> None:
        self.sampling_step = self.sampling_steps = 0
        self.interrupted = self.skipped = False


@dataclass
class CFGDenoiserParams:
    x: Any
    image_cond: Any
    sigma: Any
    sampling_step: int
    total_sampling_steps: int
    text_cond: Any
    text_uncond: Any
    denoiser: Any = None


@dataclass
class CFGDenoisedParams:
    x: Any
    sampling_step: int
    total_sampling_steps: int
    inner_model: Any


@dataclass
class AfterCFGCallbackParams:
    x: Any
    sampling_step: int
    total_sampling_steps: int


class CFGDenoiser:
    """One call of it is one call of the model.

    steps, total_steps
        The sampler's steps, and how many calls are planned for them.
    step
        Calls so far.
    """

    def __init__(self, host: Any, p: Any, c: torch.Tensor, steps: int, total_steps: int) -> None:
        self.p = p
        self.steps = steps
        self.total_steps = total_steps
        self.step = 0
        self.last_latent: torch.Tensor | None = None
        self._host = host
        self._c = c

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        host, state = self._host, self._host.state
        if state.interrupted or state.skipped:
            raise InterruptedException
        now = state.sampling_step, state.sampling_steps
        params = CFGDenoiserParams(x, None, None, *now, self._c, None, self)
        host.callbacks.report("cfg_denoiser", params)
        x = host.denoise(self, params.x + params.text_cond)
        if host.tells_of_denoised:
            host.callbacks.report("cfg_denoised", CFGDenoisedParams(x, *now, None))
        self.last_latent = x
        after = AfterCFGCallbackParams(x, *now)
        host.callbacks.report("cfg_after_cfg", after)
        host.called(self)
        self.step += 1
        return after.x


Count = Callable[[int], None]


def euler(model: CFGDenoiser, x: torch.Tensor, count: Count) -> torch.Tensor:
    """One call a step."""
    for i in range(model.steps):
        x = model(x)
        count(i)
    return x


def heun(model: CFGDenoiser, x: torch.Tensor, count: Count) -> torch.Tensor:
    """Two calls a step, one for the last."""
    for i in range(model.steps):
        denoised = model(x)
        count(i)
        x = denoised if i == model.steps - 1 else (denoised + model(denoised)) / 2
    return x


SAMPLERS = {"Euler": (euler, 1), "Heun": (heun, 2)}
"""Function and order."""


def sample(host: Any, p: Any, x: torch.Tensor, c: torch.Tensor, steps: int) -> torch.Tensor:
    """`launch_sampling`, after what the host does to get its model ready."""
    function, order = SAMPLERS[p.sampler_name]
    host.prepare_sampling()
    model = CFGDenoiser(host, p, c, steps, order * steps)
    model.last_latent = x
    host.state.sampling_steps, host.state.sampling_step = steps, 0

    def count(i: int) -> None:
        host.state.sampling_step = i

    try:
        return function(model, x, count)
    except InterruptedException:
        return model.last_latent
