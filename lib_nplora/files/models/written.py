"""A family's layers and its text encoders', by the names under which a file holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...layers.key import ModuleKey
from ...maths.delta import Delta
from .. import text_encoders
from ..slot import BIAS
from .family import PREFIX


def entries(
    layers: Mapping[ModuleKey, Delta],
    named: Callable[[Mapping[ModuleKey, Delta]], dict[str, Delta]],
    prefix: str,
    written: Callable[[str], str],
    t5: str = text_encoders.T5,
) -> dict[str, Delta]:
    """Layers by canonical names -> by those of a spelling.

    named
        Layers of the diffusion model by canonical names -> by those that stand, `written`, behind `prefix`.
    t5
        What stands before a T5's layers, which are named as kohya does in every spelling.
    """
    model = named({key: delta for key, delta in layers.items() if key.part != "te"})
    text = {str(key.name): delta for key, delta in layers.items() if key.part == "te"}
    if prefix != PREFIX:
        text = {text_encoders.in_diffusers(name): delta for name, delta in text.items()}
    text = {
        t5 + name.removeprefix(text_encoders.T5) if name.startswith(text_encoders.T5) else name: delta
        for name, delta in text.items()
    }
    biases = {name: name.endswith(BIAS) for name in model}
    return text | {
        prefix + written(name.removesuffix(BIAS)) + BIAS * biases[name]: delta for name, delta in model.items()
    }


def flat(dotted: str) -> str:
    """A module's name as kohya writes it."""
    return dotted.replace(".", "_")
