"""What a pipeline asks its diffusion model: recorded while it draws from noise, or from pictures with noise on them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import HostError

if TYPE_CHECKING:
    from PIL.Image import Image

NOISE_LEVELS = 100
"""From so many, evenly spaced, the noise on a picture is chosen."""

Done = Callable[[int, int], None]
"""(pictures done, pictures in all)."""


@dataclass(frozen=True, eq=False)
class Call:
    """One question to a diffusion model: a noisy picture, how noisy it is, and what it shall show."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def of(self, denoiser: nn.Module) -> Tensor:
        """The answer."""
        answer: Tensor = denoiser(*self.args, **self.kwargs)[0]
        return answer


class _EnoughError(Exception):
    """The question was recorded; no answer is needed."""


def denoiser_of(pipe: Any) -> nn.Module:
    """The UNet or the transformer of a pipeline. Raises HostError if it has none."""
    found = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    if not isinstance(found, nn.Module):
        raise HostError(f"{type(pipe).__name__} has neither a UNet nor a transformer: choose another pipeline")
    return found


@dataclass(frozen=True)
class Asked:
    """What a pipeline is asked to draw.

    prompts
        In turn.
    count
        How many pictures are drawn.
    seed
        What the first picture's noise is drawn by; the next one's is one more.
    size
        Height and width in pixels, None for the pipeline's own.
    """

    prompts: Sequence[str]
    count: int
    seed: int = 0
    size: int | None = None


def from_noise(pipe: Any, asked: Asked, steps: int, done: Done) -> list[Call]:
    """All questions of whole pictures that are drawn without guidance and not decoded. Raises HostError.

    So the noisy pictures are those that the pipeline, with whatever runs beside its layers, comes by itself.
    """
    size = {} if asked.size is None else {"height": asked.size, "width": asked.size}
    if size and "height" not in _takes(pipe):
        raise HostError(f"{type(pipe).__name__} draws in one size alone: leave the size out")
    with _recorded(denoiser_of(pipe)) as calls:
        for number in range(asked.count):
            done(number, asked.count)
            ask(pipe, asked, number, {**size, "num_inference_steps": steps})
    done(asked.count, asked.count)
    return calls


def from_pictures(pipe: Any, asked: Asked, pictures: Sequence[Image], done: Done) -> list[Call]:
    """One question of each: a picture with noise of a random level on it. Raises HostError."""
    from PIL import ImageOps

    drawing = _image_to_image(pipe)
    side = asked.size or _usual_size(drawing)
    fitted = [ImageOps.fit(picture.convert("RGB"), (side, side)) for picture in pictures]
    chance = torch.Generator().manual_seed(asked.seed)
    with _recorded(denoiser_of(pipe), enough=True) as calls:
        for number in range(asked.count):
            done(number, asked.count)
            picture = int(torch.randint(len(fitted), (), generator=chance))
            level = int(torch.randint(NOISE_LEVELS, (), generator=chance)) + 1
            given = {"image": fitted[picture], "strength": level / NOISE_LEVELS, "height": side, "width": side}
            with suppress(_EnoughError):
                ask(drawing, asked, number, {**given, "num_inference_steps": NOISE_LEVELS})
    done(asked.count, asked.count)
    return calls


@contextmanager
def _recorded(denoiser: nn.Module, enough: bool = False) -> Iterator[list[Call]]:
    """Within it, the questions to a diffusion model are written down; if `enough`, none is answered."""
    calls: list[Call] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(Call(args, dict(kwargs)))
        if enough:
            raise _EnoughError

    hook = denoiser.register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def ask(pipe: Any, asked: Asked, number: int, given: Mapping[str, Any]) -> None:
    """Have picture `number` drawn, with as much of `given` as the pipeline takes."""
    given = {"output_type": "latent", **given}
    if not getattr(denoiser_of(pipe).config, "guidance_embeds", False):
        given["guidance_scale"] = 1.0
    pipe(
        prompt=asked.prompts[number % len(asked.prompts)],
        generator=torch.Generator().manual_seed(asked.seed + number),
        **{name: value for name, value in given.items() if name in _takes(pipe)},
    )


def _takes(pipe: Any) -> Collection[str]:
    """The names of what a pipeline is called with."""
    return inspect.signature(type(pipe).__call__).parameters.keys()


def _image_to_image(pipe: Any) -> Any:
    """The same model in a pipeline that begins with a picture. Raises HostError if diffusers has none for it."""
    from diffusers import AutoPipelineForImage2Image

    try:
        made = AutoPipelineForImage2Image.from_pipe(pipe)
    except ValueError as error:
        raise HostError(
            f"diffusers has no image-to-image for {type(pipe).__name__}, so it learns from no pictures: leave them out"
        ) from error
    made.set_progress_bar_config(disable=True)
    return made


def _usual_size(pipe: Any) -> int:
    """Pixels of a side of what the pipeline draws."""
    config: Any = denoiser_of(pipe).config
    sample = getattr(pipe, "default_sample_size", None) or config.sample_size
    return int(sample) * int(pipe.vae_scale_factor)
