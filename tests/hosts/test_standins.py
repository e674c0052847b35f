"""What a stand-in can be made to do and a real host cannot: reload, fail, hold strange files."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_nplora.errors import HostError, MismatchError
from lib_nplora.hosts import detect_host

from .contract import Loras
from .driver import fused
from .standins.a1111 import A1111
from .standins.forge import Forge, Neo

forges = pytest.mark.parametrize("driver", [Forge, Neo], indirect=True)

TAG = "a cat <nplora:dog:vangogh:0.5>"


@pytest.fixture(params=[A1111, Forge, Neo])
def driver(request, tmp_path):
    host = request.param(tmp_path)
    host.start()
    yield host
    host.stop()


@pytest.fixture
def loras(driver) -> Loras:
    return Loras(driver)


def test_each_host_is_told_by_what_it_can_do(driver):
    assert detect_host().name == ("A1111" if isinstance(driver, A1111) else "Forge")


def test_an_unknown_host_is_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "networks", types.ModuleType("networks"))
    assert detect_host() is None


def test_a_reload_of_the_ui_stands_around_activate_once(driver, loras):
    before = driver.generate(TAG)
    for _ in range(3):
        driver.unload_scripts()
        driver.run_scripts()
    assert driver.generate(TAG).pixels == before.pixels
    assert "nplora" in driver.extra_networks.extra_network_registry
    depth, function = 0, driver.extra_networks.activate
    while hasattr(function, "__wrapped__"):
        depth, function = depth + 1, function.__wrapped__
    assert depth == 1


def test_unloading_undoes_everything(driver, loras, tmp_path):
    plain = driver.generate("a cat").pixels
    driver.generate(TAG)
    driver.unload_scripts()
    assert not hasattr(driver.extra_networks.activate, "__wrapped__")
    assert "nplora" not in driver.extra_networks.extra_network_registry
    assert driver.generate("a cat").pixels == plain


def test_unloading_under_another_extension_that_stands_around_us(driver, loras):
    plain = driver.generate("a cat").pixels
    ours = driver.extra_networks.activate
    theirs = driver.extra_networks.activate = lambda p, data: ours(p, data)
    driver.generate(TAG)
    driver.unload_scripts()
    assert driver.extra_networks.activate is theirs
    assert driver.generate("a cat <nplora:dog:vangogh:hard>").pixels == plain


def test_half_precision_around_the_activation_changes_nothing(driver, loras):
    """Both hosts activate networks under autocast."""
    inner = driver.extra_networks.activate

    def activate(p, data):
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
            inner(p, data)

    driver.extra_networks.activate = activate
    driver.generate(TAG)
    assert driver.compare(fused(loras.dog, loras.vangogh, 0.5)).worst < 1e-5


@pytest.mark.parametrize("driver", [A1111], indirect=True)
def test_the_random_state_is_the_pictures_own(driver, loras):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    driver.generate(TAG)
    assert torch.equal(torch.rand(3), expected)


@forges
def test_a_host_that_takes_only_some_layers_gets_none(driver, loras, monkeypatch):
    plain = driver.generate("a cat").pixels
    add_patches = driver.patcher_class.add_patches

    def only_some(self, *args, patches, **kwargs):
        if kwargs["filename"].startswith("nplora"):
            patches = dict(list(patches.items())[1:])
        return add_patches(self, patches=patches, **kwargs)

    monkeypatch.setattr(driver.patcher_class, "add_patches", only_some)
    picture = driver.generate(TAG)
    (comment,) = picture.comments
    assert "none is applied" in comment
    assert picture.pixels == plain


def test_roles_that_cannot_be_applied_are_ordinary_tags(driver, loras, monkeypatch):
    prompt = "a cat <lora:dog:0.8:role=content> <lora:vangogh:1:role=style:mu=2>"
    plain_merge = driver.generate("a cat <lora:dog:0.8> <lora:vangogh:1>")

    def refuse(self, fused):
        raise HostError("not today")

    monkeypatch.setattr(type(detect_host()), "apply", refuse)
    picture = driver.generate(prompt)
    assert "not today" in picture.comments[0]
    assert picture.pixels == plain_merge.pixels


@forges
def test_slices_and_swapped_halves_of_a_layer(driver, loras, monkeypatch):
    """Targets of diffusers' names for Flux: (key, (dimension, start, length)) and (key, None, function)."""
    host = detect_host()
    key = "diffusion_model.mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0.weight"
    up, down = torch.randn(16, 4), torch.randn(4, 32)
    patch = driver.make_patch(up, down, None, None)
    whole = driver.make_patch(torch.cat([up, up]), down, None, None)
    targets = {(key, (0, 16, 16)): patch, (key, None, torch.neg): whole}
    monkeypatch.setattr(host._patcher, "load_lora", lambda state, names: (targets if key in names.values() else {}, {}))
    weights = host.load(host.resolve("dog"))
    assert {module_key.name for module_key in weights.deltas} == set(targets)
    targets[(key, (0, 16, 17))] = patch
    with pytest.raises(MismatchError):
        host.load(host.resolve("dog"))


def test_values_that_are_not_finite_are_refused(driver, loras):
    tensors = load_file(loras.dog)
    tensors[next(key for key in tensors if key.endswith("lora_up.weight"))][0] = float("nan")
    save_file(tensors, driver.lora_dir / "nan.safetensors")
    plain = driver.generate("a cat").pixels
    for tag in ("<nplora:nan:vangogh>", "<nplora:dog:nan>"):
        picture = driver.generate(f"a cat {tag}")
        assert "'nan' holds values that are not finite" in picture.comments[0]
        assert picture.pixels == plain


def test_what_is_bundled_with_a_lora_is_not_counted(driver, loras):
    tensors = load_file(loras.dog)
    tensors["bundle_emb.trigger.string_to_param.*"] = torch.ones(1, 24)
    save_file(tensors, driver.lora_dir / "bundled.safetensors")
    assert not driver.generate("a cat <nplora:bundled:vangogh:10>").comments


def test_an_unforeseen_error_is_a_comment_too(driver, loras, monkeypatch, caplog):
    plain = driver.generate("a cat").pixels
    monkeypatch.setattr("lib_nplora.session.fuse", lambda *args: 1 / 0)
    picture = driver.generate(TAG)
    (comment,) = picture.comments
    assert "ZeroDivisionError" in comment
    assert picture.pixels == plain
    assert "Traceback" in caplog.text


def test_modules_without_a_layer_are_counted(driver, loras):
    tensors = load_file(loras.dog)
    name = "lora_unet_down_blocks_9_attentions_0_proj_out"
    tensors[f"{name}.lora_up.weight"], tensors[f"{name}.lora_down.weight"] = torch.ones(4, 1), torch.ones(1, 4)
    save_file(tensors, driver.lora_dir / "more.safetensors")
    picture = driver.generate("a cat <nplora:more:vangogh:10>")
    assert "1 of the modules in 'more' have no layer in this model" in picture.comments[0]
    assert driver.compare(fused(loras.dog, loras.vangogh, 10)).worst < 1e-4


def test_a_file_of_another_kind_is_refused_by_name(driver, loras, monkeypatch):
    """DoRA, LoHa and the like."""
    plain = driver.generate("a cat").pixels
    if isinstance(driver, A1111):
        tensors = load_file(loras.dog)
        key = next(key for key in tensors if key.endswith(".alpha"))
        tensors[key.replace(".alpha", ".dora_scale")] = torch.ones(1)
        save_file(tensors, driver.lora_dir / "dora.safetensors")
    else:
        (driver.lora_dir / "dora.safetensors").write_bytes(loras.dog.read_bytes())
        make_patch = driver.make_patch

        def with_dora(*args):
            patch = make_patch(*args)
            if isinstance(patch, tuple):
                return patch[0], (*patch[1][:4], torch.ones(1))
            patch.weights = (*patch.weights[:4], torch.ones(1), None)
            return patch

        monkeypatch.setattr(driver, "make_patch", with_dora)
    picture = driver.generate("a cat <nplora:dora:vangogh:0.5>")
    assert "'dora' holds DoRA modules" in picture.comments[0]
    assert picture.pixels == plain


@forges
def test_patches_that_are_no_lora_are_named(driver, loras, monkeypatch):
    monkeypatch.setattr(driver, "make_patch", lambda up, down, alpha, mid: ("diff", (up,)))
    picture = driver.generate(TAG)
    assert "holds diff modules; only LoRA and LoCon can be fused" in picture.comments[0]


def test_neo_says_that_nunchaku_cannot(tmp_path, monkeypatch):
    host = Neo(tmp_path)
    monkeypatch.setattr(Neo, "dynamic_args", types.SimpleNamespace(online_lora=False, nunchaku=True))
    host.start()
    try:
        Loras(host)
        plain = host.generate("a cat").pixels
        picture = host.generate(TAG)
        assert "Nunchaku" in picture.comments[0]
        assert picture.pixels == plain
    finally:
        host.stop()


def test_forge_online_patches_only_for_quantised_weights(tmp_path, monkeypatch):
    """The host ignores its own switch for plain float weights."""
    monkeypatch.setattr(Forge, "dynamic_args", {"online_lora": True})
    host = Forge(tmp_path)
    host.start()
    try:
        Loras(host)
        host.generate(TAG)
        assert [online for *_, online in host.sd_model._nplora.mine.unet.lora_patches] == [False]
        host.sd_model.forge_objects_original.unet.model.storage_dtype = torch.float8_e4m3fn
        host.generate("a cat <nplora:dog:vangogh:0.7>")
        assert [online for *_, online in host.sd_model._nplora.mine.unet.lora_patches] == [True]
    finally:
        host.stop()


@forges
def test_the_originals_are_never_patched(driver, loras):
    driver.generate(TAG)
    originals = driver.sd_model.forge_objects_original
    assert not originals.unet.all_patches()
    assert not originals.clip.all_patches()


@forges
def test_the_same_fusion_again_patches_nothing_again(driver, loras):
    driver.generate(TAG)
    unet = driver.sd_model._nplora.mine.unet
    driver.generate("a dog <nplora:dog:vangogh:0.5>")
    assert driver.sd_model._nplora.mine.unet is unet
    driver.generate("a dog <nplora:dog:vangogh:0.6>")
    assert driver.sd_model._nplora.mine.unet is not unet
