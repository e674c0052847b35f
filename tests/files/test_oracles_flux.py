"""diffusers as judge of Flux and SD 3: what a fused file does to a transformer is what the formula says."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from lycoris.wrapper import LycorisNetwork
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lib_nplora.command_line.main import main
from lib_nplora.files.models.flux import FAMILY as FLUX
from lib_nplora.files.models.sd3 import FAMILY as SD3
from tests import reference
from tests.files import newer
from tests.files.judging import CLOSE, assert_close, read
from tests.files.mmdit import SWAPPED, factors, layers_of, pipeline
from tests.files.small_unets import text_encoder
from tests.files.trained import NEEDS_BASE, PLAIN, RECIPES, randomise, response


@torch.no_grad()
def output(model: str, transformer: nn.Module) -> np.ndarray:
    generator = torch.Generator().manual_seed(9)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    inputs = {"encoder_hidden_states": normal(1, 5, 24), "pooled_projections": normal(1, 20)}
    if model == "flux":
        inputs |= {"hidden_states": normal(1, 16, 4), "timestep": torch.tensor([0.7])}
        inputs |= {"img_ids": normal(16, 3), "txt_ids": torch.zeros(5, 3)}
    else:
        inputs |= {"hidden_states": normal(1, 4, 8, 8), "timestep": torch.tensor([700.0])}
    return transformer(**inputs).sample.double().numpy()


Layers = dict[str, tuple[Tensor, Tensor]]
"""Layer, by the name in one spelling -> up, down."""


def written(path: Path, spelling: str, lora: Layers) -> Path:
    state = {}
    for name, (up, down) in lora.items():
        if spelling == "kohya":
            name = f"lora_unet_{name.replace('.', '_')}"
            state |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
            state[f"{name}.alpha"] = torch.tensor(float(down.shape[0]))
        else:
            name = f"{'transformer' if spelling == 'diffusers' else 'diffusion_model'}.{name}"
            state |= {f"{name}.lora_B.weight": up, f"{name}.lora_A.weight": down}
    save_file(state, path)
    return path


def random_lora(model: str, transformer: nn.Module, fused: bool, seed: int) -> Layers:
    """Factors of all layers, of ranks that differ, by the names of the model's makers or of diffusers."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for theirs, ours in layers_of(model).items():
        shapes = [transformer.get_submodule(name).weight.shape for name in ours]
        rows = {theirs: sum(shape[0] for shape in shapes)} if fused else {n: s[0] for n, s in zip(ours, shapes)}
        for name, out in rows.items():
            up, down = factors(out, shapes[0][1], 1 + len(found) % 3, generator)
            found[name] = (0.1 * up, 0.3 * down)
    return found


def by_slice(model: str, transformer: nn.Module, lora: Layers, fused: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Layer of diffusers -> its delta, and that of the module of the file that it is part of."""
    found = {}
    for theirs, ours in layers_of(model).items():
        if not fused:
            deltas = {name: (lora[name][0].double() @ lora[name][1].double()).numpy() for name in ours}
            found |= {name: (delta, delta) for name, delta in deltas.items()}
            continue
        whole = (lora[theirs][0].double() @ lora[theirs][1].double()).numpy()
        if theirs in SWAPPED:
            whole = np.concatenate(np.split(whole, 2)[::-1])
        row = 0
        for name in ours:
            out = transformer.get_submodule(name).weight.shape[0]
            found[name] = (whole[row : row + out], whole)
            row += out
    return found


@pytest.mark.parametrize("model", ["flux", "sd3"])
@pytest.mark.parametrize(
    ("content_spelling", "style_spelling"),
    [
        ("kohya", "diffusers"),
        ("bfl", "diffusers"),
        ("diffusers", "kohya"),
        ("kohya", "bfl"),
        ("diffusers", "diffusers"),
    ],
)
def test_diffusers_transformer_gives_what_the_formula_gives(
    tmp_path: Path, model: str, content_spelling: str, style_spelling: str
) -> None:
    """One file may have q, k and v in one and the other apart; their ranks differ from layer to layer."""
    pipe = pipeline(model)
    original = copy.deepcopy(pipe.transformer)
    sides = {}
    for seed, (role, spelling) in enumerate({"content": content_spelling, "style": style_spelling}.items()):
        fused = spelling != "diffusers"
        lora = random_lora(model, original, fused, seed)
        written(tmp_path / f"{role}.safetensors", spelling, lora)
        sides[role] = by_slice(model, original, lora, fused)
    out = tmp_path / "fused.safetensors"
    pair = [str(tmp_path / f"{role}.safetensors") for role in sides]
    assert (
        main(
            [
                "fuse",
                *pair,
                "-o",
                str(out),
                "--dtype",
                "fp32",
                "--mu",
                "1.5",
                "--content-weight",
                "0.8",
                "--spelling",
                "diffusers",
            ]
        )
        == 0
    )
    pipe.load_lora_weights(out)

    merged = copy.deepcopy(original)
    for name, (style, module) in sides["style"].items():
        content = 0.8 * sides["content"][name][0]
        delta = reference.fused_layer(content, style, reference.basis([module]), 1.5)
        merged.get_submodule(name).weight.data += torch.from_numpy(delta).float()
    found, expected, before = (output(model, each) for each in (pipe.transformer, merged, original))
    error = reference.error(found, expected)
    print(f"{model}, content {content_spelling}, style {style_spelling}: output {error:.1e}")
    assert error < CLOSE
    assert reference.error(before, expected) > 0.01, "the fusion changes the output"


@pytest.mark.parametrize("model", ["flux", "sd3"])
@pytest.mark.parametrize(("spelling", "prefix"), [("kohya", "lora_unet_"), ("comfyui", "diffusion_model.")])
def test_layers_are_written_whole_by_their_makers_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, spelling: str, prefix: str
) -> None:
    """Where one file has them in slices: all rows of both, in the makers' order."""
    transformer = pipeline(model).transformer
    sides = []
    for seed, (role, spelled) in enumerate({"content": "diffusers", "style": "kohya"}.items()):
        lora = random_lora(model, transformer, spelled == "kohya", seed)
        written(tmp_path / f"{role}.safetensors", spelled, lora)
        sides.append(by_slice(model, transformer, lora, spelled == "kohya"))
    out = tmp_path / "fused.safetensors"
    pair = (str(tmp_path / f"{role}.safetensors") for role in ("content", "style"))
    options = ("--method", "direct", "--dtype", "fp32", "--spelling", spelling)
    assert main(["fuse", *pair, "-o", str(out), *options]) == 0
    family = {"flux": FLUX, "sd3": SD3}[model]
    assert f"LoRAs for {family.label} are read by {family.readers[spelling]}" in capsys.readouterr().err

    expected = {}
    for theirs, ours in layers_of(model).items():
        rows = np.concatenate([sum(side[name][0] for side in sides) for name in ours])
        if theirs in SWAPPED:
            rows = np.concatenate(np.split(rows, 2)[::-1])
        expected[theirs.replace(".", "_") if spelling == "kohya" else theirs] = rows
    found = newer.Written.of(load_file(out), prefix).deltas
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_allclose(found[name].numpy(), rows, atol=1e-5, err_msg=name)


def test_a_layer_that_the_makers_lack_is_refused_in_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for role in ("content", "style"):
        lora = {"single_transformer_blocks.0.attn.to_out.0": factors(8, 8, 2, torch.Generator().manual_seed(len(role)))}
        written(tmp_path / f"{role}.safetensors", "diffusers", lora)
    pair = (str(tmp_path / f"{role}.safetensors") for role in ("content", "style"))
    out = tmp_path / "fused.safetensors"
    assert main(["fuse", *pair, "-o", str(out), "--spelling", "kohya"]) == 2
    assert "single_transformer_blocks_0_attn_to_out_0 has no name but diffusers'" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("model", ["flux", "sd3"])
def test_diffusers_reads_the_layers_of_text_encoders(tmp_path: Path, model: str) -> None:
    pipe = pipeline(model)
    encoders = {"text_encoder": ("lora_te1_", text_encoder())}
    if model == "sd3":
        encoders["text_encoder_2"] = "lora_te2_", text_encoder(80, projection=True)
    sides: list[dict[str, Layers]] = []
    for seed, (role, spelled) in enumerate({"content": "diffusers", "style": "kohya"}.items()):
        state = load_file(
            written(
                tmp_path / "transformer.safetensors", spelled, random_lora(model, pipe.transformer, seed == 1, seed)
            )
        )
        generator = torch.Generator().manual_seed(10 + seed)
        sides.append({})
        for component, (prefix, encoder) in encoders.items():
            lora = {
                f"text_model.{name.removeprefix('text_model.')}": factors(*layer.weight.shape, 2, generator)
                for name, layer in encoder.named_modules()
                if name.endswith(("q_proj", "out_proj", "fc2"))
            }
            state |= newer.comfyui(lora, f"{component}.") if role == "content" else newer.kohya(lora, prefix)
            sides[-1][component] = lora
        newer.write(tmp_path / f"{role}.safetensors", state)
    out = tmp_path / "fused.safetensors"
    pair = (str(tmp_path / f"{role}.safetensors") for role in ("content", "style"))
    options = ("--method", "direct", "--dtype", "fp32", "--spelling", "diffusers")
    assert main(["fuse", *pair, "-o", str(out), *options]) == 0

    for component, (_, encoder) in encoders.items():
        setattr(pipe, component, encoder)
    pipe.load_lora_weights(out)
    for component, (_, encoder) in encoders.items():
        found = {
            f"text_model.{name.removeprefix('text_model.')}": layer.get_delta_weight(*layer.active_adapters)
            for name, layer in encoder.named_modules()
            if isinstance(layer, LoraLayer)
        }
        content, style = (side[component] for side in sides)
        assert found.keys() == content.keys()
        for name, delta in found.items():
            right = sum(up @ down for up, down in (content[name], style[name]))
            torch.testing.assert_close(delta, right, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("model", ["flux", "sd3"])
@pytest.mark.parametrize("recipe", ["LoKr", "DoRA", "OFT", "full"])
def test_networks_of_lycoris(tmp_path: Path, recipe: str, model: str) -> None:
    """As SimpleTuner trains them; the model's weights with q, k and v apart and in one."""
    original = pipeline(model).transformer.requires_grad_(False)
    names = [name for ours in layers_of(model).values() for name in ours]
    LycorisNetwork.apply_preset({"lora_prefix": "lycoris", "target_module": [], "target_name": names})
    network = LycorisNetwork(copy.deepcopy(original), **{**PLAIN, **RECIPES[recipe]}, warn_on_unmatched=False)
    assert len(network.loras) == len(names)
    network.apply_to()
    randomise(network)
    network.save_weights(tmp_path / "lycoris.safetensors", torch.float32, {})

    state = {}
    for lora in network.loras:
        (name,) = (name for name in names if lora.lora_name == f"lycoris_{name.replace('.', '_')}")
        weight, bias = response(lora, original.get_submodule(name))
        state[f"transformer.{name}.diff"] = weight.contiguous()
        if recipe == "full":
            state[f"transformer.{name}.diff_b"] = bias.contiguous()
    save_file(state, tmp_path / "answers.safetensors")
    expected = read(tmp_path / "answers.safetensors")

    save_file(original.state_dict(), tmp_path / "diffusers.safetensors")
    fused = {
        theirs: torch.cat([original.get_submodule(n).weight for n in ours]) for theirs, ours in layers_of(model).items()
    }
    fused |= {name: torch.cat(fused[name].chunk(2)[::-1]) for name in SWAPPED if name in fused}
    save_file(
        {f"model.diffusion_model.{name}.weight": w.clone() for name, w in fused.items()},
        tmp_path / "makers.safetensors",
    )
    for naming in ("diffusers", "makers"):
        base = tmp_path / f"{naming}.safetensors" if recipe in NEEDS_BASE else None
        assert_close(f"{model} {recipe}, base of {naming}", read(tmp_path / "lycoris.safetensors", base), expected)
