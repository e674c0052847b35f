"""Tells the fusions which step the sampler is at, before each call of the diffusion model."""

from __future__ import annotations

from typing import Any

from . import running
from .said import say


def on_denoiser(params: Any) -> None:
    """The host's callback, which comes after a refiner took over."""
    session = running.session()
    if session is None or not session.changes_with_steps:
        return
    for problem in session.step(*step_of(params)):
        say(params.denoiser.p, problem)


def step_of(params: Any) -> tuple[int, int]:
    """(step, steps) of the sampler, from 0.

    The host counts calls of the model, of which second-order samplers make two a step; so does it time prompts that
    change. Its own step comes one call late. Samplers that make more calls than planned stay at the last step.
    """
    denoiser = params.denoiser
    steps: int = denoiser.steps
    return min(denoiser.step * steps // denoiser.total_steps, steps - 1), steps
