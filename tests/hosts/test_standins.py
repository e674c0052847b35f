"""What a stand-in can be made to do and a real host cannot: reload, fail, hold strange files."""

from __future__ import annotations

import gc
import re
import sys
import types
import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_nplora.errors import FileError, HostError, RequestError
from lib_nplora.fusion.walk import fuse
from lib_nplora.hosts import ShelfFile, detect_host
from lib_nplora.layers.key import ModuleKey
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.remade import Remade
from lib_nplora.request.tag import parse_tag

from .. import reference
from ..files.bad_containers import Payload
from ..reference import kohya
from ..reference.kohya import factors, fused, winners
from .contract import HARD, KLORA, Loras
from .standins import networks
from .standins.a1111 import A1111, QkvLinear
from .standins.common import NetworkOnDisk
from .standins.driver import running
from .standins.forge import Forge, Neo
from .standins.ldm_patched import Classic, ReForge

forges = pytest.mark.parametrize("driver", [Forge, Neo, ReForge, Classic], indirect=True)

slicers = pytest.mark.parametrize("driver", [Forge, Neo, ReForge], indirect=True)
"""The patches of Classic are for whole layers: it asks whether a target is the name of a parameter."""

TAG = "a cat <nplora:dog:vangogh:0.5>"


@pytest.fixture
def loras(driver) -> Loras:
    return Loras(driver)


def of_original(driver) -> str:
    """A LoRA whose update depends on the checkpoint's weights."""
    return "dora" if "dora" in driver.kinds else "glora"


def test_each_host_is_told_by_what_it_can_do(driver):
    assert detect_host().name == driver.adapter_name


@pytest.mark.parametrize("step", ["run_scripts", "unload_scripts"])
@pytest.mark.parametrize("kind", [A1111, Forge, Neo, ReForge, Classic])
def test_a_stand_in_that_fails_leaves_no_module_to_the_next(kind, step, tmp_path, monkeypatch):
    """A module that is left would make the next host another one."""

    def fail(self):
        raise RuntimeError("the test fails here")

    monkeypatch.setattr(kind, step, fail)
    before = dict(sys.modules)
    with pytest.raises(RuntimeError, match="the test fails here"), running(kind, tmp_path):
        pass
    left = {name for name, module in sys.modules.items() if before.get(name) is not module}
    assert not {name.partition(".")[0] for name in left} & {"backend", "gradio", "ldm_patched", "modules", "networks"}


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
    dialect = type(detect_host().model._dialect)
    add = dialect.add

    def only_some(self, patcher, patches, filename, online):
        return add(self, patcher, dict(list(patches.items())[1:]), filename, online)

    monkeypatch.setattr(dialect, "add", only_some)
    picture = driver.generate(TAG)
    (comment,) = picture.comments
    assert "none is applied" in comment
    assert picture.pixels == plain


def test_roles_that_cannot_be_applied_are_ordinary_tags(driver, loras, monkeypatch):
    prompt = "a cat <lora:dog:0.8:role=content> <lora:vangogh:1:role=style:mu=2>"
    plain_merge = driver.generate("a cat <lora:dog:0.8> <lora:vangogh:1>")

    def refuse(self, fused):
        raise HostError("not today")

    monkeypatch.setattr(type(detect_host().model), "apply", refuse)
    picture = driver.generate(prompt)
    assert "not today" in picture.comments[0]
    assert picture.pixels == plain_merge.pixels


def _split(tensors: dict[str, torch.Tensor], name: str, slices: dict[str, slice]) -> dict[str, torch.Tensor]:
    """The LoRA with one module in slices of its rows."""
    made = dict(tensors)
    up, down = made.pop(f"{name}.lora_up.weight"), made.pop(f"{name}.lora_down.weight")
    alpha = made.pop(f"{name}.alpha")
    for suffix, rows in slices.items():
        made[f"{name}_{suffix}.lora_up.weight"] = up[rows].contiguous()
        made[f"{name}_{suffix}.lora_down.weight"] = down.clone()
        made[f"{name}_{suffix}.alpha"] = alpha.clone()
    return made


SPLIT = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj"
SLICES = {"q": slice(0, 24), "k": slice(24, 40), "mlp": slice(40, 64)}


@pytest.fixture
def slicing(driver, monkeypatch):
    """A Forge whose table of names knows slices of one layer, and halves of another that it swaps."""
    make = driver._keys("lora_unet", "diffusion_model.")

    def names(model, key_map):
        make(model, key_map)
        for suffix, rows in SLICES.items():
            key_map[f"{SPLIT}_{suffix}"] = (key_map[SPLIT], (0, rows.start, rows.stop - rows.start))
        key_map["swapped"] = (key_map[SPLIT], None, lambda weight: weight.roll(32, 0))
        return key_map

    host_lora = sys.modules.get("backend.patcher.lora") or sys.modules["ldm_patched.modules.lora"]
    monkeypatch.setattr(host_lora, "model_lora_keys_unet", names)
    monkeypatch.setattr(driver, "_keys", lambda prefix, _: names if prefix == "lora_unet" else driver.clip_keys)
    monkeypatch.setattr(driver, "clip_keys", make, raising=False)


@slicers
@pytest.mark.usefixtures("slicing")
@pytest.mark.parametrize("mu", ["0.5", "hard"])
def test_a_layer_whole_in_one_lora_and_in_slices_in_the_other(driver, loras, mu):
    """The slices share the layer's input side, so a slice is projected with the basis of what holds its rows."""
    sliced = {}
    for role, path in (("dog", loras.dog), ("vangogh", loras.vangogh)):
        save_file(_split(load_file(path), SPLIT, SLICES), driver.lora_dir / f"{role}_split.safetensors")
        sliced[role] = kohya.deltas(path)[SPLIT]
    strength = HARD if mu == "hard" else float(mu)
    dog, vangogh = sliced["dog"], sliced["vangogh"]
    picture = driver.generate(f"a cat <nplora:dog_split:vangogh:{mu}>")
    assert not any("could be fused" in comment for comment in picture.comments), picture.comments
    expected = reference.fused([(1.0, dog)], [(1.0, vangogh)], strength)
    assert np.allclose(driver.delta(SPLIT), expected, atol=1e-5)
    driver.generate(f"a cat <nplora:dog:vangogh_split:{mu}>")
    for rows in SLICES.values():
        expected[rows] = reference.fused([(1.0, dog[rows])], [(1.0, vangogh[rows])], strength)
    assert np.allclose(driver.delta(SPLIT), expected, atol=1e-5)
    driver.generate(f"a cat <nplora:dog_split:vangogh_split:{mu}>")
    assert np.allclose(driver.delta(SPLIT), expected, atol=1e-5)


@slicers
@pytest.mark.usefixtures("slicing")
def test_halves_that_the_host_swaps(driver, loras):
    tensors = load_file(loras.dog)
    swapped = {name.replace(SPLIT, "swapped"): tensor for name, tensor in tensors.items()}
    save_file(swapped, driver.lora_dir / "swapped.safetensors")
    driver.generate("a cat <nplora:swapped:vangogh:hard>")
    found = driver.delta(SPLIT)
    rolled = driver.lora_dir / "rolled.safetensors"
    tensors[f"{SPLIT}.lora_up.weight"] = tensors[f"{SPLIT}.lora_up.weight"].roll(32, 0)
    save_file(tensors, rolled)
    up, down = fused(rolled, loras.vangogh, HARD)[SPLIT]
    assert np.allclose(found, up @ down, atol=1e-5)


@pytest.fixture
def attention(driver) -> dict[str, torch.nn.Module]:
    """Layers of A1111's that keep q, k and v in one weight: that of open_clip, and that of SD3."""
    mha = torch.nn.MultiheadAttention(32, 4)
    layers = {"attn": mha, "attn_out_proj": mha.out_proj, "joint_qkv": QkvLinear(32, 96)}
    mapping = {f"diffusion_model_{name}": layer for name, layer in layers.items()}
    driver.sd_model.network_layer_mapping.update(mapping)
    return layers


def _write(driver, name: str, **shapes: tuple[int, int]) -> dict[str, np.ndarray]:
    """A LoRA of rank 2 with these modules. Returns their deltas."""
    generator = torch.Generator().manual_seed(len(name))
    tensors, deltas = {}, {}
    for module, (out, in_) in shapes.items():
        up, down = torch.randn(out, 2, generator=generator), torch.randn(2, in_, generator=generator)
        tensors |= {f"lora_unet_{module}.lora_up.weight": up, f"lora_unet_{module}.lora_down.weight": down}
        deltas[module] = reference.dense(up, down)
    save_file(tensors, driver.lora_dir / f"{name}.safetensors")
    driver.networks.list_available_networks()
    return deltas


@pytest.mark.parametrize("driver", [A1111], indirect=True)
def test_q_k_and_v_of_one_weight(driver, attention):
    """As the host has it: modules of their own for open_clip, slices for SD3, and nothing unless all are there."""
    square = (32, 32)
    parts = {f"attn_{part}_proj": square for part in ("q", "k", "v", "out")}
    parts |= {f"joint_qkv_{part}_proj": square for part in ("q", "k", "v")}
    deltas = _write(driver, "complete", **parts)
    host = detect_host()
    found = host.model.load(host.shelf.resolve("complete"))
    assert not found.unmatched
    for part in ("q", "k", "v", "out"):
        assert np.allclose(found.deltas[ModuleKey(f"diffusion_model_attn_{part}_proj", "unet")].dense(),
                           deltas[f"attn_{part}_proj"], atol=1e-5)  # fmt: skip
    for start, part in enumerate(("q", "k", "v")):
        key = ModuleKey("diffusion_model_joint_qkv", "unet", (32 * start, 32 * start + 32))
        assert np.allclose(found.deltas[key].dense(), deltas[f"joint_qkv_{part}_proj"], atol=1e-5)

    matched = (
        "down_blocks_0_attentions_0_proj_in",
        "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0",
        "down_blocks_0_resnets_0_conv1",
        "down_blocks_0_attentions_0_transformer_blocks_0_ff_net_2",
    )
    some = {name: shape for name, shape in parts.items() if not name.endswith("_v_proj")}
    layers = driver.sd_model.network_layer_mapping
    shapes = {name: layers[f"diffusion_model_{name}"].weight.flatten(1).shape for name in matched}
    _write(driver, "incomplete", **some, **shapes)
    found = host.model.load(host.shelf.resolve("incomplete"))
    assert {key.name for key in found.deltas} == {f"diffusion_model_{name}" for name in matched}
    assert set(found.unmatched) == {f"lora_unet_{name}" for name in some}


@pytest.mark.parametrize("driver", [A1111], indirect=True)
def test_slices_of_a_fused_weight_are_put_together(driver, attention):
    content = _write(driver, "split", **{f"joint_qkv_{part}_proj": (32, 32) for part in ("q", "k", "v")})
    style = _write(driver, "whole", joint_qkv=(96, 32))["joint_qkv"]
    host = detect_host()
    loras = ([host.model.load(host.shelf.resolve(name))] for name in ("split", "whole"))
    host.model.apply([fuse(parse_tag(["split", "whole", "hard"]), *loras, ByteLru(0))])
    (net,) = driver.networks.loaded_networks
    found, _ = net.modules["diffusion_model_joint_qkv"].calc_updown(attention["joint_qkv"].weight)
    dog = np.concatenate([content[f"joint_qkv_{part}_proj"] for part in ("q", "k", "v")])
    expected = reference.fused([(1.0, dog)], [(1.0, style)], HARD, "2")
    assert np.allclose(found.detach(), expected, atol=1e-4)


def test_a_weight_tells_its_number_format(driver, loras):
    model = detect_host().model
    keys = [key for name in ("full", "dog") for key in model.load(detect_host().shelf.resolve(name)).deltas]
    assert {model.dtype(key) for key in keys} == {torch.float32}
    driver.unet.half()
    assert {(key.part, model.dtype(key)) for key in keys} == {("unet", torch.float16), ("te", torch.float32)}


@pytest.mark.parametrize("tag", ["<nplora:full:dog:0.5:method=uspace>", "<nplora:dog:vangogh:method=ties>"])
def test_what_is_kept_in_half_precision_is_added_like_the_rest(driver, loras, monkeypatch, tag):
    """To weights in float32 here, so that the rounding shows."""
    names = [module.name for module in driver.modules]
    driver.generate(f"a cat {tag}")
    exact = {name: driver.delta(name) for name in names}
    monkeypatch.setattr(type(detect_host().model), "dtype", lambda self, key: torch.float16)
    driver.switch_checkpoint()
    driver.switch_checkpoint()
    picture = driver.generate(f"a dog {tag}")
    assert not any("none is applied" in comment for comment in picture.comments)
    errors = [reference.error(driver.delta(name), exact[name]) for name in names]
    assert 1e-6 < max(errors) < 1e-3


@pytest.mark.parametrize("kind", ["full", "loha", "lokr", "glora"])
@pytest.mark.parametrize("method", ["np", "direct", "fixed"])
@pytest.mark.parametrize("role", ["content", "style"])
def test_what_has_no_factors_is_not_kept_as_matrices(driver, loras, kind, method, role):
    """The host makes them from the file's tensors while it merges them, right to the last digits."""
    if kind not in driver.kinds:
        pytest.skip(f"this WebUI does not read {kind}")
    path = driver.lora_dir / f"{kind}.safetensors"
    host = detect_host()
    dog, other = (host.model.load(host.shelf.resolve(name)) for name in ("dog", kind))
    held = sum(tensor.nbytes for tensor in load_file(path).values())
    names, weights = ("dog", kind), ([dog], [other])
    if role == "content":
        names, weights = names[::-1], weights[::-1]
    lora = fuse(parse_tag([*names, f"method={method}"]), *weights, ByteLru(0))
    deltas = [*lora.deltas.values(), *lora.rivals.values()]
    assert any(isinstance(delta, Remade) for delta in deltas)
    assert not any("matrix" in vars(delta) for delta in deltas if isinstance(delta, Remade))
    assert lora.nbytes <= 2 * dog.nbytes + held
    assert other.nbytes <= 1.1 * held


@forges
@pytest.mark.parametrize("kind", ["full", "loha", "lokr", "dora", "glora"])
def test_what_only_adds_is_calculated_without_the_weight(driver, loras, monkeypatch, kind):
    """Half the time of what has to be found as the difference of two weights, in float64."""
    if kind not in driver.kinds:
        pytest.skip(f"this WebUI does not read {kind}")
    host = detect_host()
    dialect = type(host.model._dialect)
    merged, seen = dialect.merged, set()

    def watched(self, patcher, patch, weight, target):
        if weight.device.type != "meta":
            seen.add((weight.dtype, bool(weight.any())))
        return merged(self, patcher, patch, weight, target)

    monkeypatch.setattr(dialect, "merged", watched)
    host.model.load(host.shelf.resolve(kind))
    needs_weight = kind in ("dora", "glora")
    assert seen == {(torch.float64, True) if needs_weight else (torch.float32, False)}


@pytest.mark.parametrize("driver", [Neo], indirect=True)
def test_names_that_neo_mends_before_it_reads_them(driver, loras):
    tensors = {name.replace("lora_unet_", "lora_unet__"): tensor for name, tensor in load_file(loras.dog).items()}
    save_file(tensors, driver.lora_dir / "doubled.safetensors")
    driver.generate("a cat <nplora:doubled:vangogh:1>")
    assert driver.compare(fused(loras.dog, loras.vangogh, 1)).worst < 1e-5


@forges
def test_an_original_is_found_under_what_is_merged_into_it(driver, loras):
    """DoRA and GLoRA need the checkpoint's weights, whatever the last picture left in the model."""
    kind = of_original(driver)
    driver.generate(f"a cat <nplora:{kind}:vangogh:1>")
    first = driver.delta(SPLIT)
    for other in ("<lora:hat:1>", "<nplora:hat:dog:0.5>", ""):
        driver.generate(f"a cat {other}")
        detect_host().model.load(detect_host().shelf.resolve(kind))
        driver.generate(f"a cat <nplora:{kind}:vangogh:0.7>")
        driver.generate(f"a cat <nplora:{kind}:vangogh:1>")
        assert np.array_equal(driver.delta(SPLIT), first)


@pytest.mark.parametrize("driver", [Neo], indirect=True)
def test_errors_that_neo_logs_on_the_way_are_kept_from_the_console(driver, loras, caplog):
    """Its OFT knows no float64, which we try first."""
    picture = driver.generate("a cat <nplora:oft:vangogh:1>")
    assert not any("cannot" in comment for comment in picture.comments)
    assert "expected" not in caplog.text
    assert "ERROR" not in caplog.text


def test_values_that_are_not_finite_are_refused(driver, loras):
    tensors = load_file(loras.dog)
    tensors[next(key for key in tensors if key.endswith("lora_up.weight"))][0] = float("nan")
    save_file(tensors, driver.lora_dir / "nan.safetensors")
    plain = driver.generate("a cat").pixels
    for tag in ("<nplora:nan:vangogh>", "<nplora:dog:nan>"):
        picture = driver.generate(f"a cat {tag}")
        assert "'nan' holds values that are not finite" in picture.comments[0]
        assert picture.pixels == plain


@pytest.mark.parametrize("alpha", [None, 0.0, 4.0])
def test_a_rank_of_0_is_refused_by_name(driver, loras, alpha):
    tensors = load_file(loras.dog)
    for name in list(tensors):
        if name.endswith(".alpha"):
            del tensors[name]
            if alpha is not None:
                tensors[name] = torch.tensor(alpha)
    name = next(key for key in tensors if key.endswith("q_proj.lora_up.weight"))
    tensors[name] = tensors[name][:, :0]
    down = name.replace("lora_up", "lora_down")
    tensors[down] = tensors[down][:0]
    save_file(tensors, driver.lora_dir / "nothing.safetensors")
    (comment,) = driver.generate("a cat <nplora:nothing:vangogh>").comments
    reason = "cannot be read: cannot reshape" if isinstance(driver, A1111) else "has rank 0 in layer"
    assert f"'nothing' {reason}" in comment


def test_alpha_0_is_said_to_change_nothing(driver, loras):
    tensors = {name: tensor * 0 if name.endswith(".alpha") else tensor for name, tensor in load_file(loras.dog).items()}
    save_file(tensors, driver.lora_dir / "silent.safetensors")
    picture = driver.generate("a cat <nplora:silent:vangogh:1>")
    assert "the content changes nothing: its alpha is 0" in picture.comments[0]
    assert driver.compare(factors(loras.vangogh)).worst < 1e-5
    picture = driver.generate("a cat <nplora:dog:silent:hard>")
    assert "the style changes nothing" in picture.comments[0]
    assert driver.compare(factors(loras.dog)).worst < 1e-5


def test_a_calculation_that_runs_out_of_memory_is_no_misfit(driver, loras, monkeypatch):
    """Only the trial without values tells what fits: what fails after it is said, and nothing is left out."""
    calculate = networks.loha

    def fail(*arguments):
        if not any(argument is not None and argument.is_meta for argument in arguments):
            raise RuntimeError("not enough memory: you tried to allocate 99 bytes")
        return calculate(*arguments)

    plain = driver.generate("a cat").pixels
    monkeypatch.setattr(networks, "loha", fail)
    picture = driver.generate("a cat <nplora:loha:vangogh:1>")
    (comment,) = picture.comments
    assert "not enough memory" in comment
    assert picture.pixels == plain


def test_a_model_that_was_switched_away_is_let_go(driver, loras):
    driver.generate(f"a cat <nplora:{of_original(driver)}:vangogh:1>")
    objects = getattr(driver.sd_model, "forge_objects_original", None)
    old = weakref.ref(objects.unet.model if objects else driver.sd_model.unet)
    del objects
    driver.generate("a cat")
    driver.switch_checkpoint()
    driver.generate("a cat")
    gc.collect()
    assert old() is None


@forges
def test_a_pickle_is_read_without_running_its_code(driver, loras, tmp_path):
    host = detect_host()
    tensors = load_file(loras.dog)
    marker = tmp_path / "marker"
    for name, content in {"sound": tensors, "evil": {**tensors, "payload": Payload(marker)}}.items():
        torch.save(content, tmp_path / f"{name}.pt")
    read = {name: ShelfFile(name, str(tmp_path / f"{name}.pt"), name, "", None) for name in ("sound", "evil")}
    expected = host.model.load(host.shelf.resolve("dog")).deltas
    found = host.model.load(read["sound"]).deltas
    assert all(torch.equal(found[key].dense(), expected[key].dense()) for key in expected)
    with pytest.raises(FileError, match="'evil' cannot be read: it is damaged, or a pickle that can run code"):
        host.model.load(read["evil"])
    assert not marker.exists()


def test_a_file_that_the_host_cannot_hash_is_refused_by_name(driver, loras, monkeypatch):
    def fail(self):
        raise OSError(22, "Invalid argument")

    plain = driver.generate("a cat").pixels
    monkeypatch.setattr(NetworkOnDisk, "read_hash", fail)
    picture = driver.generate(TAG)
    (comment,) = picture.comments
    assert "'dog' cannot be read: [Errno 22] Invalid argument" in comment
    assert picture.pixels == plain


def test_what_is_bundled_with_a_lora_is_not_counted(driver, loras):
    tensors = load_file(loras.dog)
    tensors["bundle_emb.trigger.string_to_param.*"] = torch.ones(1, 24)
    save_file(tensors, driver.lora_dir / "bundled.safetensors")
    assert not driver.generate("a cat <nplora:bundled:vangogh:10>").comments


def test_an_unforeseen_error_is_a_comment_too(driver, loras, monkeypatch, caplog):
    plain = driver.generate("a cat").pixels
    monkeypatch.setattr("lib_nplora.jobs.job.fuse", lambda *args: 1 / 0)
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
    assert any("1 of the modules in 'more' fit no layer of this model" in comment for comment in picture.comments)
    assert driver.compare(fused(loras.dog, loras.vangogh, 10)).worst < 1e-4


def test_neo_says_that_nunchaku_cannot(tmp_path, monkeypatch):
    monkeypatch.setattr(Neo, "dynamic_args", types.SimpleNamespace(online_lora=False, nunchaku=True))
    with running(Neo, tmp_path) as host:
        Loras(host)
        plain = host.generate("a cat").pixels
        picture = host.generate(TAG)
        assert "Nunchaku" in picture.comments[0]
        assert picture.pixels == plain


def test_forge_online_patches_only_for_quantised_weights(tmp_path, monkeypatch):
    """The host ignores its own switch for plain float weights."""
    monkeypatch.setattr(Forge, "dynamic_args", {"online_lora": True})
    with running(Forge, tmp_path) as host:
        Loras(host)
        host.generate(TAG)
        assert [online for *_, online in host.sd_model._nplora.mine.unet.lora_patches] == [False]
        host.sd_model.forge_objects_original.unet.model.storage_dtype = torch.float8_e4m3fn
        host.generate("a cat <nplora:dog:vangogh:0.7>")
        assert [online for *_, online in host.sd_model._nplora.mine.unet.lora_patches] == [True]


def test_neo_patches_online_when_it_is_switched_on(tmp_path, monkeypatch):
    for switch in (False, True):
        monkeypatch.setattr(Neo, "dynamic_args", types.SimpleNamespace(online_lora=switch, nunchaku=False))
        with running(Neo, tmp_path) as host:
            Loras(host)
            host.generate(TAG)
            unet = host.sd_model._nplora.mine.unet
            assert {unet.use_online_lora(key) for key in unet.patches} == {switch}


@pytest.mark.parametrize("driver", [Forge, Neo], indirect=True)
def test_a_model_that_takes_factors_only_says_so(driver, loras, monkeypatch):
    """Neo's INT8 models leave out whatever else is applied on the fly, without a word."""
    plain = driver.generate("a cat").pixels
    monkeypatch.setattr(driver.patcher_class, "_process_online_loras", lambda self: None, raising=False)
    monkeypatch.setattr(type(detect_host().model._dialect), "is_online", lambda self, unet: True)
    picture = driver.generate("a cat <nplora:full:vangogh:0.5>")
    assert any("takes factors only" in comment for comment in picture.comments)
    assert picture.pixels == plain


@forges
def test_the_originals_are_never_patched(driver, loras):
    driver.generate(TAG)
    originals = driver.sd_model.forge_objects_original
    assert not originals.unet.all_patches()
    assert not originals.clip.patcher.all_patches()


@forges
def test_the_same_fusion_again_patches_nothing_again(driver, loras):
    driver.generate(TAG)
    unet = driver.sd_model._nplora.mine.unet
    driver.generate("a dog <nplora:dog:vangogh:0.5>")
    assert driver.sd_model._nplora.mine.unet is unet
    driver.generate("a dog <nplora:dog:vangogh:0.6>")
    assert driver.sd_model._nplora.mine.unet is not unet


def watch(driver, loras, change: dict[str, np.ndarray] | None = None) -> dict[str, str]:
    """Have the contested layers of KLORA compared with both sides, plus what others add. Returns who is to win."""
    expected = winners(loras.knight, loras.ink, "klora", 6)
    sides = {"c": factors(loras.knight), "s": factors(loras.ink)}
    for updates in sides.values():
        for name, added in (change or {}).items():
            up, down = updates[name]
            updates[name] = np.concatenate([up, added], axis=1), np.concatenate([down, np.eye(added.shape[1])])
    driver.watch({side: {name: updates[name] for name in expected} for side, updates in sides.items()})
    return expected


def seen(driver) -> dict[str, str]:
    calls = driver.seen()
    return {name: "".join(call.labels[name] for call in calls) for name in calls[0].labels}


def online(driver_class, monkeypatch) -> None:
    """Have the host patch layers at each forward."""
    if driver_class is Neo:
        monkeypatch.setattr(Neo, "dynamic_args", types.SimpleNamespace(online_lora=True, nunchaku=False))
    else:
        monkeypatch.setattr(Forge, "dynamic_args", {"online_lora": True})


def copied_each_time(host, monkeypatch) -> None:
    """As other extensions do: each pass has its own copy of the UNet."""
    before_sampling = host.before_sampling

    def with_copy():
        before_sampling()
        host.sd_model.forge_objects.unet = host.sd_model.forge_objects.unet.clone()

    monkeypatch.setattr(host, "before_sampling", with_copy)


@pytest.mark.parametrize("driver_class", [Forge, Neo])
def test_layers_that_are_patched_at_each_forward_change_with_the_steps(driver_class, tmp_path, monkeypatch):
    pixels = []
    for is_online in (False, True):
        with monkeypatch.context() as patch:
            if is_online:
                online(driver_class, patch)
            folder = tmp_path / str(is_online)
            folder.mkdir()
            with running(driver_class, folder) as host:
                loras = Loras(host)
                copied_each_time(host, patch)
                host.sd_model.forge_objects_original.unet.model.storage_dtype = torch.float8_e4m3fn
                plain = host.generate("a cat", steps=6).pixels
                expected = watch(host, loras)
                pixels.append([host.generate(KLORA, steps=6).pixels for _ in range(2)])
                found = seen(host)
                assert found == (dict.fromkeys(expected, "?" * 6) if is_online else expected)
                assert host.generate("a cat", steps=6).pixels == plain
    merged, patched = pixels
    assert merged == patched
    assert merged[0] == merged[1]


@pytest.mark.parametrize("driver", [Neo], indirect=True)
def test_weights_that_neo_patches_in_place(driver, loras, monkeypatch):
    monkeypatch.setattr(driver.patcher_class, "weight_inplace_update", True)
    plain = driver.generate("a cat").pixels
    before = driver.fingerprint()
    expected = watch(driver, loras)
    for _ in range(2):
        driver.generate(KLORA, steps=6)
        assert seen(driver) == expected
    assert driver.generate("a cat").pixels == plain
    assert driver.fingerprint() == before


@forges
def test_a_copy_of_the_model_with_patches_of_others(driver, loras, monkeypatch):
    """Other extensions copy the UNet before the sampling, and patch the copy, in layers of ours, too."""
    (layer, *_), added = winners(loras.knight, loras.ink, "klora", 1), 0.3
    shape = driver.parameter(layer, "weight").shape
    before_sampling = driver.before_sampling

    def with_copy():
        before_sampling()
        unet = driver.sd_model.forge_objects.unet = driver.sd_model.forge_objects.unet.clone()
        patch = ("diff", (torch.full(shape, added),))
        detect_host().model._dialect.add(unet, {driver._key(layer, "weight"): patch}, "theirs", False)

    plain = driver.generate("a cat", steps=6).pixels
    first = driver.generate(KLORA, steps=6).pixels
    monkeypatch.setattr(driver, "before_sampling", with_copy)
    expected = watch(driver, loras, {layer: np.full(shape, added)})
    theirs = driver.generate(KLORA, steps=6).pixels
    assert seen(driver) == expected
    assert driver.generate(KLORA, steps=6).pixels == theirs != first
    assert seen(driver) == expected
    monkeypatch.setattr(driver, "before_sampling", before_sampling)
    watch(driver, loras)
    assert driver.generate(KLORA, steps=6).pixels == first
    assert seen(driver) == expected
    assert driver.generate("a cat", steps=6).pixels == plain


def test_a_swap_that_fails_is_said_once_and_ends_the_changes(driver, loras, monkeypatch):
    plain = driver.generate("a cat").pixels
    first = driver.generate(KLORA, steps=6).pixels
    expected = watch(driver, loras)
    swap = type(detect_host().model).swap

    def failing(self, fused, winners):
        if len(driver.seen()) >= 3:
            raise HostError("not today")
        swap(self, fused, winners)

    with monkeypatch.context() as patch:
        patch.setattr(type(detect_host().model), "swap", failing)
        picture = driver.generate(KLORA, steps=6)
    (comment,) = picture.comments
    assert comment.endswith("stopped changing at step 4 of 6: not today")
    assert seen(driver) == {name: letters[:3] + letters[2] * 3 for name, letters in expected.items()}
    assert driver.generate("a cat").pixels == plain
    assert driver.generate(KLORA, steps=6).pixels == first


@pytest.mark.parametrize("driver", [Classic], indirect=True)
def test_classic_says_that_it_reads_no_doras(driver, loras):
    """It would take their factors, and leave out the magnitudes."""
    tensors = load_file(loras.dog)
    for name in list(tensors):
        if name.endswith("lora_up.weight"):
            magnitude = torch.ones(tensors[name].shape[0], 1)
            tensors[name.replace("lora_up.weight", "dora_scale")] = magnitude
    save_file(tensors, driver.lora_dir / "scaled.safetensors")
    plain = driver.generate("a cat").pixels
    picture = driver.generate("a cat <nplora:scaled:vangogh:1>")
    (comment,) = picture.comments
    assert comment.endswith("it is a DoRA, in a format that this WebUI does not read: use a plain LoRA")
    assert picture.pixels == plain


def test_a_tag_over_two_lines_is_told_in_one(driver, loras):
    prompt = "a cat <nplora:dog:\nnobody>"
    told = "NP-LoRA: <nplora:dog: nobody>: there is no LoRA called 'nobody'."
    assert driver.generate(prompt, n_iter=2).comments == (told,)
    driver.set_option("nplora_on_error", "Stop, without a picture")
    with pytest.raises(RequestError, match=f"^{re.escape(told)}$"):
        driver.generate(prompt)
