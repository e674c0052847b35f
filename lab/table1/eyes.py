"""What pictures are compared by: CLIP and DINO, or the miniature's judge in their place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab import judge as judges
from lab.data import SIZE
from lib_nplora.errors import FileError

if TYPE_CHECKING:
    from PIL.Image import Image

CLIP = ("clip", "clip_vision_model")
DINO = ("vit", "dinov2", "dinov2_with_registers")
"""Kinds of models, as their config.json calls them."""


@dataclass(frozen=True)
class Reading:
    """What the pictures of one pair by one method are like, on average, by one scorer.

    content, style
        Cosines to that side's pictures, one an eye.
    """

    content: tuple[float, ...]
    style: tuple[float, ...]

    @property
    def arithmetic(self) -> float:
        """S_arith, the mean of all."""
        return fmean((*self.content, *self.style))

    @property
    def harmonic(self) -> float:
        """S_harm = n / sum(1 / S_i), n = 4 with two eyes; nothing is less than about 0."""
        values = (*self.content, *self.style)
        return len(values) / sum(1 / max(value, 1e-6) for value in values)

    @classmethod
    def mean(cls, scores: Sequence[Reading], weights: Sequence[float] = ()) -> Reading:
        """Weighted alike unless told otherwise."""

        def column(values: Sequence[float]) -> float:
            return float(np.average(values, weights=weights or None))

        return cls(*(tuple(map(column, zip(*(getattr(one, side) for one in scores)))) for side in ("content", "style")))

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Reading:
        return cls(tuple(found["content"]), tuple(found["style"]))


@dataclass(frozen=True, eq=False)
class Seen:
    """Unit vectors (pictures, width) by which pictures are compared with those of a side, one an eye."""

    content: tuple[Tensor, ...]
    style: tuple[Tensor, ...]


class Scorer(Protocol):
    """Whatever sees pictures.

    title
        What stands above its columns.
    eyes
        Names of what it sees by.
    files
        What its answers depend on.
    """

    title: str
    eyes: tuple[str, ...]
    files: tuple[Path, ...]

    def look(self, pictures: Sequence[Image]) -> Seen: ...


def reading(scorer: Scorer, pictures: Sequence[Image], content: Sequence[Image], style: Sequence[Image]) -> Reading:
    """Mean cosine of each picture to each reference of a side."""
    seen, subject, look = (scorer.look(one) for one in (pictures, content, style))
    return Reading(_cosines(seen.content, subject.content), _cosines(seen.style, look.style))


def _cosines(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> tuple[float, ...]:
    return tuple((one @ other.T).mean().item() for one, other in zip(ours, theirs))


class ClipAndDino:
    """The papers' scorer: image embeddings of CLIP, and the class token of DINO."""

    eyes = ("CLIP", "DINO")

    def __init__(self, clip: Path, dino: Path, device: str) -> None:
        """Raises FileError for a folder that does not hold such a model."""
        from transformers import AutoModel, CLIPVisionModelWithProjection

        self.title = f"{clip.name} and {dino.name}"
        self._clip, self._dino = (
            _opened(folder, name, kinds, loader, device)
            for folder, name, kinds, loader in (
                (clip, "CLIP", CLIP, CLIPVisionModelWithProjection),
                (dino, "DINO", DINO, AutoModel),
            )
        )
        self.files = tuple(path for folder in (clip, dino) for path in _weights(folder))

    def look(self, pictures: Sequence[Image]) -> Seen:
        embeds = self._clip.look(pictures).image_embeds
        tokens = self._dino.look(pictures).last_hidden_state[:, 0]
        both = tuple(F.normalize(one.float(), dim=1).cpu() for one in (embeds, tokens))
        return Seen(both, both)


@dataclass(frozen=True, eq=False)
class _Model:
    """A model of transformers with the processor of its pictures."""

    model: Any
    processor: Any

    @torch.no_grad()
    def look(self, pictures: Sequence[Image]) -> Any:
        pixels = self.processor(images=list(pictures), return_tensors="pt").pixel_values
        return self.model(pixel_values=pixels.to(self.model.device))


def _opened(folder: Path, name: str, kinds: Sequence[str], loader: Any, device: str) -> _Model:
    """Raises FileError."""
    from transformers import AutoImageProcessor

    if not folder.is_dir():
        raise FileError(f"there is no folder '{folder}': download {name} as transformers saves it")
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError) as error:
        raise FileError(f"'{folder}' holds no model of transformers: there is no config.json to be read") from error
    if kind not in kinds:
        raise FileError(f"'{folder}' holds a model of kind {kind}, no {name}: name one of kind {' or '.join(kinds)}")
    try:
        model = loader.from_pretrained(folder, local_files_only=True).to(device).eval().requires_grad_(False)
        return _Model(model, AutoImageProcessor.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError) as error:
        raise FileError(f"'{folder}' cannot be opened: {error}") from error


def _weights(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".json"))


class JudgeInPlace:
    """The miniature's judge in CLIP's and DINO's place: one eye, which sees subject and style each by its own."""

    eyes = ("judge",)

    def __init__(self, path: Path) -> None:
        """Raises FileError if there is none."""
        if not path.is_file():
            raise FileError(f"there is no judge '{path}': train one with python -m lab.judge")
        self.title, self.files = path.stem, (path,)
        self._judge = judges.load(path)

    @torch.no_grad()
    def look(self, pictures: Sequence[Image]) -> Seen:
        pixels = np.stack([np.asarray(one.convert("RGB").resize((SIZE, SIZE))) for one in pictures])
        subject, style = self._judge.embed(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1)
        return Seen((subject,), (style,))
