"""NP-LoRA and its counter-examples: one side projected off the other's principal directions.

Chen, Zhou, Zhang and Huang, arXiv 2511.11051.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..maths.rank_rule import RankRule
from ..maths.subspace import project_out, project_out_output, projection_strength
from .balance import balanced
from .bases import CONTENT_INPUT, STYLE_INPUT, STYLE_OUTPUT
from .layer import Layer
from .method import Effect, Method, Sum
from .parameter import Choice, Parameter, Strength, Values
from .texts import HARD, format_number, parse_mu

SMALL_EFFECT = 0.01
"""Share of the content's energy under which a projection is hardly seen, and is said to be so."""

MANY_DIRECTIONS = 0.5
"""Share of the directions over which a style's basis leaves hardly any content, as one that has no small rank does."""

MU = Parameter(
    "mu",
    parse_mu,
    default=0.5,
    words="how strongly the style (reverse: the content) is protected; 0 is the plain merge",
    takes="a number from 0 up, or hard",
    format=format_number,
    by_block=True,
    positional=True,
    widget=Strength(
        most=10,
        hard="hard",
        recipe="Start at 0.5. The style is weak: hard. The subject is lost: 0.2, or a lower style weight.",
    ),
    trials=("0", "0.1", "0.25", "0.5", "1", "2", "5", "10", "hard"),
)

K = Parameter(
    "k",
    RankRule.parse,
    default=RankRule(),
    words="how many of the style's directions are protected",
    takes="all, a number such as 16, or a share such as 90%",
    widget=Choice(("all", "8", "16", "32", "90%", "99%"), free=True),
    label="Directions (k)",
    trials=("1", "2", "4", "8", "16", "32", "90%", "99%", "all"),
)

FEWER = ("k=32", "k=90%")
"""What protects a style's strongest directions alone, as in the tag."""


def null_space(layer: Layer, values: Values) -> Sum:
    """NP-LoRA: dW_s + dW_c (I - mu / (1 + mu) V V^T). arXiv 2511.11051, Eq. 26-27; `hard` (mu = infinity): Eq. 10."""
    return _off_the_style(layer, values[MU], values[K])


def hard(layer: Layer, values: Values) -> Sum:
    """NP-LoRA's hard projection, arXiv 2511.11051, Eq. 10: `null_space` with mu = infinity."""
    return _off_the_style(layer, HARD, values[K])


def _off_the_style(layer: Layer, mu: float, k: RankRule) -> Sum:
    basis, beta = STYLE_INPUT.of(layer).basis(k), projection_strength(mu)
    contents = [project_out(content, basis, beta) for content in layer.content.deltas]
    return Sum(contents, layer.style.deltas, basis.shape[1] / basis.shape[0])


def reverse(layer: Layer, values: Values) -> Sum:
    """The style projected off the content's directions, softly by mu: arXiv 2511.11051, Fig. 7b (where it is hard).

    To show why NP-LoRA does the opposite: it erases the style.
    """
    basis, beta = CONTENT_INPUT.of(layer).basis(values[K]), projection_strength(values[MU])
    styles = [project_out(style, basis, beta) for style in layer.style.deltas]
    return Sum(layer.content.deltas, styles, basis.shape[1] / basis.shape[0])


def output_space(layer: Layer, values: Values) -> Sum:
    """dW_s + (I - mu / (1 + mu) U U^T) dW_c, U the left singular vectors of dW_s: arXiv 2511.11051, section IX, Fig. 9.

    To show why NP-LoRA projects on the input side: this leaves the interference where it is.
    """
    basis, beta = STYLE_OUTPUT.of(layer).basis(values[K]), projection_strength(values[MU])
    contents = [project_out_output(content, basis, beta) for content in layer.content.deltas]
    return Sum(contents, layer.style.deltas, basis.shape[1] / basis.shape[0])


def _remarks(cause: str, effect: Effect) -> Sequence[str]:
    if effect.removed is None:
        return ()
    removed = f"{cause} removes {100 * effect.removed:.2f} % of the content's energy"
    if 0 < effect.removed < SMALL_EFFECT:
        return [f"these LoRAs hardly overlap: {removed}"]
    if effect.protected > MANY_DIRECTIONS:
        return [
            f"the style uses {100 * effect.protected:.0f} % of all directions, so little content is left: "
            f"{removed}. Try {FEWER[0]}"
        ]
    return ()


def _by_mu(values: Values, effect: Effect) -> Sequence[str]:
    text = values.text(MU)
    return () if text == "0" else _remarks(f"mu={text}", effect)


METHODS = balanced(
    Method(
        "np",
        order=1,
        about="style protected, softly by mu",
        told="takes the content off the style's directions, softly by mu",
        source="NP-LoRA, [2511.11051](https://arxiv.org/abs/2511.11051)",
        fuse=null_space,
        parameters=(MU, K),
        needs=(STYLE_INPUT,),
        projects_by=lambda values: values[MU],
        directions=lambda values: values[K],
        fewer=FEWER,
        remarks=_by_mu,
    ),
    Method(
        "hard",
        order=2,
        about="style fully protected",
        told="the same, completely: `np` with mu `hard`",
        source="there, Eq. 10",
        fuse=hard,
        parameters=(K,),
        needs=(STYLE_INPUT,),
        projects_by=lambda values: HARD,
        directions=lambda values: values[K],
        fewer=FEWER,
        remarks=lambda values, effect: _remarks("method=hard", effect),
    ),
    Method(
        "reverse",
        order=11,
        about="content protected instead, so the style fades",
        told="takes the style off the content's directions: the paper's counter-example, the style fades",
        source="NP-LoRA, Fig. 7b",
        fuse=reverse,
        parameters=(MU, K),
        needs=(CONTENT_INPUT,),
        directions=lambda values: values[K],
        fewer=FEWER,
    ),
    Method(
        "uspace",
        order=12,
        about="np on the output side, for comparison",
        told="`np` on the output side: the paper's other counter-example",
        source="NP-LoRA, Fig. 9",
        fuse=output_space,
        parameters=(MU, K),
        needs=(STYLE_OUTPUT,),
        directions=lambda values: values[K],
        fewer=FEWER,
        remarks=_by_mu,
    ),
)
