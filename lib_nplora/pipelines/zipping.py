"""Two LoRAs zipped: a plain merge whose columns were trained for the pair and the model. ZipLoRA, arXiv 2311.13600."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import MismatchError
from ..fusion.fused import FusedLora
from ..fusion.walk import fuse
from ..hosts.diffusers import PipelineModel
from ..layers.key import ModuleKey
from ..layers.weights import LoraWeights
from ..maths.cache import ByteLru
from ..request.request import FusionRequest, Source
from . import recording
from .beside import SIDES, Beside, Merger, Side
from .recording import Asked, Call
from .zip_layers import Scope, mergers_of, parts_of, runs
from .zip_state import Loss, State
from .zip_training import Recipe, Stepped, train

if TYPE_CHECKING:
    from PIL.Image import Image

DRAWN_STEPS = 25
"""Steps of a picture that is drawn to be learnt from."""

Drawing = Callable[[Side, int, int], None]
"""(side, pictures done, pictures in all), called as pictures are drawn to be learnt from."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """What the mergers learn from.

    content, style
        Prompts that each side answers to: "a photo of sks dog", "a house in vangogh style".
    content_pictures, style_pictures
        What each LoRA was trained on; none to have the pipeline draw from noise with that side alone.
    drawn
        How many pictures it draws of each side.
    size
        Height and width of the pictures, None for the pipeline's own.
    """

    content: Sequence[str]
    style: Sequence[str]
    content_pictures: Sequence[Image] = ()
    style_pictures: Sequence[Image] = ()
    drawn: int = 4
    size: int | None = None


@dataclass(frozen=True, eq=False)
class Zipped:
    """What came of it.

    mergers
        Those of each layer that both LoRAs hold.
    losses
        One a step.
    """

    fused: FusedLora
    mergers: Mapping[ModuleKey, Merger]
    losses: Sequence[Loss] = field(default_factory=list)

    def moved(self, side: Side) -> float:
        """How far the mergers of a side are from 1 on average."""
        return float(torch.cat([(merger.of(side).detach() - 1).abs() for merger in self.mergers.values()]).mean())

    def reach(self, side: Side) -> tuple[float, float]:
        """The least and the greatest merger of a side."""
        both = torch.cat([merger.of(side).detach() for merger in self.mergers.values()])
        return float(both.min()), float(both.max())


def zip_loras(
    pipe: Any,
    model: PipelineModel,
    content: LoraWeights,
    style: LoraWeights,
    lessons: Lessons,
    recipe: Recipe,
    scope: Scope = "attention",
    state: Path | None = None,
    drawing: Drawing = lambda side, done, total: None,
    stepped: Stepped = lambda done, loss: None,
) -> Zipped:
    """Train the mergers of a pair, and merge the pair by them. Nothing of it is left in the pipeline.

    state
        File to go on from if the run is stopped.

    Text encoders, norms and biases, which have no mergers, are merged plainly, and so they are while the mergers
    learn. Raises MismatchError for a pair without a layer in common, HostError, FileError.
    """
    denoiser = recording.denoiser_of(pipe)
    loras = dict(zip(SIDES, (content, style)))
    mergers = mergers_of(model, content, style, scope)
    if not mergers:
        raise MismatchError(
            f"'{content.name}' and '{style.name}' share no layer{' of attention' * (scope == 'attention')} that could "
            "be zipped: merge them plainly, by method direct"
        )
    kept = State(state, _made_of(denoiser, loras, lessons, recipe, scope)) if state else None
    if kept:
        kept.check()
    beside = Beside(parts_of(model, loras, mergers))
    plain = merged(content, style)
    model.apply([replace(plain, deltas={key: plain.deltas[key] for key in plain.deltas if not runs(model, key)})])
    try:
        with beside.running(), _lean(denoiser):
            calls = {}
            for number, side in enumerate(SIDES):
                with beside.alone(side):
                    calls[side] = _calls(pipe, side, lessons, recipe.seed + 1000 * number, recipe.steps, drawing)
            with _elsewhere(pipe, denoiser):
                losses = train(denoiser, beside, list(mergers.values()), calls, recipe, kept, stepped)
    finally:
        model.clear()
    fused = merged(*(scaled(loras[side], side, mergers) for side in SIDES))
    return Zipped(fused, mergers, losses)


def _calls(pipe: Any, side: Side, lessons: Lessons, seed: int, steps: int, drawing: Drawing) -> list[Call]:
    """What one side's term of the loss is calculated from."""

    def done(number: int, total: int) -> None:
        drawing(side, number, total)

    prompts, pictures = getattr(lessons, side), getattr(lessons, f"{side}_pictures")
    if pictures:
        return recording.from_pictures(pipe, Asked(prompts, steps, seed, lessons.size), pictures, done)
    return recording.from_noise(pipe, Asked(prompts, lessons.drawn, seed, lessons.size), DRAWN_STEPS, done)


@contextmanager
def _lean(denoiser: Any) -> Iterator[None]:
    """Within it, a diffusion model has no gradients of its own, and calculates again what it would have to keep."""
    learning = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    denoiser.requires_grad_(False)
    denoiser.enable_gradient_checkpointing()
    try:
        yield
    finally:
        denoiser.disable_gradient_checkpointing()
        for parameter in learning:
            parameter.requires_grad_(True)


@contextmanager
def _elsewhere(pipe: Any, denoiser: nn.Module) -> Iterator[None]:
    """Within it, the other parts of a pipeline, whose answers are recorded, leave the GPU's memory to the denoiser."""
    device = next(denoiser.parameters()).device
    others = [part for part in pipe.components.values() if isinstance(part, nn.Module) and part is not denoiser]
    for part in others:
        part.to("cpu")
    try:
        yield
    finally:
        for part in others:
            part.to(device)


def scaled(lora: LoraWeights, side: Side, mergers: Mapping[ModuleKey, Merger]) -> LoraWeights:
    """The LoRA with its columns scaled: of factors, `down` alone, so that the rank stays."""
    numbers = {layer: merger.of(side).detach().to("cpu", torch.float32) for layer, merger in mergers.items()}
    deltas = {}
    for key, delta in lora.deltas.items():
        factors = numbers.get(key.layer)
        deltas[key] = delta if factors is None else delta.on_input(lambda rows, factors=factors: rows * factors)  # type: ignore[misc]
    told = hashlib.sha256(b"".join(factors.numpy().tobytes() for factors in numbers.values())).hexdigest()
    return replace(lora, digest=f"{lora.digest} zipped {told}", deltas=deltas)


def merged(content: LoraWeights, style: LoraWeights) -> FusedLora:
    """Both, added up."""
    contents, styles = ((Source(lora.name),) for lora in (content, style))
    return fuse(FusionRequest.of(contents, styles, method="direct"), [content], [style], ByteLru(0))


def _made_of(
    denoiser: nn.Module, loras: Mapping[Side, LoraWeights], lessons: Lessons, recipe: Recipe, scope: Scope
) -> str:
    """Stands for all that a run depends on; the first weights of the model for all of them."""
    pictures = [
        hashlib.sha256(one.tobytes()).hexdigest() for side in SIDES for one in getattr(lessons, f"{side}_pictures")
    ]
    prompts, rest = (tuple(lessons.content), tuple(lessons.style)), (lessons.drawn, lessons.size, scope)
    first = next(denoiser.parameters()).detach().to("cpu", torch.float32).numpy().tobytes()
    model = hashlib.sha256(first).hexdigest()
    told = [model, *(lora.digest for lora in loras.values()), prompts, pictures, rest, recipe]
    return hashlib.sha256(repr(told).encode()).hexdigest()
