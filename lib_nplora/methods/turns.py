"""Methods that give a layer to the contents at some steps and to the styles at the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ..errors import RequestError
from ..maths.delta import total
from .balance import balanced
from .layer import Layer, Need, Side
from .method import Effect, Made, Method, Turns, added_up, every
from .parameter import Choice, Parameter, Values, check_choice
from .selection import EVEN, Contest, Importance, Rule, content_wins, importance, rank_of, rising, sawtooth, top_k
from .texts import format_number, parse_number

SCOPES: dict[str, Callable[[Layer], bool]] = {
    "attention": lambda layer: layer.key.place.is_attention,
    "all": lambda layer: True,
}
"""Name -> which layers of the diffusion model take turns."""

ALPHA = Parameter(
    "alpha",
    partial(parse_number, "alpha"),
    default=1.5,
    words="how much the style gains",
    takes="a number",
    format=format_number,
    number=float,
)

BETA = Parameter(
    "beta",
    partial(parse_number, "beta"),
    default=0.5,
    words="how strong the style starts",
    takes="a number",
    format=format_number,
    number=float,
)

SCOPE = Parameter(
    "scope",
    lambda text: check_choice("scope", text, SCOPES),
    default="attention",
    words="which layers take turns",
    takes="attention or all",
    widget=Choice(tuple(SCOPES)),
    trials=tuple(SCOPES),
)


# Who wins


def klora(values: Values) -> Rule:
    """K-LoRA: content wins while S_c >= gamma S S_s. arXiv 2502.18461, Eq. 1-10.

    Algorithm 1 has alpha and beta the other way round than Eq. 7, by whose names their values are given.
    """

    def wins(contest: Contest, gamma: float, step: int, steps: int) -> bool:
        return content_wins(contest, gamma, rising(values[ALPHA], values[BETA], step, steps))

    return wins


def klora_star(values: Values) -> Rule:
    """K-LoRA with the sawtooth scale, which gives the style the first steps, too: arXiv 2502.18461, Eq. 12.

    `alpha`, above 0, stands for both of the equation's.
    """

    def wins(contest: Contest, gamma: float, step: int, steps: int) -> bool:
        return content_wins(contest, gamma, sawtooth(values[ALPHA], values[BETA], step, steps))

    return wins


def _has_teeth(values: Values) -> None:
    if values[ALPHA] <= 0:
        raise RequestError(f"alpha={values[ALPHA]:g} makes no sawtooth: klora* takes an alpha above 0")


def fixed(values: Values) -> Rule:
    """K-LoRA's Fixed Selection, arXiv 2502.18461, section 4.3: content while S <= 1, style after.

    The paper's sentence has it the other way round (content if the scale is *greater* than one). S grows with the
    steps, so that would give the content the late steps, against the paper's own finding (ii), which the sentence says
    it follows: content early, style late.
    """

    def wins(contest: Contest, gamma: float, step: int, steps: int) -> bool:
        return rising(values[ALPHA], values[BETA], step, steps) <= 1

    return wins


def switch(values: Values) -> Rule:
    """LoRA Switch of Multi-LoRA Composition, arXiv 2402.16843: one LoRA a step, in turn, content first."""

    def wins(contest: Contest, gamma: float, step: int, steps: int) -> bool:
        return step % 2 == 0

    return wins


# What takes turns


def _count(layer: Layer) -> int:
    """K of Eq. 5."""
    return top_k(*(sum(rank_of(delta) for delta in side.plain) for side in (layer.content, layer.style)))


def _importance(of: Callable[[Layer], Side]) -> Need[Importance]:
    """What one side weighs; for weight 1 if it is one LoRA, so that other weights of it cost nothing."""

    def depends_on(layer: Layer) -> object:
        _, side = of(layer).one_weight()
        weights = tuple(share.weight for share in side.shares)
        return _count(layer), layer.key.rows, side.identity, weights

    def make(layer: Layer) -> Importance:
        _, side = of(layer).one_weight()
        return importance(total(side.deltas), _count(layer))

    return Need("importance", depends_on, make)


CONTENT_IMPORTANCE = _importance(lambda layer: layer.content)
STYLE_IMPORTANCE = _importance(lambda layer: layer.style)


def _in_scope(layer: Layer, values: Values) -> bool:
    return layer.key.part == "unet" and SCOPES[values[SCOPE]](layer)


def by_weight(layer: Layer, values: Values) -> Made:
    """A layer in scope takes turns by what both sides weigh, unless one of them is all zeros."""
    if not _in_scope(layer, values):
        return added_up(layer)
    content, style = (
        need.of(layer).scaled(side.one_weight()[0])
        for need, side in ((CONTENT_IMPORTANCE, layer.content), (STYLE_IMPORTANCE, layer.style))
    )
    return Turns(Contest(content, style)) if content.total and style.total else added_up(layer)


def by_step(layer: Layer, values: Values) -> Made:
    """A layer in scope takes turns whatever both sides weigh."""
    return Turns(EVEN) if _in_scope(layer, values) else added_up(layer)


def _remarks(values: Values, effect: Effect) -> Sequence[str]:
    if effect.meets and not effect.takes_turns:
        return [f"no layer of scope={values[SCOPE]} is in both LoRAs, so they are merged plainly"]
    return ()


METHODS = balanced(
    Method(
        "klora",
        order=4,
        about="K-LoRA: one LoRA a layer and step, content early, style late",
        told="at each step, each attention layer has the content's update or the style's, whichever weighs more there; "
        "content early, style late. The rest is added",
        source="K-LoRA, [2502.18461](https://arxiv.org/abs/2502.18461), Eq. 1-10",
        fuse=by_weight,
        parameters=(ALPHA, BETA, SCOPE),
        needs=(CONTENT_IMPORTANCE, STYLE_IMPORTANCE),
        rule=klora,
        remarks=_remarks,
    ),
    Method(
        "klora*",
        order=5,
        about="K-LoRA with some style in the first steps, too",
        told="the same, with some style in the first steps",
        source="there, Eq. 12",
        fuse=by_weight,
        parameters=(ALPHA, BETA.defaulting(1.3), SCOPE),
        needs=(CONTENT_IMPORTANCE, STYLE_IMPORTANCE),
        rule=klora_star,
        check=_has_teeth,
        remarks=_remarks,
    ),
    Method(
        "fixed",
        order=6,
        about="content in the early steps, style in the late ones",
        told="content in the early steps, style in the late ones (from `alpha` t / T + `beta` > 1 on), in all "
        "attention layers at once",
        source="there, section 4.3",
        fuse=by_step,
        parameters=(ALPHA, BETA, SCOPE),
        rule=fixed,
        remarks=_remarks,
    ),
    Method(
        "switch",
        order=7,
        about="content and style in turn",
        told="content and style take turns, step by step",
        source="Multi-LoRA Composition, [2402.16843](https://arxiv.org/abs/2402.16843)",
        fuse=by_step,
        parameters=(SCOPE.defaulting("all"),),
        takes=every,
        rule=switch,
        remarks=_remarks,
    ),
)
