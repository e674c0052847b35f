"""What the REST API takes: models for pydantic 1 (A1111) as well as 2 (the Forges)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Optional, TypeVar, Union

from pydantic import BaseModel, Field, StrictFloat, StrictInt, StrictStr, create_model

from ..errors import RequestError
from ..files import HIGHEST_RANK, Spelling, parse_size
from ..jobs.pair import Saving
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
    method: str = Field(usual().name, description="How to fuse them.")
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
        None,
        description="Names of the layers in the file; null for those that both LoRAs have, or the model's usual ones.",
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
        return Saving(file, self.dtype, size, self.full, spelling=self.spelling)


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
