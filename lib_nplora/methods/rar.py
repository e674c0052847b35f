"""LoRA.rar: a hypernetwork that was trained beforehand says how strongly each column of both sides counts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FileError, Remedy, RequestError, did_you_mean
from ..files.hashing import sha256
from ..files.tensor_file import TensorFile
from ..layers.key import ModuleKey
from ..layers.weights import LoraWeights
from ..maths.delta import Delta
from ..maths.lowrank import LowRankDelta
from .balance import balanced
from .layer import Layer, Side
from .method import Method, Sum, added_up
from .parameter import Parameter, Setting, Values

FIRST = {640: "input_1", 1280: "input_2"}
"""Width of a layer -> its first layer in the hypernetwork: SDXL's attentions have these two widths."""

SHAPES = {
    **{f"{name}.weight": (128, 2 * width) for width, name in FIRST.items()},
    **{f"{name}.bias": (128,) for name in FIRST.values()},
    "output.1.weight": (2, 128),
    "output.1.bias": (2,),
}
"""What the published file holds."""

PUBLISHED = (
    "method=rar needs LoRA.rar's hypernetwork, which its authors publish at https://github.com/donaldssh/LoRA.rar "
    "(models/hypernet.pth, CC BY-NC-SA 4.0: not for commercial use)"
)

NAME_IT = Remedy(
    "download it and name your copy: --hypernet FILE, in Python hypernet='FILE'",
    "download it and name your copy in the WebUI's settings, NP-LoRA: hypernet",
)

_KINDS = {"self q", "self out", "cross q", "cross out"}


@dataclass(frozen=True)
class Hypernet:
    """A network of two layers that looks at a column of the content's delta and one of the style's.

    name, digest
        The file's, and its SHA-256: equal digests, equal tensors.
    tensors
        As in SHAPES, float32.
    """

    name: str
    digest: str
    tensors: Mapping[str, Tensor] = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name} {self.digest[:10]}"

    def mergers(self, contents: Iterable[Delta], styles: Iterable[Delta]) -> Tensor:
        """(2, in): how strongly each column of either side's sum, (out, in), counts.

        W2 relu(W1 [c; s] + b1) + b2 for the columns c and s, with W1 for their length `out`. W1 [c; s] is the sum of
        two products, each of which goes through a delta's factors.
        """
        contents, styles = [*contents], [*styles]
        width = contents[0].shape[0]
        first = self.tensors[f"{FIRST[width]}.weight"]
        seen = self.tensors[f"{FIRST[width]}.bias"][:, None]
        for side, weight in ((contents, first[:, :width]), (styles, first[:, width:])):
            for delta in side:
                seen = seen + _product(weight, delta)
        return self.tensors["output.1.weight"] @ seen.relu() + self.tensors["output.1.bias"][:, None]


def _product(matrix: Tensor, delta: Delta) -> Tensor:
    """matrix @ delta."""
    if isinstance(delta, LowRankDelta):
        return (matrix @ delta.up) @ delta.down
    return matrix @ delta.matrix


def read_hypernet(text: str) -> Hypernet | None:
    """The hypernetwork in the file of that path; none for no path. Raises RequestError."""
    if not text.strip():
        return None
    path = Path(text.strip()).expanduser()
    try:
        stat = path.stat()
        return _read(path, (stat.st_mtime_ns, stat.st_size))
    except FileError as error:
        raise RequestError(f"hypernet: {error.problem}") from error
    except OSError as error:
        near = did_you_mean(path.name, os.listdir(path.parent) if path.parent.is_dir() else ())
        raise RequestError(f"hypernet: '{path}' cannot be read ({error.strerror}).{near}") from error


@lru_cache(maxsize=2)
def _read(path: Path, stamp: tuple[int, int]) -> Hypernet:
    tensors = _loaded(path)
    for name, needed in SHAPES.items():
        found = tensors.get(name)
        if not isinstance(found, Tensor) or tuple(found.shape) != needed:
            there = " x ".join(map(str, found.shape)) if isinstance(found, Tensor) else "nothing"
            raise FileError(
                f"'{path.name}' is not LoRA.rar's hypernetwork: {there} stands where that has {name}, "
                f"{' x '.join(map(str, needed))}"
            )
    held = {name: tensors[name].detach().to("cpu", torch.float32).contiguous() for name in SHAPES}
    if not all(bool(tensor.isfinite().all()) for tensor in held.values()):
        raise FileError(f"'{path.name}' holds values that are no numbers: download it again")
    return Hypernet(path.name, sha256(path), held)


def _loaded(path: Path) -> Mapping[str, Tensor]:
    """What a .pth file, of which nothing but tensors is read, or a .safetensors file holds by name."""
    if path.is_dir() or path.suffix.lower() == ".safetensors":
        file = TensorFile(path)
        return {name: file.read(name) for name in file.names}
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileError(f"'{path.name}' is no file of tensors ({reason}): LoRA.rar's hypernetwork is") from error
    return found if isinstance(found, Mapping) else {}


HYPERNET: Parameter[Hypernet | None] = Parameter(
    "hypernet",
    read_hypernet,
    default=None,
    words="your copy of LoRA.rar's hypernetwork",
    takes="a .pth or .safetensors file",
    format=lambda value: str(value or ""),
    widget=Setting("path of your copy of LoRA.rar's hypernetwork, for method=rar"),
    infotext="NP-LoRA hypernet",
)


def is_weighed(key: ModuleKey) -> bool:
    """Whether the hypernetwork is for that layer, if its width is right: q and out of the UNet's attentions."""
    return key.part == "unet" and key.place.kind in _KINDS


def rar(layer: Layer, values: Values) -> Sum:
    """LoRA.rar, arXiv 2412.05148: column i of dW_m is m_c,i dW_c[:, i] + m_s,i dW_s[:, i], m by the hypernetwork.

    In q and out of the attentions; elsewhere both are 1, as the authors have it for k and v. The hypernetwork looks at
    a side's one LoRA with weight 1, as it was trained to, and its weight multiplies what comes of it; at several with
    their weights. Columns scale `down`, so the ranks stay.
    """
    if not is_weighed(layer.key):
        return added_up(layer)
    hypernet = values[HYPERNET]
    if hypernet is None:
        raise RequestError(PUBLISHED, NAME_IT)
    out = layer.content.stop - layer.content.start
    if out not in FIRST or layer.key.rows:
        raise RequestError(
            f"method=rar knows attentions that are {' or '.join(map(str, FIRST))} wide, as SDXL's are, and layer "
            f"{layer.key} is {out} wide: choose another method"
        )
    (c, content), (s, style) = layer.content.one_weight(), layer.style.one_weight()
    of_content, of_style = hypernet.mergers(content.deltas, style.deltas)
    return Sum(_columns(content, c * of_content), _columns(style, s * of_style))


def _columns(side: Side, mergers: Tensor) -> Sequence[Delta]:
    """With column i multiplied by mergers[i]."""
    return [delta.on_input(lambda rows: rows * mergers) for delta in side.deltas]


def _check(values: Values) -> None:
    if values[HYPERNET] is None:
        raise RequestError(PUBLISHED, NAME_IT)


def _check_pair(values: Values, contents: Sequence[LoraWeights], styles: Sequence[LoraWeights]) -> None:
    """Raises RequestError if the two share no layer that the hypernetwork is for."""
    content, style = ({key.layer for lora in side for key in lora.deltas} for side in (contents, styles))
    if not any(map(is_weighed, content & style)):
        names = " and ".join(f"'{lora.name}'" for lora in (*contents, *styles))
        raise RequestError(
            f"method=rar weighs q and out of SDXL's attentions, and {names} have none of them in common: choose "
            "another method"
        )


METHODS = balanced(
    Method(
        "rar",
        order=17,
        about="LoRA.rar: a trained network weighs the columns; SDXL only",
        told="a network that LoRA.rar's authors trained says how strongly each column counts, in q and out of SDXL's "
        "attentions; the rest is added. [You need its file](#lorarars-hypernetwork)",
        source="LoRA.rar, [2412.05148](https://arxiv.org/abs/2412.05148)",
        fuse=rar,
        parameters=(HYPERNET,),
        check=_check,
        check_pair=_check_pair,
    ),
)
