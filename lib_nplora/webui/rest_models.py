"""What the REST API takes, and what it answers: models for pydantic 1 (A1111) as well as 2 (the Forges)."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Optional, TypeVar, Union, cast

from pydantic import BaseModel, Field, StrictFloat, StrictInt, StrictStr, create_model

from ..errors import RequestError
from ..files import HIGHEST_RANK, Spelling, parse_size
from ..findings.sentences import Group, findings
from ..fusion.outcome import Outcome, Summary
from ..jobs.pair import PLAIN_MERGE, FileFusion, Saving, losses
from ..layers.key import ModuleKey
from ..maths.rank_rule import RankRule
from ..methods.method import Method
from ..methods.parameter import Parameter
from ..methods.selection import MOST_STEPS, USUAL_STEPS
from ..methods.table import method_named, methods, parameters, readers, usual
from ..methods.texts import parse_number
from ..request.request import FusionRequest
from ..request.tag import read_weight, weighted


class PairBody(BaseModel, extra="forbid"):
    """What to fuse. `with_parameters` adds what the methods read."""

    content: str = Field(..., description="The LoRA of the subject, by the name or alias that `<lora:...>` takes.")
    style: str = Field(..., description="The LoRA of the style, likewise.")
    method: str = Field("np", description="How to fuse them.")
    content_weight: float | str = Field(1.0, description="Weight of the content LoRA, by block too: `1,in@0.6`.")
    style_weight: float | str = Field(1.0, description="Weight of the style LoRA, likewise.")
    te: float = Field(1.0, description="Multiplier of the fused update on the text encoder.")
    unet: float = Field(1.0, description="Multiplier of the fused update on the diffusion model.")

    def request(self) -> FusionRequest:
        """Raises RequestError."""
        method = method_named(self.method)
        content, style = (
            weighted(name, read_weight(key, str(getattr(self, key))))
            for name, key in ((self.content, "content_weight"), (self.style, "style_weight"))
        )
        texts = {name: getattr(self, name, None) for name in parameters()}
        given: dict[str, Any] = {
            name: one.read(str(texts[name])) for name, one in parameters().items() if texts[name] is not None
        }
        multipliers: dict[str, Any] = {part: parse_number(part, repr(getattr(self, part))) for part in ("te", "unet")}
        return FusionRequest.of((content,), (style,), method, **multipliers, **given)


Body = TypeVar("Body", bound=PairBody)


def with_parameters(body: type[Body]) -> type[Body]:
    """The model with a field for each parameter of any method."""
    added: dict[str, Any] = {
        one.name: (
            Optional[Union[StrictInt, StrictFloat, StrictStr]],  # noqa: UP007, UP045 (pydantic 1)
            Field(None, description=_described(one)),
        )
        for one in parameters().values()
    }
    known = ", ".join(methods())
    added["method"] = str, Field(usual().name, description=f"How to fuse them, one of: {known}.")
    made: type[Body] = create_model(body.__name__, __base__=body, **added)
    return made


def _described(parameter: Parameter[Any]) -> str:
    """For whom it is, what it takes, and what counts where it is null."""
    own = parameter.write(parameter.default)
    by_block = f", by block too, such as `{own},mid@2`" if parameter.by_block else ""
    defaults = {method.name: parameter.write(held.default) for method, held in _readers(parameter)}
    others = "".join(f", with {name} {text}" for name, text in defaults.items() if text != own)
    return f"For {', '.join(defaults)}: {parameter.words}; {parameter.takes}{by_block}; null: {own}{others}"


def _readers(parameter: Parameter[Any]) -> list[tuple[Method, Parameter[Any]]]:
    """The methods that read it, each with the parameter as its own."""
    held = ((method, method.parameter(parameter.name)) for method in readers(parameter.name))
    return [(method, own) for method, own in held if own]


class FuseBody(PairBody):
    """What to fuse, and how to save it."""

    output: str = Field(
        ...,
        description="Name of the new file, in the LoRA folder or in a subfolder of it that is there, such as "
        "`styles/dog`. `.safetensors` is added. The name must be new.",
    )
    dtype: Literal["fp16", "bf16", "fp32"] = Field("fp16", description="Number format of the file.")
    rank: StrictInt | None = Field(
        None, description=f"Store every layer with at most this rank, 1 to {HIGHEST_RANK}; null for any."
    )
    energy: str | None = Field(
        None, description="Store every layer with the fewest directions that hold this share of its energy, as `99%`."
    )
    full: bool = Field(False, description="Store layers that have no small rank whole. Not with `rank` or `energy`.")
    spelling: Spelling | None = Field(
        None, description="Names of the layers in the file; null for the usual ones of the model, which WebUIs read."
    )

    def saving(self, file: Path) -> Saving:
        """Raises RequestError."""
        if self.rank is not None and not 0 < self.rank <= HIGHEST_RANK:
            raise RequestError(f"rank={self.rank} is not a whole number from 1 to {HIGHEST_RANK}")
        if sum(map(bool, (self.rank, self.energy, self.full))) > 1:
            raise RequestError("rank, energy and full exclude each other: give one of them")
        size = RankRule(count=self.rank) if self.rank else parse_size(self.energy or "")
        if self.energy and not (size and size.percent):
            raise RequestError(f"energy={self.energy} is not a share such as 99%")
        return Saving(file, self.dtype, size, self.full, spelled=self.spelling)


class InspectBody(PairBody):
    """What to inspect, and how to tell it."""

    steps: StrictInt = Field(
        USUAL_STEPS, description=f"Of the sampler, for methods that change with them, 1 to {MOST_STEPS}."
    )
    plot: bool = Field(False, description="Whether to draw it, too.")

    def request(self) -> FusionRequest:
        """Raises RequestError."""
        if not 0 < self.steps <= MOST_STEPS:
            raise RequestError(f"steps={self.steps} is not a whole number from 1 to {MOST_STEPS}")
        return super().request()


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
            findings=findings(fusion, request),
            plot=b64encode(plot).decode() if plot else None,
            rows=rows,
            remarks=remarks(fusion),
        )


def remarks(fusion: FileFusion) -> list[str]:
    """What one might not expect of it."""
    found = [remark.told("API") for remark in fusion.remarks]
    if fusion.merges_plainly:
        found.append(PLAIN_MERGE)
    if fusion.sizing.losses:
        found.append(losses(fusion.sizing))
    return found
