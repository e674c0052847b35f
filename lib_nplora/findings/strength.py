"""What was measured of a pair at one strength, told for another."""

from __future__ import annotations

from dataclasses import replace

from ..jobs.pair import FileFusion
from ..methods.parameter import Strength
from ..request.request import FusionRequest
from .sentences import removed_at


def without_strength(request: FusionRequest) -> FusionRequest:
    """The request with its method's own strength, on which nothing that is measured hangs but what is removed."""
    strengths = [one.name for one in request.method.parameters if isinstance(one.widget, Strength)]
    return request.with_values(**dict.fromkeys(strengths))


def at_strength(fusion: FileFusion, request: FusionRequest) -> FileFusion:
    """The same measurements with what this request's strength removes in each layer, arXiv 2511.11051, Eq. 25-26."""
    projects_by, values = request.method.projects_by, request.values
    if projects_by is None:
        return fusion
    rows = {
        key: replace(row, removed=row.inside * removed_at(projects_by(values.at(key.place.block))))
        for key, row in fusion.interference.items()
    }
    return replace(fusion, interference=rows)
