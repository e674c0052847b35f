"""A pipeline at work, with one side of a pair alone, so that methods can be told what its layers are fed with."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..fusion.fused import FusedLora
from ..fusion.walk import fuse
from ..hosts.diffusers import PipelineModel
from ..hosts.inputs import inputs_watched
from ..layers.key import ModuleKey
from ..layers.weights import LoraWeights
from ..maths.cache import ByteLru
from ..maths.delta import factored
from ..methods.moments import Identity, Observations, Seen, stacked_downs
from ..request.request import FusionRequest, Source


@dataclass(frozen=True, eq=False)
class Looks:
    """What a pipeline is to draw while it is looked at: a prompt, or several, for each side alone.

    content, style
        Prompts that each side answers to: "a photo of sks dog", "a house in vangogh style".
    steps
        How many a picture takes.
    seed
        What the first picture's noise is drawn by; the next one's is one more.
    given
        What else the pipeline is called with, by name: height=768, ...
    """

    content: str | Sequence[str]
    style: str | Sequence[str]
    steps: int = 4
    seed: int = 0
    given: Mapping[str, Any] = field(default_factory=dict)

    def prompts(self, role: str) -> Sequence[str]:
        said: str | Sequence[str] = getattr(self, role)
        return [said] if isinstance(said, str) else said


def observe(
    pipe: Any, model: PipelineModel, contents: Sequence[LoraWeights], styles: Sequence[LoraWeights], looks: Looks
) -> Observations:
    """The moments of every layer that both sides hold, by pictures that nobody sees, each LoRA with weight 1.

    No fusion stands in the pipeline afterwards, and no hook, also after an exception. Raises HostError for layers that
    cannot be looked at, and whatever the pipeline raises.
    """
    stacks = {layer: stacked_downs(modules) for layer, modules in _shared(contents, styles).items()}
    watched = {layer: _watched(model, layer, down) for layer, (_, down) in stacks.items()}
    means = []
    for role in ("content", "style"):
        model.apply([_alone(contents, styles, role)])
        try:
            with inputs_watched(watched) as moments:
                _draw(pipe, looks.prompts(role), looks)
        finally:
            model.clear()
        means.append({layer: moment.mean for layer, moment in moments.items()})
    content, style = means
    return Observations({layer: Seen(spans, content[layer], style[layer]) for layer, (spans, _) in stacks.items()})


def _watched(model: PipelineModel, layer: ModuleKey, down: Tensor) -> tuple[str, torch.nn.Module, Tensor]:
    """The module that meets the layer's inputs: the first, where files hold several as one."""
    piece = model.pieces(str(layer.name))[0]
    return piece.name, piece.module, down


def _shared(
    contents: Sequence[LoraWeights], styles: Sequence[LoraWeights]
) -> dict[ModuleKey, list[tuple[Identity, Tensor]]]:
    """Down-projections by layer, of those that both sides hold, with an input side; contents first."""
    held: list[set[ModuleKey]] = [{key.layer for lora in side for key in lora.deltas} for side in (contents, styles)]
    found: dict[ModuleKey, list[tuple[Identity, Tensor]]] = {}
    for lora in (*contents, *styles):
        for key in _in_both(lora, *held):
            delta = lora.deltas[key]
            if delta.has_input_side:
                found.setdefault(key.layer, []).append(((lora.digest, key), factored(delta).down))
    return found


def _in_both(lora: LoraWeights, one: set[ModuleKey], other: set[ModuleKey]) -> Iterable[ModuleKey]:
    return [key for key in lora.deltas if key.layer in one and key.layer in other]


def _alone(contents: Sequence[LoraWeights], styles: Sequence[LoraWeights], role: str) -> FusedLora:
    """One side alone, added up."""
    content, style = (
        tuple(Source(lora.name, float(side == role), float(side == role)) for lora in loras)
        for side, loras in (("content", contents), ("style", styles))
    )
    return fuse(FusionRequest.of(content, style, method="direct"), contents, styles, ByteLru(0))


def _draw(pipe: Any, prompts: Sequence[str], looks: Looks) -> None:
    """Draw one after the other, as they come, without decoding."""
    given = {"num_inference_steps": looks.steps, **looks.given}
    if "output_type" in inspect.signature(type(pipe).__call__).parameters:
        given.setdefault("output_type", "latent")
    for number, prompt in enumerate(prompts):
        pipe(prompt, generator=torch.Generator().manual_seed(looks.seed + number), **given)
