"""LyCORIS as judge: what its networks do to a layer is what we read from the files that they save."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_open_clip_checkpoint
from lycoris.kohya import LycorisNetworkKohya
from lycoris.wrapper import LycorisNetwork
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lib_nplora.command_line.main import main
from lib_nplora.maths.lowrank import LowRankDelta
from tests import loras, reference
from tests.files import small_unets
from tests.files.judging import assert_close, matrix, opened, read
from tests.files.trained import LAYERS, NEEDS_BASE, PLAIN, RECIPES, added, base_model, randomise, trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lycoris")
    save_file(base_model().state_dict(), folder / "base.safetensors")
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_layer_is_changed_as_lycoris_changes_it(folder: Path, recipe: str) -> None:
    network = trained(folder, recipe)
    assert_close(recipe, read(network.path, network.base), network.deltas)


@pytest.mark.parametrize("recipe", ["LoCon Tucker", "norm", "LoHa", "LoKr", "full", "GLoRA", "DoRA"])
def test_kohya_s_prefix_means_the_same(folder: Path, recipe: str) -> None:
    network = trained(folder, recipe, "lora_unet")
    assert_close(recipe, read(network.path, network.base), network.deltas)


KOHYA_PRESET = {
    "unet_target_module": ["Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"],
    "unet_target_name": ["conv_in", "conv_out", "time_embedding.linear_1"],
}


@pytest.mark.parametrize("algo", ["locon", "loha", "lokr", "full"])
@pytest.mark.parametrize("xl", [False, True], ids=["sd1", "sdxl"])
def test_networks_of_kohya_s_scripts(tmp_path: Path, algo: str, xl: bool) -> None:
    """Text encoders too; SD 1 has one, SDXL a list of two."""
    pipe = small_unets.components(small_unets.pipeline(xl))
    encoders = [pipe["text_encoder"], pipe["text_encoder_2"]] if xl else pipe["text_encoder"]
    LycorisNetworkKohya.apply_preset(KOHYA_PRESET)
    network = LycorisNetworkKohya(encoders, pipe["unet"], **PLAIN, network_module=algo, warn_on_unmatched=False)
    assert network.text_encoder_loras
    assert network.unet_loras
    network.apply_to(encoders, pipe["unet"], True, True)
    randomise(network)
    network.save_weights(tmp_path / "kohya.safetensors", torch.float32, {})
    found = read(tmp_path / "kohya.safetensors")
    expected = {}
    for lora in [*network.text_encoder_loras, *network.unet_loras]:
        _, kind, name = lora.lora_name.split("_", 2)
        component = {"te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2", "unet": "unet"}[kind]
        name = small_unets.canonical(component, name)
        weight, bias = lora.get_diff_weight() if algo == "full" else (weight_of(lora), None)
        expected[name] = weight.detach().flatten(1).double().numpy()
        if bias is not None:
            expected[f"{name}.bias"] = bias.detach()[:, None].double().numpy()
    assert_close(f"kohya {algo}", found, expected)


def weight_of(lora: nn.Module) -> Tensor:
    """The delta that its forward pass adds. get_diff_weight of LoHa and LoKr has alpha / rank twice."""
    if hasattr(lora, "get_weight"):
        return lora.get_weight(lora.shape)
    return lora.get_diff_weight()[0]


@pytest.mark.parametrize("role", ["content", "style"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_either_role_on_the_command_line(folder: Path, recipe: str, role: str) -> None:
    network = trained(folder, recipe)
    partner, path = plain_partner(folder)
    pair = [path, network.path] if role == "style" else [network.path, path]
    out = folder / "out.safetensors"
    command = ["fuse", *map(str, pair), "-o", str(out), "--dtype", "fp32", "--full", "--overwrite", "--mu", "1.5"]
    assert main([*command, *(["--base", str(network.base)] if network.base else [])]) == 0
    # V of a style without factors is as sensitive as its singular values are close: the judge's own rounding shows.
    # So V is that of the deltas as they were read, which are the judge's to 1e-6 by the test above.
    deltas = {str(key): delta for key, delta in opened(network.path, network.base).weights.deltas.items()}
    expected = {**partner, **network.deltas}
    for name in partner.keys() & network.deltas.keys():
        if role == "style":
            lost = 0.0 if isinstance(deltas[name], LowRankDelta) else reference.LOST
            v = reference.basis([matrix(deltas[name])], lost=lost)
            expected[name] = reference.fused_layer(partner[name], network.deltas[name], v, 1.5)
        else:
            expected[name] = reference.fused([(1.0, network.deltas[name])], [(1.0, partner[name])], 1.5)
    assert_close(f"{recipe} x {role}", read(out), expected)


def test_cut_to_a_rank_it_is_as_near_as_that_rank_can_be(folder: Path) -> None:
    """Eckart and Young: what is lost is the energy of the singular values behind the cut."""
    content = trained(folder, "full")
    partner, path = plain_partner(folder)
    out = folder / "out.safetensors"
    command = ["fuse", str(content.path), str(path), "-o", str(out), "--dtype", "fp32", "--overwrite", "--mu", "1.5"]
    assert main([*command, "--rank", "6"]) == 0
    found = read(out)
    for name in partner.keys() & content.deltas.keys():
        whole = reference.fused([(1.0, content.deltas[name])], [(1.0, partner[name])], 1.5)
        _, lost = reference.truncated(whole, 6)
        assert np.linalg.matrix_rank(found[name], tol=1e-4) <= 6
        assert np.linalg.norm(found[name] - whole) == pytest.approx(lost**0.5, rel=1e-5, abs=1e-6)


def plain_partner(folder: Path) -> tuple[dict[str, np.ndarray], Path]:
    """A LoRA for the same layers, and one more."""
    modules = [
        loras.Module("unet", name, "", *layer.weight.shape[:2], tuple(layer.weight.shape[2:]))
        for name, layer in base_model().named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and re.match("|".join([*LAYERS, "conv_out"]), name)
    ]
    lora = loras.random_lora(modules, 3, 5, alpha=2)
    path = loras.write(folder / "partner.safetensors", lora)
    return {module.canonical: factors.matrix() for module, factors in lora.items()}, path


def test_norms_and_biases_of_both_are_added(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, other = trained(folder, "full"), trained(folder, "full", "lora_unet")
    out, style = folder / "out.safetensors", folder / "stronger.safetensors"
    save_file({name: 3 * tensor for name, tensor in load_file(other.path).items()}, style)
    pair = [str(content.path), str(style)]
    assert main(["fuse", *pair, "-o", str(out), "--overwrite", "--dtype", "fp32", "--full", "--mu", "hard"]) == 0
    biases = {name: 4 * delta for name, delta in content.deltas.items() if name.endswith(".bias")}
    assert f"{len(biases)} added unprojected" in capsys.readouterr().out
    found = read(out)
    assert_close("biases", {name: found[name] for name in biases}, biases)


@pytest.mark.parametrize("recipe", NEEDS_BASE)
def test_without_the_model_s_weights_it_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    network = trained(folder, recipe)
    _, partner = plain_partner(folder)
    out = folder / "none.safetensors"
    assert main(["fuse", str(network.path), str(partner), "-o", str(out), "--full"]) == 2
    assert "--base" in capsys.readouterr().err
    assert not out.exists()


SOME_LAYERS = ["conv_in", "time_embedding", r"down_blocks\.[01]\.", "mid_block", r"up_blocks\.[12]\..*[12]", "conv_out"]


def test_a_base_in_the_naming_of_single_files(tmp_path: Path) -> None:
    """DoRA on a UNet of three layers a block, with the weights of the model spelled in both ways."""
    torch.manual_seed(0)
    model = small_unets.unet().requires_grad_(False)
    save_file(model.state_dict(), tmp_path / "diffusers.safetensors")
    save_file(small_unets.ldm_unet(model.state_dict()), tmp_path / "ldm.safetensors")
    LycorisNetwork.apply_preset({"lora_prefix": "lycoris", "target_module": [], "target_name": SOME_LAYERS})
    trained = small_unets.unet()
    trained.load_state_dict(model.state_dict())
    network = LycorisNetwork(trained, **PLAIN, network_module="locon", weight_decompose=True, warn_on_unmatched=False)
    network.apply_to()
    randomise(network)
    network.save_weights(tmp_path / "dora.safetensors", torch.float32, {})
    expected = added(network.loras, model, "unet", "lycoris")
    for naming in ("diffusers", "ldm"):
        found = read(tmp_path / "dora.safetensors", tmp_path / f"{naming}.safetensors")
        assert_close(f"DoRA, base in {naming} naming", found, expected)


def test_a_base_in_one_file_for_text_encoders(tmp_path: Path) -> None:
    """DoRA on both of SDXL's: OpenCLIP has q, k and v in one."""
    torch.manual_seed(0)
    parts = small_unets.components(small_unets.pipeline(xl=True))
    originals = {name: copy.deepcopy(part) for name, part in parts.items()}
    save_file(small_unets.single_file(originals), tmp_path / "sdxl.safetensors")
    encoders = [parts["text_encoder"], parts["text_encoder_2"]]
    LycorisNetworkKohya.apply_preset(KOHYA_PRESET)
    network = LycorisNetworkKohya(
        encoders, parts["unet"], **PLAIN, network_module="locon", weight_decompose=True, warn_on_unmatched=False
    )
    network.apply_to(encoders, parts["unet"], True, True)
    randomise(network)
    network.save_weights(tmp_path / "dora.safetensors", torch.float32, {})
    expected = {}
    for component, prefix in small_unets.PREFIXES.items():
        loras = network.unet_loras if component == "unet" else network.text_encoder_loras
        own = [lora for lora in loras if lora.lora_name.startswith(f"{prefix}_")]
        assert own
        expected |= added(own, originals[component], component, prefix)
    assert_close("DoRA, SDXL in one file", read(tmp_path / "dora.safetensors", tmp_path / "sdxl.safetensors"), expected)


def test_the_names_of_single_files_are_those_that_diffusers_knows() -> None:
    for xl in (False, True):
        parts = small_unets.components(small_unets.pipeline(xl))
        state = dict(parts["unet"].state_dict())
        converted = convert_ldm_unet_checkpoint(small_unets.ldm_unet(state), dict(parts["unet"].config))
        assert converted.keys() == state.keys()
        assert all(converted[name] is state[name] for name in state)
    encoder = parts["text_encoder_2"]
    prefix = "conditioner.embedders.1.model."
    converted = convert_open_clip_checkpoint(encoder, small_unets.single_file(parts), prefix)
    state = encoder.state_dict()
    found = {name.removeprefix("text_model."): tensor for name, tensor in converted.items()}
    expected = {name.removeprefix("text_model."): tensor for name, tensor in state.items() if ".layers." in name}
    for name, tensor in {**expected, "text_projection.weight": state["text_projection.weight"]}.items():
        assert torch.equal(found[name], tensor), name
