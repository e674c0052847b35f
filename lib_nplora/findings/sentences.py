"""What the interference of two LoRAs means, in words."""

from __future__ import annotations

import math
from dataclasses import replace

from ..jobs.job import PLAIN_MERGE
from ..jobs.pair import NOTHING_MEETS, FileFusion
from ..layers.by_block import ByBlock
from ..maths.rank_rule import RankRule
from ..methods.parameter import Strength
from ..methods.table import methods, usual
from ..methods.texts import format_number
from ..request.request import FusionRequest
from .groups import PARTS, Group, groups_by_block, groups_by_part
from .said import Said, Value, say
from .sides import stronger

LITTLE = 0.05
"""Share of the content's energy: with less than that to remove, mu can't do much."""

MUCH = 0.5

AS_UNRELATED = 1.2
"""Up to so many times what unrelated LoRAs would share is said to be no more than that."""


def removed_at(mu: float) -> float:
    """Share of what is inside the protected directions that np removes: 1 - 1 / (1 + mu)^2, Eq. 25-26."""
    return 1 - 1 / (1 + mu) ** 2


def findings(fusion: FileFusion, request: FusionRequest) -> list[Said]:
    """Sentences for the user: the verdict, then the most important first."""
    rows = fusion.interference
    total = Group.of(rows.values())
    found = [verdict(fusion, request)]
    if not rows or not total.norm_ratio:
        return found
    if len(parts := groups_by_part(rows)) > 1:
        unet, te = (_overlap(parts[PARTS[part]]) for part in ("unet", "te"))
        found.append(say("In the diffusion model {unet}; in the text encoder {te}.", unet=unet, te=te))
    if len(blocks := groups_by_block(rows)) > 1:
        most, least = (pick(blocks, key=lambda block: blocks[block].overlap) for pick in (max, min))
        found.append(
            say(
                "Most in {most} ({much}), least in {least} ({little}).",
                most=most,
                much=_overlap(blocks[most]),
                least=least,
                little=_overlap(blocks[least]),
            )
        )
    found += filter(
        None, (_reach(total, request), _same_start(total), _wide(total, request), stronger(fusion, request))
    )
    if others := [layer for key, layer in fusion.summary.layers.items() if key not in rows and layer.content_energy]:
        found.append(
            say(
                "Not counted: {count} layers of the content that the style lacks, or has no directions in.",
                count=str(len(others)),
            )
        )
    return found


def verdict(fusion: FileFusion, request: FusionRequest) -> Said:
    """What the two share and what that comes to, in one sentence."""
    rows = fusion.interference
    total = Group.of(rows.values())
    if not rows:
        return say(PLAIN_MERGE if fusion.merges_plainly else NOTHING_MEETS)
    if not total.norm_ratio:
        return say("One of the two changes nothing in the layers that both have, so this is a plain merge.")
    values: dict[str, Value] = {"share": percent(total.overlap), "times": _times(total), "mu": _mu(request)}
    if projects(request):
        return say(
            "The two share {share} of the content's energy, {times}; mu = {mu} removes {removed}.",
            **values,
            removed=percent(total.removed),
        )
    return say(
        "The two share {share} of the content's energy, {times}; method={method} does not look at that, {np} at "
        "mu = {mu} would remove {removed}.",
        **values,
        method=request.method.name,
        np=usual().name,
        removed=percent(total.inside * removed_at(strength_of(request))),
    )


def projects(request: FusionRequest) -> bool:
    """Whether the method takes the content off the style's directions."""
    return request.method.projects_by is not None


def strength_of(request: FusionRequest) -> float:
    """The mu that counts where there is no exception by block; if the method has none, that of the usual method."""
    asked = _projecting(request)
    assert asked.method.projects_by is not None
    return asked.method.projects_by(asked.values)


def _projecting(request: FusionRequest) -> FusionRequest:
    """The request, with the usual method if its own does not project."""
    return request if projects(request) else replace(request, method=usual())


def _mu(request: FusionRequest) -> Said:
    asked = _projecting(request)
    strengths = [one.name for one in asked.method.parameters if isinstance(one.widget, Strength)]
    mu = format_number(strength_of(request))
    if any(isinstance(held := asked.values.held[name], ByBlock) and held.exceptions for name in strengths):
        return say("{mu} (others by block)", mu=mu)
    return say("{mu}", mu=mu)


def _reach(total: Group, request: FusionRequest) -> Said | None:
    """What the ends of mu's range would do, where mu counts."""
    if not projects(request):
        return None
    most = percent(total.inside)
    if total.inside < LITTLE:
        return say(
            "mu can't do much for this pair: even hard removes only {most}. The two weights, or method={method}, "
            "change more.",
            most=most,
            method=next(method.name for method in methods().values() if method.changes_with_steps),
        )
    if total.inside > MUCH:
        quarter = 1 / math.sqrt(1 - 0.25 / total.inside) - 1
        return say(
            "hard would remove {most}, most of the subject; mu = {quarter} removes a quarter.",
            most=most,
            quarter=f"{quarter:.2f}",
        )
    return say("hard would remove {most}.", most=most)


def _same_start(total: Group) -> Said | None:
    if total.same_start:
        told = say(
            "Both seem to be trained from the same start (one trainer, one seed): their inner factors are still alike "
            "({likeness}; 1 is the same, 0 is unrelated).",
            likeness=f"{total.start:.2f}",
        )
        if total.times_chance < 1.5:
            return told
        return say(
            "{told} Much of what they share is that start, not a common look: use a small mu, or train one of them "
            "with another seed.",
            told=told,
        )
    if total.times_chance > 3:
        return say("That is far more than unrelated LoRAs share: they learned much alike, or come from one training.")
    return None


def _wide(total: Group, request: FusionRequest) -> Said | None:
    fewer = request.method.fewer
    if fewer and total.chance > MUCH and request.method.directions(request.values) == RankRule():
        return say(
            "The style uses nearly every direction there is: {few} or {some} protects only its strongest.",
            few=fewer[0],
            some=fewer[-1],
        )
    return None


def _overlap(group: Group) -> Said:
    return say("{share}, {times}", share=percent(group.overlap), times=_times(group))


def _times(group: Group) -> Said:
    """An overlap beside what unrelated LoRAs of these sizes have."""
    if group.times_chance <= AS_UNRELATED:
        return say("no more than unrelated LoRAs would share")
    return say("{times} x what unrelated LoRAs would share", times=f"{group.times_chance:.2g}")


def percent(share: float) -> str:
    """As 14 %, 2.5 % or 0.63 %."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.2g} %"
