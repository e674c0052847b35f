"""The table of fusion methods. A new method is one pure function and one row.

A method says what becomes of the contents and the styles of one layer: how they are changed before they are added up,
which of the two wins the layer at which step, or whose the layer is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import RequestError, did_you_mean
from ..maths.delta import Delta, whole
from ..maths.dense import DenseDelta
from ..maths.subspace import project_out, project_out_output, projection_strength
from .selection import SCOPES, Contest, Rule, Winner, content_wins, rising, sawtooth


@dataclass(frozen=True)
class Settings:
    """What the methods read, each what it needs.

    mu
        Strength of the projection, 0 (none) to infinity.
    alpha, beta
        Of the scale that grows with the steps.
    scope
        Which layers are contested: a name from SCOPES.
    density
        Share of a delta's elements that is kept, above 0, at most 1.
    seed
        Of what is random.
    """

    mu: float = 0.5
    alpha: float = 1.5
    beta: float = 0.5
    scope: str = "attention"
    density: float = 0.5
    seed: int = 0


OPTIONS = ("alpha", "beta", "scope", "density", "seed")
"""Settings that only some methods read, and that each of those has its own default for."""


class Basis(Enum):
    """The principal directions that a projection needs."""

    STYLE_INPUT = "right singular vectors of the styles"
    CONTENT_INPUT = "right singular vectors of the contents"
    STYLE_OUTPUT = "left singular vectors of the styles"


@dataclass(frozen=True, eq=False)
class Layer:
    """What the LoRAs hold for one layer, weights included.

    contents, styles
        All of one shape; before a method at least one of each, or of one of them if it is for lone layers, too.
    basis
        The principal directions that the method asked for, as columns, (n, k) float32; None if it asked for none.
    """

    contents: Sequence[Delta]
    styles: Sequence[Delta]
    basis: Tensor | None = None


@dataclass(frozen=True)
class Method:
    """A row of the table. One of `fuse`, `rule` and `owner` says what it does.

    about
        A few words for the user.
    fuse
        (layer, settings) -> layer, whose deltas are then added up.
    basis
        What `fuse` reads as layer.basis.
    rule
        settings -> who wins a contested layer at which step. Raises RequestError for settings that make no sense.
    weighs
        Whether `rule` reads the importances of the two sides.
    alone
        Whether layers that only one LoRA holds are changed, too, or contested (by nothing).
    owner
        Name of a layer -> whose it is; None: it is left out.
    reads
        Which of mu, k and OPTIONS it heeds.
    defaults
        For what is not given.
    """

    about: str
    fuse: Callable[[Layer, Settings], Layer] | None = None
    basis: Basis | None = None
    rule: Callable[[Settings], Rule] | None = None
    weighs: bool = False
    alone: bool = False
    owner: Callable[[str], Winner | None] | None = None
    reads: tuple[str, ...] = ()
    defaults: Settings = field(default_factory=Settings)

    def settings(self, mu: float, **options: float | str | None) -> Settings:
        """The settings that come of what a user gave, None for what was not."""
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        return replace(self.defaults, mu=mu, **given)


# Projections


def null_space(layer: Layer, settings: Settings) -> Layer:
    """NP-LoRA: dW_s + dW_c (I - mu / (1 + mu) V V^T). arXiv 2511.11051, Eq. 26-27; `hard` (mu = infinity): Eq. 10."""
    assert layer.basis is not None
    beta = projection_strength(settings.mu)
    return Layer([project_out(content, layer.basis, beta) for content in layer.contents], layer.styles)


def hard(layer: Layer, settings: Settings) -> Layer:
    """NP-LoRA's hard projection, arXiv 2511.11051, Eq. 10: `null_space` with mu = infinity."""
    return null_space(layer, replace(settings, mu=math.inf))


def reverse(layer: Layer, settings: Settings) -> Layer:
    """The style projected off the content's directions, softly by mu: arXiv 2511.11051, Fig. 7b (where it is hard).

    To show why NP-LoRA does the opposite: it erases the style.
    """
    swapped = null_space(Layer(layer.styles, layer.contents, layer.basis), settings)
    return Layer(swapped.styles, swapped.contents)


def output_space(layer: Layer, settings: Settings) -> Layer:
    """dW_s + (I - mu / (1 + mu) U U^T) dW_c, U the left singular vectors of dW_s: arXiv 2511.11051, section IX, Fig. 9.

    To show why NP-LoRA projects on the input side: this leaves the interference where it is.
    """
    assert layer.basis is not None
    beta = projection_strength(settings.mu)
    return Layer([project_out_output(content, layer.basis, beta) for content in layer.contents], layer.styles)


# Sums


def direct(layer: Layer, settings: Settings) -> Layer:
    """Plain weighted sum, arXiv 2511.11051, Eq. 5: what two ordinary LoRA tags give."""
    return layer


def ties(layer: Layer, settings: Settings) -> Layer:
    """TIES-Merging, arXiv 2306.01708, Alg. 1.

    Trim each delta to its largest elements (layer by layer; the paper over all layers at once), elect a sign for each
    position, take the mean of those that agree with it.
    The weights count in the election and in the mean (lambda = 1). The result has no small rank.
    """
    deltas = [*layer.contents, *layer.styles]
    trimmed = torch.stack([_trimmed(delta.dense(), settings.density) for delta in deltas])
    agrees = (trimmed.sign() == trimmed.sum(0).sign()) & (trimmed != 0)
    merged = (trimmed * agrees).sum(0) / agrees.sum(0).clamp(min=1)
    return Layer([], [DenseDelta(merged, whole(deltas[0]).layer_shape)])


def _trimmed(matrix: Tensor, density: float) -> Tensor:
    """With all but the largest `density` of its elements set to 0. Those that tie with the last one stay."""
    magnitudes = matrix.abs()
    first = matrix.numel() - max(int(density * matrix.numel()), 1)
    return torch.where(magnitudes >= float(np.partition(magnitudes.flatten().numpy(), first)[first]), matrix, 0.0)


def dare(layer: Layer, settings: Settings) -> Layer:
    """DARE, arXiv 2311.03099: drop elements at random, rescale the rest by 1 / density, add up.

    What is dropped depends on the seed, the role and the layer's shape alone, so it is the same in every WebUI and in a
    saved file. The result has no small rank.
    """
    return Layer(
        [_thinned(delta, settings, 2 * i) for i, delta in enumerate(layer.contents)],
        [_thinned(delta, settings, 2 * i + 1) for i, delta in enumerate(layer.styles)],
    )


def _thinned(delta: Delta, settings: Settings, place: int) -> DenseDelta:
    dense = whole(delta)
    generator = torch.Generator().manual_seed((settings.seed * 1_000_003 + place) % 2**63)
    kept = torch.rand(dense.matrix.shape, generator=generator) < settings.density
    return DenseDelta(dense.matrix * kept / settings.density, dense.layer_shape)


# Schedules


def klora(settings: Settings) -> Rule:
    """K-LoRA: content wins while S_c >= gamma S S_s. arXiv 2502.18461, Eq. 1-10.

    Algorithm 1 has alpha and beta the other way round than Eq. 7, by whose names their values are given.
    """

    def wins(contest: Contest, gamma: float, step: int, steps: int) -> bool:
        return content_wins(contest, gamma, rising(settings.alpha, settings.beta, step, steps))

    return wins


def klora_star(settings: Settings) -> Rule:
    """K-LoRA with the sawtooth scale, which gives the style the first steps, too: arXiv 2502.18461, Eq. 12.

    `alpha` stands for both of the equation's. Raises RequestError unless it is above 0.
    """
    if settings.alpha <= 0:
        raise RequestError(f"alpha={settings.alpha:g} makes no sawtooth: klora* takes an alpha above 0")

    def wins(contest: Contest, gamma: float, step: int, steps: int) -> bool:
        return content_wins(contest, gamma, sawtooth(settings.alpha, settings.beta, step, steps))

    return wins


def fixed(settings: Settings) -> Rule:
    """K-LoRA's Fixed Selection, arXiv 2502.18461, section 4.3: content while S <= 1, style after.

    The paper's sentence has it the other way round (content if the scale is *greater* than one). S grows with the
    steps, so that would give the content the late steps, against the paper's own finding (ii), which the sentence says
    it follows: content early, style late.
    """

    def wins(contest: Contest, gamma: float, step: int, steps: int) -> bool:
        return rising(settings.alpha, settings.beta, step, steps) <= 1

    return wins


def switch(settings: Settings) -> Rule:
    """LoRA Switch of Multi-LoRA Composition, arXiv 2402.16843: one LoRA a step, in turn, content first."""

    def wins(contest: Contest, gamma: float, step: int, steps: int) -> bool:
        return step % 2 == 0

    return wins


# Blocks


_BLORA_CONTENT = r"(up_blocks[._]0[._]attentions[._]0|output_blocks[._]0[._]1)[._]"
_BLORA_STYLE = r"(up_blocks[._]0[._]attentions[._]1|output_blocks[._]1[._]1)[._]"


def blora(layer: str) -> Winner | None:
    """B-LoRA's two blocks of SDXL, arXiv 2403.14572: W^4 holds the content, W^5 the style.

    Those are up_blocks.0.attentions.0 and .1, output_blocks.0.1 and .1.1 by their older names. All other layers, text
    encoders among them, are left out, as B-LoRAs have none. From ordinary LoRAs, whose content and style are spread
    over all layers, the effect is weaker than from LoRAs that were trained so.
    """
    if re.search(_BLORA_CONTENT, layer):
        return "content"
    return "style" if re.search(_BLORA_STYLE, layer) else None


METHODS = {
    "np": Method("style protected, softly by mu", null_space, Basis.STYLE_INPUT, reads=("mu", "k")),
    "hard": Method("style fully protected", hard, Basis.STYLE_INPUT, reads=("k",)),
    "direct": Method("plain merge", direct),
    "klora": Method(
        "K-LoRA: one LoRA a layer and step, content early, style late",
        rule=klora,
        weighs=True,
        reads=("alpha", "beta", "scope"),
    ),
    "klora*": Method(
        "K-LoRA with some style in the first steps, too",
        rule=klora_star,
        weighs=True,
        reads=("alpha", "beta", "scope"),
        defaults=Settings(beta=1.3),
    ),
    "fixed": Method("content in the early steps, style in the late ones", rule=fixed, reads=("alpha", "beta", "scope")),
    "switch": Method(
        "content and style in turn", rule=switch, alone=True, reads=("scope",), defaults=Settings(scope="all")
    ),
    "ties": Method(
        "TIES: the largest changes, where their signs agree",
        ties,
        alone=True,
        reads=("density",),
        defaults=Settings(density=0.2),
    ),
    "dare": Method("DARE: a random share of both, made stronger", dare, alone=True, reads=("density", "seed")),
    "blora": Method("B-LoRA: content from one block of SDXL, style from another", owner=blora),
    "reverse": Method("content protected instead, so the style fades", reverse, Basis.CONTENT_INPUT, reads=("mu", "k")),
    "uspace": Method("np on the output side, for comparison", output_space, Basis.STYLE_OUTPUT, reads=("mu", "k")),
}
"""By the name in the tag."""


def method_named(name: str) -> Method:
    """The row called `name`. Raises RequestError."""
    try:
        return METHODS[name]
    except KeyError:
        hint = did_you_mean(name, METHODS) or f" Known: {', '.join(METHODS)}."
        raise RequestError(f"there is no method '{name}'.{hint}") from None


def scope_named(name: str) -> Callable[[str], bool]:
    """Whether a layer, by its name, is in that scope. Raises RequestError."""
    try:
        return SCOPES[name]
    except KeyError:
        hint = did_you_mean(name, SCOPES) or f" Known: {', '.join(SCOPES)}."
        raise RequestError(f"there is no scope '{name}'.{hint}") from None
