"""Layers that change hands with the steps follow each picture that the pipeline makes."""

from __future__ import annotations

import re

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image

from lib_nplora.errors import HostError
from lib_nplora.pipelines import fuse_into
from tests.pipelines import loras, tiny
from tests.reference import k_lora
from tests.reference import pipelines as reference

ATTENTION = {"SD 1.5": r"^unet.*[.]attn\d[.]", "Flux": r"^transformer[.].*([.]attn[.]|[.]proj_mlp)"}
RANKS = 3, 2
STEPS = 6


@pytest.fixture
def pair(tmp_path):
    return tmp_path / "dog.safetensors", tmp_path / "vangogh.safetensors"


def written(pipe, pair):
    """What both do to each layer, in float64."""
    return [
        reference.updates(loras.write(path, pipe, seed=seed, rank=rank, size=0.2))
        for seed, (path, rank) in enumerate(zip(pair, RANKS))
    ]


class Watch:
    """Keeps the weights of the layers at each call of the diffusion model."""

    def __init__(self, pipe):
        self.calls = []
        model = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
        self.hook = model.register_forward_pre_hook(
            lambda *_: self.calls.append({name: layer.weight.clone() for name, layer in loras.layers(pipe).items()})
        )


def letters(model, contents, styles, steps, **settings):
    both = {
        name: k_lora.Pair(content, styles[name], *RANKS)
        for name, content in contents.items()
        if re.search(ATTENTION[model], name)
    }
    return k_lora.letters(both, steps, **{"alpha": 1.5, "beta": 0.5, **settings})


def check(calls, before, contents, styles, winners) -> None:
    for step, weights in enumerate(calls):
        for name, weight in weights.items():
            change = (weight.double() - before[f"{name}.weight"].double()).flatten(1).numpy()
            turn = winners[name][step] if name in winners else ""
            expected = {"c": contents[name], "s": styles[name], "": contents[name] + styles[name]}[turn]
            assert abs(change - expected).max() < 1e-5 * abs(expected).max(), f"{name} at {step}"


@pytest.mark.parametrize("method", ["klora", "klora*"])
@pytest.mark.parametrize("model", ATTENTION)
def test_k_loras_winners_stand_at_each_step(model, method, pair):
    pipe = tiny.made(model)
    contents, styles = written(pipe, pair)
    before = loras.weights(pipe)
    settings = {"beta": 1.3, "star": True} if method == "klora*" else {}
    winners = letters(model, contents, styles, STEPS, **settings)
    assert len({*"".join(winners.values())}) == 2
    assert sum("cs" in turns or "sc" in turns for turns in winners.values()) > 3
    with fuse_into(pipe, *pair, method=method):
        watch = Watch(pipe)
        first = tiny.picture(pipe, STEPS)
        assert len(watch.calls) == STEPS
        check(watch.calls, before, contents, styles, winners)
        second = tiny.picture(pipe, STEPS)
        check(watch.calls[STEPS:], before, contents, styles, winners)
        assert torch.equal(first, second)
        watch.hook.remove()
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())
    assert type(pipe).__call__ is type(tiny.made(model)).__call__


def test_steps_are_those_of_the_call(pair):
    """An image-to-image pipeline makes some of the steps only; nobody has to know in advance."""
    pipe = StableDiffusionImg2ImgPipeline(**tiny.made("SD 1.5").components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    contents, styles = written(pipe, pair)
    before = loras.weights(pipe)
    fuse_into(pipe, *pair, method="klora")
    for steps in (4, 3):
        watch = Watch(pipe)
        image = Image.new("RGB", (16, 16))
        pipe("a dog", image, 0.5, num_inference_steps=2 * steps, output_type="latent")
        watch.hook.remove()
        assert len(watch.calls) == steps
        check(watch.calls, before, contents, styles, letters("SD 1.5", contents, styles, steps))


def test_after_an_exception_in_mid_picture_all_is_as_it_was(pair):
    pipe = tiny.made("SD 1.5")
    written(pipe, pair)
    before = loras.weights(pipe)

    def stop(pipe, step, timestep, tensors):
        if step == 3:
            raise KeyboardInterrupt
        return tensors

    fusion = fuse_into(pipe, *pair, method="klora")
    first = tiny.picture(pipe, STEPS)
    with pytest.raises(KeyboardInterrupt):
        tiny.picture(pipe, STEPS, callback_on_step_end=stop)
    assert torch.equal(tiny.picture(pipe, STEPS), first)
    with pytest.raises(KeyboardInterrupt), fusion:
        tiny.picture(pipe, STEPS, callback_on_step_end=stop)
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())
    assert type(pipe) is StableDiffusionPipeline


def test_inference_mode_changes_nothing(pair):
    pipe = tiny.made("SD 1.5")
    written(pipe, pair)
    before = loras.weights(pipe)
    with fuse_into(pipe, *pair, method="klora"):
        usual = tiny.picture(pipe, STEPS)
    with torch.inference_mode(), fuse_into(pipe, *pair, method="klora"):
        assert torch.equal(tiny.picture(pipe, STEPS), usual)
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())
    with torch.inference_mode():
        other = tiny.made("SD 1.5")
    with pytest.raises(HostError, match=r"was made under torch.inference_mode\(\): load the pipeline outside of it"):
        fuse_into(other, *pair)


def test_the_callers_own_callback_is_called(pair):
    pipe = tiny.made("SD 1.5")
    written(pipe, pair)
    seen = []

    def theirs(pipe, step, timestep, tensors):
        seen.append((step, sorted(tensors)))
        return {**tensors, "latents": torch.zeros_like(tensors["latents"])}

    with fuse_into(pipe, *pair, method="switch"):
        more = {"callback_on_step_end": theirs, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
        latents = tiny.picture(pipe, 3, **more)
        assert seen == [(step, ["latents", "prompt_embeds"]) for step in range(3)]
        assert not latents.any()
        tiny.picture(pipe, 3, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1))
        assert pipe.guidance_scale == 0


def test_a_watched_pipeline_is_still_of_its_class(pair, tmp_path):
    pipe = tiny.made("SD 1.5")
    written(pipe, pair)
    fuse_into(pipe, *pair, method="klora")
    assert isinstance(pipe, StableDiffusionPipeline)
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    other = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    assert other.unet is pipe.unet
    pipe.save_pretrained(tmp_path / "saved")
    saved = StableDiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert torch.equal(saved.unet.conv_in.weight, pipe.unet.conv_in.weight)
    fuse_into(pipe, *pair, method="switch")
    assert type(pipe).__mro__[1] is StableDiffusionPipeline
    fuse_into(pipe, *pair)
    assert type(pipe) is StableDiffusionPipeline


class Silent(StableDiffusionPipeline):
    """Tells no steps."""

    def __call__(self, prompt):
        return super().__call__(prompt)


def test_a_pipeline_that_tells_no_steps_takes_no_method_that_needs_them(pair):
    pipe = Silent(**tiny.made("SD 1.5").components, requires_safety_checker=False)
    written(pipe, pair)
    before = loras.weights(pipe)
    with pytest.raises(HostError) as told:
        fuse_into(pipe, *pair, method="klora")
    assert str(told.value) == (
        "method=klora changes from step to step, and Silent does not tell its steps (it takes no "
        "callback_on_step_end): choose another method"
    )
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())
    with fuse_into(pipe, *pair, "hard") as fusion:
        assert fusion.summary.any_fused
