"""The names under which fused layers are stored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch

from ..errors import FileError
from ..layers.key import ModuleKey
from ..maths.delta import Delta
from ..maths.dense import DenseDelta
from ..maths.lowrank import LowRankDelta
from . import mmdit_names, unet_names
from .families import Family
from .module import swapped

BIAS = ".bias"
"""How the name of a bias's delta ends."""

_TEXT_ENCODERS = {"lora_te1_": "text_encoder.", "lora_te2_": "text_encoder_2."}
_TEXT_MODEL = (
    (r"^text_model_", "text_model."),
    (r"(encoder|embeddings)_(layers_(\d+)_)?", lambda m: f"{m[1]}." + (f"layers.{m[3]}." if m[2] else "")),
    (r"(self_attn|mlp)_", r"\1."),
)


def kohya(layers: Mapping[ModuleKey, Delta], family: Family | None) -> dict[str, Delta]:
    """Canonical names are kohya's but for the first text encoder's, and have no slices."""
    found = {}
    for key, delta in layers.items():
        name = str(key)
        if family and name.startswith("lora_te1_"):
            name = family.te_prefix + name.removeprefix("lora_te1_")
        found[name] = delta
    return found


def unet_in_diffusers(layers: Mapping[ModuleKey, Delta]) -> dict[str, Delta]:
    """The names of diffusers for a UNet's layers, `unet.` and all, and its text encoders'.

    Raises FileError for whole layers and biases, which diffusers reads under no name.
    """
    found: dict[str, Delta] = {}
    for key, delta in layers.items():
        name = str(key)
        if not isinstance(delta, LowRankDelta):
            raise FileError(
                f"layer {name} has no factors, which diffusers' spelling cannot hold: choose kohya's, or a rank"
            )
        if key.part == "te":
            found[_text_name(name)] = delta
        else:
            found[f"unet.{unet_names.dotted(name.removeprefix('lora_unet_'))}"] = delta
    return found


def diffusers(layers: Mapping[ModuleKey, Delta], sd3: bool) -> dict[str, Delta]:
    """The names of diffusers, with q, k and v one by one, but for two things that hosts read by other names only.

    Those are biases, whole layers by the names of the model's first authors, and a T5, which is kohya's.
    """
    found: dict[str, Delta] = {}
    biases: dict[str, list[tuple[ModuleKey, Delta]]] = {}
    for key, delta in layers.items():
        name = str(key.name)
        if name.endswith(BIAS) and key.part == "unet":
            biases.setdefault(name, []).append((key, delta))
        elif key.part == "te":
            found[_text_name(name)] = delta
        else:
            found |= _pieces(key, delta)
    for name, parts in biases.items():
        whole = _joined(name, parts)
        dotted = _dotted(name.removesuffix(BIAS))
        theirs = mmdit_names.original(dotted, sd3) or mmdit_names.original(dotted, not sd3)
        if name.endswith("norm_out_linear" + BIAS):
            whole = swapped(whole)
        found[f"diffusion_model.{theirs}{BIAS}"] = whole
    return found


def _dotted(name: str) -> str:
    dotted = mmdit_names.dotted(name.removeprefix("lora_unet_"))
    if dotted is None:
        raise FileError(f"layer {name} is of no model that can be written: use LoRAs for Flux or SD 3")
    return dotted


def _pieces(key: ModuleKey, delta: Delta) -> Iterator[tuple[str, Delta]]:
    """The slices of a layer, or of some of its rows, by their names."""
    first, behind = key.rows or (0, delta.shape[0])
    dotted = _dotted(str(key.name))
    if not mmdit_names.is_fused(dotted):
        yield f"transformer.{dotted}", delta
        return
    end = first
    for name, start, stop in mmdit_names.slices(dotted, delta.shape[1]):
        stop = behind if stop is None else stop
        if first <= start < stop <= behind:
            yield f"transformer.{name}", delta.rows(start - first, stop - first)
            end = stop
    if end != behind:
        raise FileError(
            f"rows {first} to {behind} of layer {key.name} are no whole slices of q, k, v and mlp: use other LoRAs"
        )


def _joined(name: str, parts: list[tuple[ModuleKey, Delta]]) -> Delta:
    """One bias of its slices, in the order of their rows."""
    if parts[0][0].rows is None:
        return parts[0][1]
    parts = sorted(parts, key=lambda part: part[0].rows or (0, 0))
    rows = [key.rows or (0, 0) for key, _ in parts]
    height = min(stop - start for start, stop in rows) * (7 if name.endswith("qkv_mlp" + BIAS) else 3)
    if [start for start, _ in rows] + [height] != [0] + [stop for _, stop in rows]:
        raise FileError(f"{name} is changed in some of its slices only, which no host can read: leave biases out")
    return DenseDelta(torch.cat([delta.dense() for _, delta in parts]), (height,))


def _text_name(name: str) -> str:
    for prefix, theirs in _TEXT_ENCODERS.items():
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            for pattern, replacement in _TEXT_MODEL:
                rest = re.sub(pattern, replacement, rest, count=1)
            return theirs + rest
    return name
