"""LoRA.rar against its definition, and what is said of files and models that it cannot do with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lib_nplora.command_line.main import main
from lib_nplora.errors import RequestError
from lib_nplora.fusion.walk import fingerprint, fuse
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.dense import DenseDelta
from lib_nplora.maths.lowrank import LowRankDelta
from lib_nplora.methods.rar import HYPERNET, read_hypernet
from lib_nplora.request.request import FusionRequest, Source
from lib_nplora.request.tag import format_tag, parse_tag

from .. import loras as files
from ..matrices import random_delta
from ..reference import kohya, lora_rar
from .layers import exact, request, run

ATTENTION = "down_blocks_1_attentions_0_transformer_blocks_0_attn{}_to_{}"
Q = ModuleKey(ATTENTION.format(1, "q"), "unet")
PUBLISHED = os.environ.get("NPLORA_HYPERNET", "")
"""A copy of the published file, for those who have one: it is not ours to ship."""


def written(path: Path, seed: int = 0, **changed: np.ndarray) -> Path:
    tensors = {name: torch.from_numpy(values) for name, values in (lora_rar.random_hypernet(seed) | changed).items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.fixture
def file(tmp_path) -> Path:
    return written(tmp_path / "hypernet.pth")


def asked(file: Path, **given) -> FusionRequest:
    return request("rar", hypernet=read_hypernet(str(file)), **given)


def lora(name: str, deltas) -> LoraWeights:
    return LoraWeights(name, name, deltas)


def pair(width: int, key: ModuleKey = Q, rank: int = 3) -> list[LoraWeights]:
    return [lora(name, {key: random_delta(width, width, rank, seed)}) for seed, name in ((1, "content"), (5, "style"))]


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected))


# What it does


@pytest.mark.parametrize("width", [640, 1280])
@pytest.mark.parametrize("attention", [1, 2])
@pytest.mark.parametrize("role", ["q", "out_0"])
def test_columns_count_as_the_hypernetwork_says(file, width, attention, role):
    key = ModuleKey(ATTENTION.format(attention, role), "unet")
    content, style = pair(width, key)
    found = run(asked(file, c=0.6, s=-1.5), content, style).deltas[key]
    sides = [exact(side.deltas[key]) for side in (content, style)]
    both = lora_rar.mergers(lora_rar.random_hypernet(), *sides)
    assert close(exact(found), 0.6 * sides[0] * both[:, 0] - 1.5 * sides[1] * both[:, 1])
    assert found.rank == 6


def test_whole_matrices_and_factors_come_to_the_same(file):
    content, style = pair(640)
    expected = exact(run(asked(file), content, style).deltas[Q])
    for dense in ((content, style), (content,), (style,)):
        sides = [
            lora(one.name, {Q: DenseDelta.of(one.deltas[Q].dense())}) if one in dense else one
            for one in (content, style)
        ]
        assert close(exact(run(asked(file), *sides).deltas[Q]), expected)
    assert close(
        expected, lora_rar.merged(lora_rar.random_hypernet(), exact(content.deltas[Q]), exact(style.deltas[Q]))
    )


def test_several_are_seen_as_their_weighted_sum(file):
    loras = [lora(str(seed), {Q: random_delta(640, 640, 2, seed)}) for seed in (1, 4, 7)]
    both = (Source("1", 0.5, 0.5), Source("4", -2.0, -2.0))
    one = FusionRequest.of(both, (Source("7"),), "rar", hypernet=read_hypernet(str(file)))
    found = fuse(one, loras[:2], loras[2:], ByteLru(0)).deltas[Q]
    first, second, style = (exact(one.deltas[Q]) for one in loras)
    expected = lora_rar.merged(lora_rar.random_hypernet(), 0.5 * first - 2 * second, style)
    assert close(exact(found), expected)
    assert found.rank == 6


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (ATTENTION.format(1, "k"), "unet"),
        (ATTENTION.format(2, "v"), "unet"),
        ("down_blocks_1_attentions_0_transformer_blocks_0_ff_net_2", "unet"),
        ("down_blocks_1_attentions_0_proj_in", "unet"),
        ("text_model_encoder_layers_0_self_attn_q_proj", "te"),
    ],
)
def test_all_else_is_added(file, name, part):
    key = ModuleKey(name, part)
    sides = [
        lora(one.name, {**one.deltas, key: random_delta(640, 24, 2, seed)}) for seed, one in enumerate(pair(640), 40)
    ]
    found = run(asked(file, c=0.5), *sides).deltas[key]
    assert close(exact(found), 0.5 * exact(sides[0].deltas[key]) + exact(sides[1].deltas[key]))


def test_a_layer_that_one_side_has_is_added(file):
    content, style = pair(640)
    lone = ModuleKey(ATTENTION.format(2, "q"), "unet")
    content = lora("content", {**content.deltas, lone: random_delta(640, 640, 2, 9)})
    assert close(exact(run(asked(file), content, style).deltas[lone]), exact(content.deltas[lone]))


def test_another_hypernetwork_is_another_fusion(file, tmp_path):
    sides = pair(640)
    other = written(tmp_path / "other.safetensors", seed=1)
    prints = {fingerprint(asked(one), sides[:1], sides[1:]) for one in (file, other)}
    assert len(prints) == 2
    assert asked(file) == asked(file)
    assert asked(file) != asked(other)


def test_a_file_that_was_replaced_is_read_anew(file):
    before = read_hypernet(str(file))
    written(file, seed=1)
    os.utime(file, (1, 1))
    assert read_hypernet(str(file)) != before


# The published one

CONSTANT = {640: (-0.570, 0.984), 1280: (0.012, 0.226)}
"""Width -> what its copy of 2025 makes of columns that are next to nothing, as those of a real LoRA are."""


@pytest.mark.skipif(not PUBLISHED, reason="NPLORA_HYPERNET names no copy of the published file")
@pytest.mark.parametrize("width", CONSTANT)
def test_the_published_one_is_nearly_constant(width):
    hypernet = read_hypernet(PUBLISHED)
    generator = torch.Generator().manual_seed(0)
    sides = [
        LowRankDelta(*(torch.randn(shape, generator=generator) * 2e-3 for shape in ((width, 8), (8, width))))
        for _ in range(2)
    ]
    found = hypernet.mergers(sides[:1], sides[1:]).double().numpy()
    assert found.mean(1) == pytest.approx(CONSTANT[width], abs=2e-3)
    assert found.std(1).max() < 2e-2
    held = {name: values.numpy() for name, values in hypernet.tensors.items()}
    np.testing.assert_allclose(found.T, lora_rar.mergers(held, *map(exact, sides)), atol=1e-5)


# What it is not for


def test_without_the_file_it_says_where_it_is_published():
    with pytest.raises(RequestError) as error:
        run(request("rar"), *pair(640))
    text = error.value.told("command line")
    assert "https://github.com/donaldssh/LoRA.rar (models/hypernet.pth, CC BY-NC-SA 4.0" in text
    assert text.endswith("name your copy: --hypernet FILE, in Python hypernet='FILE'")
    assert error.value.told("WebUI").endswith("in the WebUI's settings, NP-LoRA: hypernet")


@pytest.mark.parametrize("width", [320, 768, 3072])
def test_other_widths_are_refused(file, width):
    with pytest.raises(RequestError, match=f"640 or 1280 wide, as SDXL's are, and layer {Q} is {width} wide: choose"):
        run(asked(file), *pair(width, rank=1))


def test_a_pair_without_such_layers_is_refused(file):
    content, style = pair(640, ModuleKey(ATTENTION.format(1, "k"), "unet"))
    with pytest.raises(RequestError, match="'content' and 'style' have none of them in common: choose another method"):
        run(asked(file), content, style)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"input_2.weight": np.zeros((128, 1536), np.float32)},
            "128 x 1536 stands where that has input_2.weight, 128 x",
        ),
        ({"output.1.bias": np.zeros(3, np.float32)}, "3 stands where that has output.1.bias, 2"),
        ({"output.1.bias": np.full(2, np.nan, np.float32)}, "holds values that are no numbers"),
    ],
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_wrong_file_is_told_by_what_it_holds(tmp_path, changed, said, ending):
    path = written(tmp_path / f"wrong.{ending}", **changed)
    with pytest.raises(RequestError, match=f"hypernet: 'wrong.{ending}' .*{said}"):
        read_hypernet(str(path))


def test_a_lora_is_no_hypernetwork(tmp_path):
    path = files.write(tmp_path / "dog.safetensors", files.random_lora(files.SD1, 4, 1))
    with pytest.raises(RequestError, match=r"'dog.safetensors' is not LoRA.rar's hypernetwork: nothing stands where"):
        read_hypernet(str(path))


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def test_a_file_that_would_run_code_does_not(tmp_path):
    torch.save({"input_1.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(RequestError, match=r"'evil.pth' is no file of tensors"):
        read_hypernet(str(tmp_path / "evil.pth"))


def test_a_file_that_is_not_there(tmp_path, file):
    with pytest.raises(RequestError, match=r"hypernte.pth' cannot be read \(No such file.*Did you mean 'hypernet.pth'"):
        read_hypernet(str(tmp_path / "hypernte.pth"))
    for path in (tmp_path, tmp_path / "no folder" / "hypernet.pth"):
        with pytest.raises(RequestError, match=r"^hypernet: "):
            read_hypernet(str(path))
    (tmp_path / "text.pth").write_text("no tensors")
    with pytest.raises(RequestError, match=r"'text.pth' is no file of tensors"):
        read_hypernet(str(tmp_path / "text.pth"))


# Where it is named


def test_it_has_no_place_in_a_tag(file):
    assert format_tag(asked(file)) == "<nplora:dog:vangogh:method=rar>"
    with pytest.raises(RequestError, match="'hypernet=' has no place in a tag: it stands among the WebUI's settings"):
        parse_tag(["dog", "vangogh", "method=rar", "hypernet=x.pth"])


def test_other_methods_do_not_read_it(file):
    other = request("np", hypernet=read_hypernet(str(file)))
    assert other.remarks == ["hypernet= has no effect with method=np"]
    assert other.given[0][0] == HYPERNET.name


def test_the_command_line(tmp_path, file, capsys):
    shapes = {f"lora_unet_{ATTENTION.format(1, 'q')}": (640, 640), f"lora_unet_{ATTENTION.format(2, 'k')}": (640, 2048)}
    paths = []
    for seed, name in enumerate(("dog", "vangogh")):
        generator, tensors = torch.Generator().manual_seed(seed), {}
        for module, (out, in_) in shapes.items():
            tensors[f"{module}.lora_up.weight"] = torch.randn(out, 2, generator=generator)
            tensors[f"{module}.lora_down.weight"] = torch.randn(2, in_, generator=generator)
        paths.append(tmp_path / f"{name}.safetensors")
        save_file(tensors, paths[-1])
    out = tmp_path / "out.safetensors"
    command = ["fuse", *map(str, paths), "-o", str(out), "--method", "rar", "--dtype", "fp32"]
    assert main(command) == 2
    assert "https://github.com/donaldssh/LoRA.rar" in capsys.readouterr().err
    assert not out.exists()
    assert main([*command, "--hypernet", str(paths[0])]) == 2
    assert "'dog.safetensors' is not LoRA.rar's hypernetwork" in capsys.readouterr().err
    assert main([*command, "--hypernet", str(file)]) == 0
    with safe_open(out, "pt") as opened:
        told = opened.metadata()
    assert told["nplora_method"] == "rar"
    assert told["nplora_hypernet"] == str(read_hypernet(str(file)))
    dog, vangogh, fused = map(kohya.deltas, (*paths, out))
    q, k = sorted(fused, key=lambda name: name.endswith("k"))
    assert close(fused[q], lora_rar.merged(lora_rar.random_hypernet(), dog[q], vangogh[q]))
    assert close(fused[k], dog[k] + vangogh[k])
