"""The training of mergers: ZipLoRA, arXiv 2311.13600, Eq. 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .beside import SIDES, Beside, Merger, Side
from .recording import Call
from .zip_state import SAVED_EVERY, Loss, State


@dataclass(frozen=True)
class Recipe:
    """How mergers are trained, by Adam.

    alike
        Weight of the third term: how much it costs that both sides use the same columns.
    """

    lr: float = 0.01
    steps: int = 100
    alike: float = 0.01
    seed: int = 0


Stepped = Callable[[int, Loss], None]
"""(steps done, the loss of the last), called after each."""


def train(
    denoiser: nn.Module,
    beside: Beside,
    mergers: Sequence[Merger],
    calls: Mapping[Side, Sequence[Call]],
    recipe: Recipe,
    state: State | None = None,
    stepped: Stepped = lambda done, loss: None,
) -> list[Loss]:
    """Change the mergers so that both sides together answer each side's calls as that side alone does.

    L = |both(x_c) - content(x_c)|^2 + |both(x_s) - style(x_s)|^2 + alike sum over layers of mean |m_c m_s|

    The updates are to be running beside the denoiser, which is teacher and student at once. Returns the losses of all
    steps, those of a run that this one goes on from among them. Raises FileError.
    """
    numbers = [merger.of(side) for merger in mergers for side in SIDES]
    optimizer = torch.optim.Adam(numbers, recipe.lr)
    losses = state.restore(numbers, optimizer) if state else []
    for step in range(len(losses), recipe.steps):
        optimizer.zero_grad()
        content, style = (_learn(denoiser, beside, side, chosen(calls[side], step, recipe.seed)) for side in SIDES)
        alike = recipe.alike * torch.stack([merger.alike() for merger in mergers]).sum()
        alike.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(Loss(content, style, alike.item()))
        if state and (step + 1) % SAVED_EVERY == 0:
            state.save(numbers, optimizer, losses)
        stepped(step + 1, losses[-1])
    return losses


def _learn(denoiser: nn.Module, beside: Beside, side: Side, call: Call) -> float:
    """Add up the gradients of one side's term, which is returned."""
    with torch.no_grad(), beside.alone(side):
        taught = call.of(denoiser)
    exact = torch.promote_types(taught.dtype, torch.float32)
    error: Tensor = F.mse_loss(call.of(denoiser).to(exact), taught.to(exact))
    error.backward()  # type: ignore[no-untyped-call]
    return error.item()


def chosen(calls: Sequence[Call], step: int, seed: int) -> Call:
    """Each of them once, in an order of its own, before any comes again."""
    again, place = divmod(step, len(calls))
    order = torch.randperm(len(calls), generator=torch.Generator().manual_seed(seed + again))
    return calls[int(order[place])]
