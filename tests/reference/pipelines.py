"""What a pair of files does to the layers of a pipeline, in float64: NP-LoRA, arXiv 2511.11051, Eq. 26-28.

Files may hold several of the pipeline's layers in one module, one behind the other; then the style's directions are
those of its module, for each layer that the module is for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .np_lora import basis, fused_layer


@dataclass(frozen=True, eq=False)
class Module:
    """What a file holds.

    layers
        The pipeline's layers that it is for -> how many rows each has, in their order.
    matrix
        The update, scale included.
    """

    layers: Mapping[str, int]
    matrix: np.ndarray


def updates(modules: Sequence[Module]) -> dict[str, np.ndarray]:
    """Layer -> its update."""
    found = {}
    for module in modules:
        ends = np.cumsum(list(module.layers.values()))[:-1]
        found.update(zip(module.layers, np.split(module.matrix, ends)))
    return found


def fused(
    content: Sequence[Module], style: Sequence[Module], mu: Callable[[str], float], k: str = "all"
) -> dict[str, np.ndarray]:
    """The update of each layer. What one side alone has is added as it is."""
    contents, styles = updates(content), updates(style)
    bases = {layer: basis([module.matrix], k) for module in style for layer in module.layers}
    return {
        layer: fused_layer(contents[layer], styles[layer], bases[layer], mu(layer))
        if layer in contents and layer in styles
        else contents.get(layer, styles.get(layer))
        for layer in {**contents, **styles}
    }
