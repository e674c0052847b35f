"""Methods that look at the model, in small pipelines: what is seen, that it is seen once, and that nothing is left."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib_nplora.command_line.main import main
from lib_nplora.errors import HostError, RequestError
from lib_nplora.hosts.diffusers import PipelineModel
from lib_nplora.pipelines import Looks, Pair, fuse_into, fusing
from lib_nplora.pipelines.fusing import on_disk
from lib_nplora.pipelines.observing import observe
from tests.pipelines import loras, tiny

SIZE = {"height": 16, "width": 16}
GIVEN = {"SD 1.5": SIZE, "Flux": {**SIZE, "max_sequence_length": 12}}
PROMPTS = {"content": ["a dog", "dog"], "style": ["a"]}


def looks(model: str) -> Looks:
    return Looks(**PROMPTS, steps=2, seed=3, given=GIVEN[model])


def hooks(pipe) -> int:
    return sum(len(layer._forward_pre_hooks) for layer in loras.layers(pipe).values())


@pytest.fixture
def pair(tmp_path):
    """Makes a pipeline, and the files of a pair for its transformer blocks and convolutions."""

    def make(model: str):
        pipe = tiny.made(model)
        paths = [tmp_path / "dog.safetensors", tmp_path / "vangogh.safetensors"]
        for seed, path in enumerate(paths):
            loras.write(path, pipe, "peft", seed=seed, rank=3 - seed, only="attn|conv1|encoder_hid", size=0.3)
        return pipe, paths

    return make


def rows(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a layer multiplies its weight with, (n, in) float64."""
    if isinstance(layer, nn.Linear):
        return x.double().flatten(0, -2)
    unfolded = F.unfold(x.double(), layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return unfolded.transpose(1, 2).flatten(0, 1)


def reference(pipe, model: str, path, prompts, downs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """E[z z^T] by the inputs that layers have with a LoRA that diffusers itself has loaded."""
    pipe.load_lora_weights(path)
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in downs}

    def hook(name: str, layer: nn.Module, args: tuple) -> None:
        inputs[name].append(rows(layer, args[0]))

    for name, layer in loras.layers(pipe).items():
        if name.replace(".base_layer", "") in downs:
            layer.register_forward_pre_hook(partial(hook, name.replace(".base_layer", "")))
    for number, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(3 + number)
        pipe(prompt, num_inference_steps=2, generator=generator, output_type="latent", **GIVEN[model])
    found = {}
    for name, seen in inputs.items():
        z = torch.cat(seen) @ downs[name].double().T
        found[name] = z.T @ z / len(z)
    return found


@pytest.mark.parametrize("model", GIVEN)
def test_moments_are_those_of_the_inputs_under_each_side_alone(model, pair):
    pipe, paths = pair(model)
    before = loras.weights(pipe)
    held = PipelineModel(pipe)
    sides = [[held.load(on_disk(path))] for path in paths]
    seen = observe(pipe, held, *sides, looks(model))
    assert hooks(pipe) == 0
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())
    by_digest = {side[0].digest: side[0] for side in sides}
    downs = {}
    for layer, found in seen.layers.items():
        piece = held.pieces(str(layer.name))[0]
        downs[piece.name] = torch.cat([by_digest[digest].deltas[key].down for digest, key in found.spans])
    assert len(downs) > 10
    found = {held.pieces(str(key.name))[0].name: moments for key, moments in seen.layers.items()}
    for path, role in zip(paths, PROMPTS):
        expected = reference(tiny.made(model), model, path, PROMPTS[role], downs)
        for name, moments in found.items():
            ours = getattr(moments, role)
            assert (ours - expected[name]).norm() < 1e-4 * expected[name].norm(), name


@pytest.mark.parametrize("method", ["ssr", "ridge", "npx", "tau"])
def test_a_pair_is_looked_at_once_whatever_methods_follow(method, pair, monkeypatch):
    pipe, paths = pair("SD 1.5")
    before = loras.weights(pipe)
    looked = []
    monkeypatch.setattr(fusing, "observe", lambda *given: looked.append(given) or observe(*given))
    both = Pair(pipe, *paths, looks("SD 1.5"))
    with both.fuse(method="direct"):
        direct = loras.weights(pipe)
    assert not looked
    with both.fuse(method=method):
        first = loras.weights(pipe)
    with both.fuse(method=method, c=0.5):
        second = loras.weights(pipe)
    with both.fuse(method=method):
        again = loras.weights(pipe)
    assert len(looked) == 1
    assert all(torch.equal(first[name], value) for name, value in again.items())
    for one, other in ((first, direct), (first, second), (first, before)):
        assert any(not torch.equal(one[name], value) for name, value in other.items())
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())
    assert hooks(pipe) == 0


def test_it_is_looked_at_again_if_the_pipeline_has_another_lora_by_now(pair, tmp_path, monkeypatch):
    pipe, paths = pair("SD 1.5")
    other = tmp_path / "other.safetensors"
    loras.write(other, pipe, "peft", seed=5, only="unet.*attn1")
    looked = []
    monkeypatch.setattr(fusing, "observe", lambda *given: looked.append(given) or observe(*given))
    both = Pair(pipe, *paths, looks("SD 1.5"))
    counts = []
    for change in (lambda: None, lambda: pipe.load_lora_weights(other), lambda: None, pipe.fuse_lora):
        change()
        both.fuse(method="ssr").undo()
        counts.append(len(looked))
    assert counts == [1, 2, 2, 3]


def test_after_an_exception_in_the_pipeline_nothing_is_left(pair, monkeypatch):
    pipe, paths = pair("SD 1.5")
    before = loras.weights(pipe)
    monkeypatch.setattr(pipe.unet.conv_out, "forward", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fuse_into(pipe, *paths, method="ssr", looks=looks("SD 1.5"))
    assert hooks(pipe) == 0
    now = loras.weights(pipe)
    assert all(torch.equal(now[name], value) for name, value in before.items())


def test_a_layer_that_no_picture_uses_is_named(pair, monkeypatch):
    pipe, paths = pair("SD 1.5")
    monkeypatch.setattr(type(pipe), "__call__", lambda self, prompt, **given: None)
    with pytest.raises(HostError, match="is not used for these pictures"):
        fuse_into(pipe, *paths, method="ssr", looks=looks("SD 1.5"))
    assert hooks(pipe) == 0


def test_without_looks_a_method_says_what_it_needs(pair):
    pipe, paths = pair("SD 1.5")
    with pytest.raises(RequestError, match=r"method=ssr looks at the model at work.*looks=Looks\(content="):
        fuse_into(pipe, *paths, method="ssr")


@pytest.mark.parametrize("command", ["fuse", "inspect"])
def test_files_alone_are_refused(command, pair, tmp_path, capsys):
    _, paths = pair("SD 1.5")
    output = tmp_path / "out.safetensors"
    asked = [command, *map(str, paths), "--method", "npx", *(["-o", str(output)] if command == "fuse" else [])]
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert "method=npx looks at the model at work, which it can in a pipeline of diffusers alone" in told
    assert not output.exists()


def test_generate_looks_at_what_it_draws(pair, tmp_path):
    pipe, paths = pair("SD 1.5")
    pipe.save_pretrained(tmp_path / "model")
    asked = ["generate", "--model", str(tmp_path / "model"), "--content", str(paths[0]), "--style", str(paths[1])]
    output = tmp_path / "grid.png"
    assert (
        main([*asked, "--prompt", "a dog", "--steps", "1", "--method", "tau", "--tau", "0.1", "-o", str(output)]) == 0
    )
    assert output.exists()
