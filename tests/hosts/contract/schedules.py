"""Which LoRA stood in which layer at which step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...reference.kohya import factors, fused
from ...reference.matrices import Factors
from ..driver import Call
from .loras import Loras


def updates_by_winner(
    content: Path, style: Path, names: Iterable[str], *, c: float = 1.0, s: float = 1.0, neither: bool = False
) -> dict[str, dict[str, Factors]]:
    """What these layers hold while the content wins, and while the style does, and if nothing is applied."""
    sides = {}
    for side, path, weight in (("c", content, c), ("s", style, s)):
        updates = factors(path)
        sides[side] = {name: (weight * updates[name][0], updates[name][1]) for name in names}
    if neither:
        sides["-"] = {name: nothing(update) for name, update in sides["c"].items()}
    return sides


def nothing(update: Factors) -> Factors:
    """An update of the same layer that changes nothing."""
    return 0 * update[0][:, :1], update[1][:1]


def standing(loras: Loras, expected: Mapping[str, str]) -> dict[str, Factors]:
    """All layers after the last step: the contested ones their winner's, the others the plain sum."""
    sides = {"c": factors(loras.knight), "s": factors(loras.ink)}
    plain = fused(loras.knight, loras.ink, 0)
    return {**plain, **{name: sides[letters[-1]][name] for name, letters in expected.items()}}


def sampler_passes(calls: Sequence[Call]) -> list[list[Call]]:
    """The calls of each time that a sampler ran."""
    passes: list[list[Call]] = []
    for call in calls:
        if call.number == 0:
            passes.append([])
        passes[-1].append(call)
    return passes


def letters_by_layer(calls: Sequence[Call]) -> dict[str, str]:
    """Layer -> the label at each call."""
    print(f"{len(calls)} calls, worst relative error {max(call.error for call in calls):.1e}")
    return {name: "".join(call.labels[name] for call in calls) for name in calls[0].labels}


def schedules(calls: Sequence[Call], steps: int) -> list[dict[str, str]]:
    """A pass each: layer -> the label at each of so many steps."""
    passes = sampler_passes(calls)
    assert [[(call.number, call.steps) for call in one] for one in passes] == [
        [(i, steps) for i in range(steps)] for _ in passes
    ]
    return [letters_by_layer(one) for one in passes]
