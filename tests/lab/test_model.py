"""The pipeline: saved and opened, stepped, called back."""

from __future__ import annotations

import pytest
import torch

from lab.model import flow
from lab.model.parts import new_pipeline
from lab.model.pipeline import MiniPipeline
from lab.sample import draw, noises, open_pipeline

CAPTIONS = ["a lion animal in noto style", "a house thing"]


def test_it_is_small():
    pipe = new_pipeline()
    assert sum(parameter.numel() for parameter in pipe.unet.parameters()) == pytest.approx(3.75e6, rel=0.01)
    assert sum(parameter.numel() for parameter in pipe.text_encoder.parameters()) < 3e5


def test_a_saved_pipeline_opens_and_draws_the_same(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    opened = open_pipeline(tmp_path)
    assert torch.allclose(draw(opened, CAPTIONS, 1, 2), draw(pipe, CAPTIONS, 1, 2), atol=1e-4)


def test_a_folder_without_a_pipeline_is_told_in_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"there is no pipeline in .*: train and ship one first"):
        open_pipeline(tmp_path)


def test_pictures_depend_on_their_own_noise_and_words_alone(pipe):
    both, alone = draw(pipe, CAPTIONS, 5, 2), draw(pipe, CAPTIONS[:1], 5, 2)
    assert torch.allclose(both[0], alone[0], atol=1e-5)
    assert not torch.allclose(draw(pipe, CAPTIONS[:1], 6, 2), alone, atol=1e-2)
    assert not torch.allclose(draw(pipe, CAPTIONS[1:], 5, 2), alone, atol=1e-3)


def test_words_after_the_last_do_not_count(pipe):
    states, words = flow.encode(pipe.tokenizer, pipe.text_encoder, [CAPTIONS[0], ""])
    assert words.sum(1).tolist() == [7, 1]
    noisy, sigma = torch.randn(2, 3, 48, 48), torch.tensor([0.5, 0.5])
    changed = states.clone()
    changed[~words] += 3
    with torch.no_grad():
        assert torch.allclose(
            flow.predict(pipe.unet, noisy, sigma, states, words),
            flow.predict(pipe.unet, noisy, sigma, changed, words),
            atol=1e-5,
        )


def test_steps_with_a_model_that_knows_the_picture_end_at_the_picture(pipe, monkeypatch):
    picture = torch.rand(1, 3, 48, 48) * 2 - 1
    monkeypatch.setattr("lab.model.pipeline.predict", lambda unet, noisy, *_: picture.expand_as(noisy))
    assert torch.allclose(draw(pipe, ["a star thing"], 0, 5), picture, atol=1e-5)


def test_the_loss_is_nothing_when_the_picture_is_known(pipe, monkeypatch):
    picture, noise, sigma = torch.rand(2, 3, 48, 48), torch.randn(2, 3, 48, 48), torch.tensor([0.05, 0.7])
    monkeypatch.setattr("lab.model.flow.predict", lambda *_: picture)
    assert flow.loss(pipe.unet, picture, noise, sigma, None, None) == 0
    monkeypatch.setattr("lab.model.flow.predict", lambda *_: picture + torch.tensor([0.1, 0.7]).view(2, 1, 1, 1))
    assert flow.loss(pipe.unet, picture, noise, sigma, None, None) == pytest.approx(1, abs=1e-5)


def test_the_callback_sees_every_step_and_may_change_the_picture(pipe):
    seen = []

    def black(pipeline, index, timestep, tensors):
        assert pipeline is pipe
        seen.append((index, float(timestep), tuple(tensors)))
        return {"latents": tensors["latents"] * 0 - 1} if index == 3 else {}

    images = pipe("a star thing", 4, callback_on_step_end=black, output_type="np").images
    assert seen == [(index, 1000 - 250 * index, ("latents",)) for index in range(4)]
    assert pipe.num_timesteps == 4
    assert images.shape == (1, 48, 48, 3)
    assert images.max() == 0


def test_without_guidance_the_empty_prompt_is_not_asked(pipe):
    calls = []
    handle = pipe.unet.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    pipe(CAPTIONS, 1, guidance_scale=1.0, generator=noises(range(2)))
    pipe(CAPTIONS, 1, guidance_scale=2.0, generator=noises(range(2)))
    handle.remove()
    assert calls == [2, 4]


def test_images_are_pictures(pipe):
    (image,) = pipe("a star thing", 1).images
    assert image.size == (48, 48)
    assert isinstance(pipe, MiniPipeline)
