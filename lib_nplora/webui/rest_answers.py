"""What the REST API answers: models for pydantic 1 (A1111) as well as 2 (the Forges)."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import BaseModel, Field

from ..findings.groups import Group
from ..findings.sentences import findings
from ..fusion.outcome import Outcome, Summary
from ..jobs.job import PLAIN_MERGE
from ..jobs.pair import FileFusion, losses_told
from ..layers.key import ModuleKey
from ..request.request import FusionRequest


class Lora(BaseModel):
    """A LoRA that the WebUI lists."""

    name: str = Field(..., description="Stem of the file.")
    alias: str = Field(..., description="What the file's header calls it; the name, if it does not.")
    path: str = Field(..., description="The file.")
    hash: str | None = Field(None, description="Short hash as in `Lora hashes`; null if it is not known yet.")
    made_for: str | None = Field(None, description="The family of models that its header tells of, such as SDXL.")


class Layers(BaseModel):
    """How many layers met with what."""

    fused: int = Field(..., description="In both LoRAs: the content's update was projected.")
    content_only: int = Field(..., description="In the content alone: added as they are.")
    style_only: int = Field(..., description="In the style alone: added as they are.")
    added_unprojected: int = Field(..., description="In both LoRAs, but with nothing to project, as norms and biases.")
    not_matched: int = Field(..., description="Modules of the files that are no layer of a model.")

    @classmethod
    def of(cls, summary: Summary) -> Layers:
        counts = Counter(layer.outcome for layer in summary.layers.values())
        return cls(
            fused=counts[Outcome.FUSED],
            content_only=counts[Outcome.CONTENT_ONLY],
            style_only=counts[Outcome.STYLE_ONLY],
            added_unprojected=counts[Outcome.UNPROJECTED],
            not_matched=summary.not_matched,
        )


class Fused(BaseModel):
    """The new LoRA."""

    name: str = Field(..., description="What `<lora:...>` takes.")
    path: str = Field(..., description="The file.")
    preview: str | None = Field(..., description="The picture on its card, a copy of a source's; null if none has one.")
    layers: Layers
    removed: float = Field(..., description="Share of the content's energy that was removed, 0 to 1.")
    remarks: list[str] = Field(..., description="What you might not expect of it.")


class LayerRow(BaseModel):
    """One layer."""

    name: str
    part: Literal["unet", "te"] = Field(..., description="`te` is a text encoder.")
    outcome: Literal["fused", "content only", "style only", "added unprojected", "left out"]
    removed: float = Field(..., description="Share of the content's energy that is removed, 0 to 1.")
    protected: float = Field(..., description="Share of the layer's input directions that is protected, 0 to 1.")
    reason: str = Field(..., description="Why there is nothing to project; mostly empty.")
    overlap: float | None = Field(
        ...,
        description="Share of the content's energy inside the span of the style's directions, 0 to 1. This and "
        "what follows: null unless both LoRAs hold the layer.",
    )
    chance: float | None = Field(..., description="The overlap to expect of a random content.")
    norm_ratio: float | None = Field(..., description="Norm of the content over that of the style.")
    style_rank: float | None = Field(..., description="The style's effective rank.")
    angle: float | None = Field(..., description="Smallest principal angle between the two, in degrees.")
    winners: str | None = Field(..., description="Of a method that changes with the steps: a letter c or s for each.")


class Inspected(BaseModel):
    """What the fusion would be."""

    layers: Layers
    removed: float = Field(
        ..., description="Share of the content's energy that is removed, 0 to 1. With mu `hard`, this is the overlap."
    )
    protected: float = Field(
        ..., description="Share of the input directions that is protected, mean of the fused layers, 0 to 1."
    )
    content_energy: float = Field(..., description="Squared Frobenius norm of the weighted content.")
    style_energy: float = Field(..., description="Squared Frobenius norm of the weighted style.")
    overlap: float = Field(..., description="As in the rows, over all layers that both LoRAs hold.")
    chance: float = Field(..., description="Likewise.")
    norm_ratio: float | None = Field(..., description="Likewise.")
    same_start: bool = Field(..., description="Whether both seem to be trained by one trainer from one seed.")
    findings: list[str] = Field(..., description="What it means, in sentences.")
    plot: str | None = Field(..., description="A PNG file in base64, if it was asked for.")
    rows: list[LayerRow] = Field(..., description="Layer by layer.")
    remarks: list[str] = Field(..., description="What you might not expect of it.")

    @classmethod
    def of(
        cls, fusion: FileFusion, request: FusionRequest, letters: Mapping[ModuleKey, str], plot: bytes | None
    ) -> Inspected:
        summary, total = fusion.summary, Group.of(fusion.interference.values())
        measured = ("overlap", "chance", "norm_ratio", "style_rank", "angle")
        rows = [
            LayerRow(
                name=str(key),
                part=key.part,
                outcome=cast(Any, layer.outcome.value),
                removed=layer.removed,
                protected=layer.protected,
                reason=layer.reason,
                winners=letters.get(key),
                **{name: getattr(fusion.interference.get(key), name, None) for name in measured},
            )
            for key, layer in summary.layers.items()
        ]
        return cls(
            layers=Layers.of(summary),
            removed=summary.removed,
            protected=summary.protected,
            content_energy=summary.content_energy,
            style_energy=summary.style_energy,
            overlap=total.overlap,
            chance=total.chance,
            norm_ratio=total.norm_ratio,
            same_start=total.same_start,
            findings=[*map(str, findings(fusion, request))],
            plot=b64encode(plot).decode() if plot else None,
            rows=rows,
            remarks=remarks(fusion),
        )


def remarks(fusion: FileFusion) -> list[str]:
    """What one might not expect of it."""
    found = [remark.told("API") for remark in fusion.remarks]
    if fusion.merges_plainly:
        found.append(PLAIN_MERGE)
    if fusion.losses:
        found.append(losses_told(fusion))
    return found
