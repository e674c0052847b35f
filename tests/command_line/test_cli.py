"""The command line: what it prints, what it returns, and what it leaves on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib_nplora import __version__
from lib_nplora.command_line.main import main
from lib_nplora.files import read_lora
from tests import loras, reference
from tests.reference import balance, interference, kinds, kohya

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with content.safetensors, style.safetensors and xl.safetensors."""
    loras.write(tmp_path / "content.safetensors", loras.random_lora(loras.SD1, 4, 1, alpha=2))
    loras.write(tmp_path / "style.safetensors", loras.random_lora(loras.SD1[2:], 3, 2))
    loras.write(tmp_path / "xl.safetensors", loras.random_lora(loras.SDXL, 3, 3))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fuse(*arguments: str, content: str = "content.safetensors", style: str = "style.safetensors") -> int:
    return main(["fuse", content, style, "-o", "out.safetensors", *arguments])


def dense(path: Path | str) -> dict[str, torch.Tensor]:
    return {str(key.name): delta.dense() for key, delta in read_lora(Path(path)).weights.deltas.items()}


def test_the_closing_line_counts_layers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuse() == 0
    out, err = capsys.readouterr()
    total = len(loras.SD1)
    assert re.fullmatch(
        rf"{total - 2} layers fused, 2 content only, 0 style only, 0 added unprojected, 0 not matched; "
        r"\d+\.\d\d % of the content's energy removed -> out\.safetensors\n",
        out,
    )
    assert err == ""
    assert sorted(file.name for file in folder.iterdir()) == [
        "content.safetensors", "out.safetensors", "style.safetensors", "xl.safetensors"
    ]  # fmt: skip


def test_verbose_names_every_layer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuse("--verbose", "--mu", "hard") == 0
    *lines, _ = capsys.readouterr().out.splitlines()
    assert len(lines) == len(loras.SD1)
    (line,) = (line for line in lines if line.startswith("lora_unet_mid_block_attentions_0"))
    found = re.fullmatch(r"\S+ +fused +(\d+\.\d\d) % removed", line)
    module = next(module for module in loras.SD1 if module.canonical == line.split()[0])
    content, style = loras.random_lora(loras.SD1, 4, 1, alpha=2), loras.random_lora(loras.SD1[2:], 3, 2)
    removed = interference.row(content[module].matrix(), style[module].matrix(), float("inf"))["removed"]
    assert found
    assert float(found[1]) == pytest.approx(100 * removed, abs=0.006)


@pytest.mark.parametrize("spelling", [name for name in loras.SPELLINGS if name != "kohya"])
def test_the_spelling_of_the_files_does_not_matter(folder: Path, spelling: str) -> None:
    assert fuse("--dtype", "fp32") == 0
    loras.write(folder / "respelled.safetensors", loras.random_lora(loras.SD1[2:], 3, 2), spelling)
    assert main(["fuse", "content.safetensors", "respelled.safetensors", "-o", "2.safetensors", "--dtype", "fp32"]) == 0
    ours, theirs = load_file("out.safetensors"), load_file("2.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_options_reach_the_formula(folder: Path) -> None:
    content, style = kohya.deltas(Path("content.safetensors")), kohya.deltas(Path("style.safetensors"))
    assert fuse("--mu=3", "--k=1", "--content-weight=0.5", "--style-weight=-2", "--dtype=fp32") == 0
    for name, found in dense("out.safetensors").items():
        expected = 0.5 * content[name]
        if name in style:
            expected = reference.fused([(0.5, content[name])], [(-2.0, style[name])], 3.0, "1")
        torch.testing.assert_close(found, torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", ["layer", "down", "whole"])
def test_a_balanced_file_is_the_balanced_fusion(folder: Path, mode: str) -> None:
    content, style = kohya.deltas(Path("content.safetensors")), kohya.deltas(Path("style.safetensors"))
    assert fuse(f"--balance={mode}", "--mu=hard", "--style-weight=0.7", "--dtype=fp32") == 0
    both = [name for name in content if name in style]
    sides = [[side[name] for name in both] for side in (content, style)]
    weights = dict(zip(both, balance.weights(mode, *sides)))
    for name, found in dense("out.safetensors").items():
        expected = content[name]
        if name in style:
            w_c, w_s = weights[name]
            expected = reference.fused([(w_c, content[name])], [(0.7 * w_s, style[name])], float("inf"))
        torch.testing.assert_close(found, torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-4)
    with safe_open("out.safetensors", framework="pt") as file:
        assert file.metadata()["nplora_balance"] == mode


def test_direct_and_mu_0_are_the_plain_merge(folder: Path) -> None:
    assert fuse("--method", "direct", "--dtype", "fp32") == 0
    merged = dense("out.safetensors")
    assert fuse("--mu", "0", "--dtype", "fp32", "--overwrite") == 0
    content, style = kohya.deltas(Path("content.safetensors")), kohya.deltas(Path("style.safetensors"))
    for name, found in dense("out.safetensors").items():
        torch.testing.assert_close(found, merged[name])
        expected = torch.from_numpy(content[name] + style.get(name, 0)).float()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_metadata_says_how_the_file_was_made(folder: Path) -> None:
    assert fuse("--mu", "hard", "--k", "90%", "--style-weight", "0.7", "--dtype", "bf16") == 0
    with safe_open("out.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["nplora_version"] == __version__
    assert (metadata["nplora_mu"], metadata["nplora_k"], metadata["nplora_method"]) == ("hard", "90%", "np")
    assert json.loads(metadata["nplora_contents"])[0]["name"] == "content"
    (style,) = json.loads(metadata["nplora_styles"])
    digest = read_lora(Path("style.safetensors")).weights.digest
    assert style == {"name": "style", "sha256": digest, "te": 0.7, "unet": 0.7}
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert load_file("out.safetensors")["lora_unet_conv_in.lora_up.weight"].dtype == torch.bfloat16


def test_no_common_layer_is_a_plain_merge_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loras.write(folder / "style.safetensors", loras.random_lora(loras.SD1[:4], 3, 2))
    loras.write(folder / "content.safetensors", loras.random_lora(loras.SD1[4:], 3, 2))
    assert fuse() == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first == "The two LoRAs share no layer that can be fused, so this is a plain merge."
    assert last.startswith(
        f"0 layers fused, {len(loras.SD1) - 4} content only, 4 style only, 0 added unprojected, 0 not matched; 0.00 %"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "arguments are required: COMMAND"),
        (["fuze"], "invalid choice"),
        (["fuse"], "arguments are required: CONTENT, STYLE"),
        (["fuse", "content.safetensors", "style.safetensors"], "-o"),
        (["fuse", "-o", "out.safetensors", "gone.safetensors", "style.safetensors"], "no file 'gone.safetensors'"),
        (["fuse", "-o", "out.safetensors", "contemt.safetensors", "style.safetensors"], "Did you mean 'content.saf"),
        (["fuse", "-o", "out.safetensors", "content.safetensors", "copy.safetensors"], "are the same LoRA"),
        (["fuse", "-o", "out.safetensors", "content.safetensors", "renamed.safetensors"], "are the same LoRA"),
        (["fuse", "-o", "out.safetensors", "content.safetensors", "xl.safetensors"], "made for SD 1 and .* for SDXL"),
        (["fuse", "-o", "out.safetensors", "content.safetensors", "wide.safetensors"], "different models: layer lora_"),
        (["fuse", "-o", "out.safetensors", "content.safetensors", "nan.safetensors"], "not finite in layer lora_unet"),
        (["fuse", "-o", "out.safetensors", "content.safetensors", "text.safetensors"], "cannot be opened as a .safet"),
        (["fuse", "-o", "out.safetensors", "content.safetensors", "style.ckpt"], "convert it to .safetensors"),
        (["fuse", "-o", "out.ckpt", "content.safetensors", "style.safetensors"], "does not end in .safetensors"),
        (["fuse", "-o", "a/b.safetensors", "content.safetensors", "style.safetensors"], "folder 'a' does not exist"),
        (["fuse", "-o", "old.safetensors", "content.safetensors", "style.safetensors"], "exists.*--overwrite"),
        (["fuse", "-o", "dir.safetensors", "content.safetensors", "style.safetensors", "--overwrite"], "is a folder"),
        (["fuse", "-o", "style.safetensors", "content.safetensors", "style.safetensors"], "one of the files to read"),
        (
            ["fuse", "-o", "link.safetensors", "content.safetensors", "style.safetensors", "--overwrite"],
            "of the files to read",
        ),
        *(
            (["fuse", "-o", "out.safetensors", "content.safetensors", "style.safetensors", *option.split()], words)
            for option, words in {
                "--mu abc": "mu=abc is not a number: mu is a number from 0 up, or 'hard'",
                "--mu -1": "mu=-1 is negative",
                "--mu nan": "not a finite number",
                "--k 0": "k=0 is less than 1",
                "--k 1.5": "k=1.5 is not 'all'",
                "--method nplora": "no method 'nplora'",
                "--content-weight inf": "content-weight=inf is not a finite number",
                "--style-weight 0,5": r"style-weight=0,5 is not a number. Write 0\.5",
                "--content-weight 0 --style-weight 0": "nothing is left to write: the weights are 0 in every layer",
                "--dtype fp8": "invalid choice: 'fp8'",
                "--content-weight 1e12": "too large for fp16: choose --dtype bf16 or fp32",
                "--nonsense": "unrecognized arguments: --nonsense",
            }.items()
        ),
    ],
)
def test_every_mistake_is_one_line_and_leaves_no_file(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    content = (folder / "content.safetensors").read_bytes()
    (folder / "copy.safetensors").write_bytes(content)
    save_file(load_file(folder / "content.safetensors"), folder / "renamed.safetensors", {"ss_output_name": "another"})
    (folder / "old.safetensors").write_bytes(b"old")
    (folder / "text.safetensors").write_text("<html>not found</html>")
    (folder / "style.ckpt").write_bytes(b"\x80\x02}q\x00.")
    (folder / "dir.safetensors").mkdir()
    (folder / "link.safetensors").symlink_to(folder / "content.safetensors")
    wide = [replace(module, out_features=7) for module in loras.SD1[4:6]]
    loras.write(folder / "wide.safetensors", loras.random_lora(wide))
    broken = loras.tensors(loras.random_lora(loras.SD1, 3, 4))
    broken["lora_unet_conv_out.lora_down.weight"][0, 0] = float("inf")
    save_file(broken, folder / "nan.safetensors")
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}

    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(words, err)
    assert re.fullmatch(r"nplora: [^\n]+\n", err)
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before
    assert {file.name for file in folder.iterdir() if file.is_dir()} == {"dir.safetensors"}


def test_overwrite_replaces_the_file(folder: Path) -> None:
    (folder / "out.safetensors").write_bytes(b"old")
    assert fuse("--overwrite") == 0
    assert len(dense("out.safetensors")) == len(loras.SD1)


def test_a_folder_without_permission(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lib_nplora.files.atomic.TemporaryDirectory", locked)
    assert fuse() == 2
    assert re.fullmatch(r"nplora: .* cannot be written: [^\n]+\n", capsys.readouterr().err)


def test_a_full_disk(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lib_nplora.files.writer.save_file", full)
    before = set(folder.iterdir())
    assert fuse() == 2
    assert re.fullmatch(r"nplora: 'out\.safetensors' cannot be written: .*No space left.*\n", capsys.readouterr().err)
    assert set(folder.iterdir()) == before


def test_an_interrupt_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lib_nplora.jobs.job.layers", interrupted)
    before = set(folder.iterdir())
    assert fuse() == 130
    assert set(folder.iterdir()) == before


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_in_a_real_process(tmp_path: Path) -> None:
    """The signal comes soon after the temporary folder, while hundreds of layers are left to store.

    A shell that runs the tests in the background has its children ignore it; this one does not.
    """
    many = [loras.Module("unet", f"mid_block.layers.{i}", "", 256, 256) for i in range(1000)]
    for seed, name in enumerate(("content", "style")):
        loras.write(tmp_path / f"{name}.safetensors", loras.random_lora(many, 2, seed))
    names = ["content.safetensors", "style.safetensors", "-o", "out.safetensors"]
    before = set(tmp_path.iterdir())
    process = subprocess.Popen(
        [sys.executable, "-m", "lib_nplora", "fuse", *names],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and set(tmp_path.iterdir()) == before:
        time.sleep(0.002)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")
    assert set(tmp_path.iterdir()) == before


LINEAR, NORM = "lora_unet_mid_block_attentions_0_proj_in", "lora_unet_mid_block_attentions_0_norm"


def fused(content: dict[str, torch.Tensor], style: dict[str, torch.Tensor], *arguments: str) -> int:
    """Fuse two state dicts in the working directory, hard, in float32, into out.safetensors."""
    for name, state in (("c", content), ("s", style)):
        save_file({key: tensor.clone().contiguous() for key, tensor in state.items()}, f"{name}.safetensors")
    common = ["-o", "out.safetensors", "--dtype", "fp32", "--mu", "hard", "--overwrite"]
    return main(["fuse", "c.safetensors", "s.safetensors", *common, *arguments])


@pytest.mark.parametrize(("blocks", "other"), [(loras.FLUX, "xlabs"), (loras.SD3, "comfy")], ids=["flux", "sd3"])
@pytest.mark.parametrize("split", loras.SPLIT_SPELLINGS)
@pytest.mark.parametrize("content_is_split", [True, False])
def test_slices_of_one_file_meet_whole_layers_of_the_other(
    folder: Path, blocks: list[loras.Block], other: str, split: str, content_is_split: bool
) -> None:
    content, style = loras.random_blocks(blocks, 3, 1), loras.random_blocks(blocks, 2, 2)
    spellings = (split, "kohya") if content_is_split else ("kohya", split)
    assert fused(*(loras.block_tensors(lora, name) for lora, name in zip((content, style), spellings))) == 0
    found = load_file("out.safetensors")
    for block in blocks:
        ends = 0
        expected = reference.fused(
            [(1.0, reference.dense(content[block].up, content[block].down))],
            [(1.0, reference.dense(style[block].up, style[block].down))],
            float("inf"),
        )
        expected = loras.in_diffusers_order(block, torch.from_numpy(expected))
        for name, height in block.pieces.items():
            delta = found[f"transformer.{name}.lora_B.weight"] @ found[f"transformer.{name}.lora_A.weight"]
            assert reference.error(delta, expected[ends : ends + height].numpy()) < 1e-5, name
            ends += height
    assert len(found) == 2 * sum(len(block.pieces) for block in blocks)
    assert fused(loras.block_tensors(content, other), loras.block_tensors(style, split)) == 0


def test_xlabs_covers_a_part_of_a_fused_layer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its q, k and v of a single block are fused, and the mlp that lies in the same rows is the style's alone."""
    block = next(block for block in loras.FLUX if len(block.pieces) == 4)
    up, down = torch.randn(3 * loras.H, 2), torch.randn(2, loras.H)
    name = "single_blocks.1.processor.qkv_lora"
    style = loras.random_blocks([block], 2, 2)
    content = {f"{name}.up.weight": up, f"{name}.down.weight": down}
    assert fused(content, loras.block_tensors(style, "kohya")) == 0
    assert capsys.readouterr().out.startswith("1 layers fused, 0 content only, 1 style only")
    whole = reference.dense(style[block].up, style[block].down)
    expected = reference.fused([(1.0, reference.dense(up, down))], [(1.0, whole[: 3 * loras.H])], float("inf"))
    found = load_file("out.safetensors")
    parts = [
        found[f"transformer.{name}.lora_B.weight"] @ found[f"transformer.{name}.lora_A.weight"] for name in block.pieces
    ]
    assert reference.error(torch.cat(parts[:3]), expected) < 1e-5
    assert reference.error(parts[3], whole[3 * loras.H :]) < 1e-5


def lora_of(layer: str, out: int, in_: int, rank: int, seed: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    up, down = torch.randn(out, rank, generator=g), torch.randn(rank, in_, generator=g)
    return {f"{layer}.lora_up.weight": up, f"{layer}.lora_down.weight": down}


def full_of(layer: str, out: int, in_: int, seed: int) -> dict[str, torch.Tensor]:
    return {f"{layer}.diff": torch.randn(out, in_, generator=torch.Generator().manual_seed(seed))}


def test_a_dense_layer_needs_a_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, style = full_of(LINEAR, 48, 44, 1), lora_of(LINEAR, 48, 44, 2, 2)
    assert fused(content, style) == 2
    assert re.fullmatch(
        rf"nplora: the fused layer {LINEAR} has no small rank: .*--rank N .*--full.*\n", capsys.readouterr().err
    )
    assert not Path("out.safetensors").exists()
    assert fused(content, style, "--rank", "4", "--full") == 2
    assert "not allowed with" in capsys.readouterr().err
    assert fused(content, style, "--rank", "4", "--energy", "99%") == 2
    assert "not allowed with" in capsys.readouterr().err
    for wrong in ("99", "0%", "101%", "x%", "all"):
        assert fused(content, style, f"--energy={wrong}") == 2
        assert re.search(r"=(99|0%|101%|x%|all) is not .*such as 99%", capsys.readouterr().err)
    for wrong in ("0", "-1", "1.5", "x", "9" * 30):
        assert fused(content, style, f"--rank={wrong}") == 2
        assert f"rank={wrong} is not a whole number from 1" in capsys.readouterr().err


def test_a_narrow_layer_needs_none(folder: Path) -> None:
    """The first layer of a UNet has 36 inputs, and no rank of it is large."""
    content, style = full_of(LINEAR, 48, 36, 1), lora_of(LINEAR, 48, 36, 2, 2)
    assert fused(content, style) == 0
    state = load_file("out.safetensors")
    up, down = style.values()
    c, s = content[f"{LINEAR}.diff"].double().numpy(), reference.dense(up, down)
    expected = reference.fused([(1.0, c)], [(1.0, s)], float("inf"))
    found = state[f"{LINEAR}.lora_up.weight"] @ state[f"{LINEAR}.lora_down.weight"]
    assert reference.error(found * state[f"{LINEAR}.alpha"] / len(state[f"{LINEAR}.lora_down.weight"]), expected) < 1e-5


@pytest.mark.parametrize("role", ["content", "style"])
def test_full_stores_the_fusion_whole(folder: Path, role: str) -> None:
    pair = [full_of(LINEAR, 40, 32, 1), lora_of(LINEAR, 40, 32, 2, 2)]
    content, style = pair if role == "content" else pair[::-1]
    extra = lora_of("lora_unet_conv_out", 4, 32, 3, 5)
    assert fused({**content, **extra}, style, "--full", "--k", "2") == 0
    full, (up, down) = pair[0][f"{LINEAR}.diff"].double().numpy(), pair[1].values()
    deltas = [full, reference.dense(up, down)]
    c, s = deltas if role == "content" else deltas[::-1]
    state = load_file("out.safetensors")
    assert set(state) == {
        f"{LINEAR}.diff",
        *(f"lora_unet_conv_out.{n}" for n in ("lora_up.weight", "lora_down.weight", "alpha")),
    }
    assert reference.error(state[f"{LINEAR}.diff"], reference.fused([(1.0, c)], [(1.0, s)], float("inf"), "2")) < 1e-5


def test_rank_stores_the_nearest_and_says_what_is_lost(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = "lora_unet_mid_block_attentions_0_proj_out"
    content = {**full_of(LINEAR, 40, 32, 1), **lora_of(other, 40, 32, 3, 3)}
    style = {**lora_of(LINEAR, 40, 32, 2, 2), **lora_of(other, 40, 32, 2, 4)}
    assert fused(content, style, "--full", "--mu", "0") == 0
    whole = {
        str(key): delta.dense().double().numpy()
        for key, delta in read_lora(Path("out.safetensors")).weights.deltas.items()
    }
    capsys.readouterr()
    assert fused(content, style, "--rank", "4", "--mu", "0") == 0
    lines = capsys.readouterr().out.splitlines()
    stored = dense("out.safetensors")
    energy = lost = 0.0
    for layer, ranks in ((LINEAR, "rank any -> 4"), (other, "rank 5 -> 4")):
        nearest, behind = reference.truncated(whole[layer], 4)
        assert reference.error(stored[layer], nearest) < 1e-5
        energy, lost = energy + (whole[layer] ** 2).sum(), lost + behind
        (line,) = (line for line in lines if line.startswith(f"{layer} "))
        found = re.fullmatch(rf"\S+ +{ranks} +(\d+\.\d\d) % of its energy lost", line)
        assert found
        assert float(found[1]) == pytest.approx(100 * behind / (whole[layer] ** 2).sum(), abs=0.006)
    found = re.fullmatch(r"2 layers cut to rank 4: (\d+\.\d\d) % of their energy lost", lines[-2])
    assert found
    assert float(found[1]) == pytest.approx(100 * lost / energy, abs=0.006)
    assert {float(value) for name, value in load_file("out.safetensors").items() if name.endswith("alpha")} == {4}
    with safe_open("out.safetensors", framework="pt") as file:
        assert file.metadata()["nplora_rank"] == "4"


def test_zeros_without_factors_need_no_size(folder: Path) -> None:
    assert fused({f"{LINEAR}.diff": torch.zeros(40, 32)}, lora_of(LINEAR, 40, 32, 2, 2), "--style-weight", "0") == 0
    assert not dense("out.safetensors")[LINEAR].any()


def test_every_outcome_is_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    norm = {f"{NORM}.w_norm": torch.ones(32), f"{NORM}.b_norm": torch.ones(32)}
    embedding = {"bundle_emb.cat.string_to_param.*": torch.zeros(2, 768)}
    content = {**lora_of(LINEAR, 40, 32, 2, 1), **norm, **embedding, **lora_of("lora_unet_conv_out", 4, 32, 1, 1)}
    style = {**lora_of(LINEAR, 40, 32, 2, 2), f"{NORM}.w_norm": torch.ones(32), f"{LINEAR}.diff_b": torch.ones(40)}
    assert fused(content, style, "--verbose") == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last.startswith(
        "1 layers fused, 2 content only, 1 style only, 1 added unprojected (norms and biases have no input side), "
        "1 not matched; "
    )
    assert any(re.fullmatch(rf"{NORM} +added unprojected +norms and biases have no input side", line) for line in lines)
    state = load_file("out.safetensors")
    assert torch.equal(state[f"{NORM}.diff"], 2 * torch.ones(32))
    assert torch.equal(state[f"{NORM}.diff_b"], torch.ones(32))
    assert torch.equal(state[f"{LINEAR}.diff_b"], torch.ones(40))


def test_a_base_is_read_and_remembered(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = torch.randn(40, 32)
    save_file({"mid_block.attentions.0.proj_in.weight": base}, "base.safetensors")
    dora = {**lora_of(LINEAR, 40, 32, 2, 1), f"{LINEAR}.dora_scale": torch.rand(40, 1) + 1}
    style = lora_of(LINEAR, 40, 32, 2, 2)
    assert fused(dora, style, "--full") == 2
    assert re.search(r"'c\.safetensors' holds DoRA modules .*--base", capsys.readouterr().err)
    assert fused(dora, style, "--full", "--base", "base.safetensors") == 0
    roles = {name.removeprefix(f"{LINEAR}.").replace(".", "__"): t.double().numpy() for name, t in dora.items()}
    content = kinds.dora_rows({**roles, "alpha": np.array(2.0)}, base.double().numpy())
    expected = reference.fused([(1.0, content)], [(1.0, reference.dense(*style.values()))], float("inf"))
    assert reference.error(load_file("out.safetensors")[f"{LINEAR}.diff"], expected) < 1e-5
    with safe_open("out.safetensors", framework="pt") as file:
        metadata = file.metadata()
    sums = {name: hashlib.sha256(Path(f"{name}.safetensors").read_bytes()).hexdigest() for name in ("c", "base")}
    assert json.loads(metadata["nplora_base"]) == {"name": "base", "sha256": sums["base"]}
    assert json.loads(metadata["nplora_contents"])[0]["sha256"] == sums["c"]
    assert fused(style, lora_of(LINEAR, 40, 32, 2, 3), "--base", "base.safetensors") == 0
    with safe_open("out.safetensors", framework="pt") as file:
        assert "nplora_base" not in file.metadata()
    capsys.readouterr()
    command = ["fuse", "c.safetensors", "s.safetensors", "-o", "base.safetensors", "--overwrite"]
    assert main([*command, "--base", "base.safetensors"]) == 2
    assert "is one of the files to read" in capsys.readouterr().err


def test_other_families_are_refused_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flux, sd3 = (loras.block_tensors(loras.random_blocks(blocks), "kohya") for blocks in (loras.FLUX, loras.SD3))
    for pair, labels in (
        ((flux, sd3), ("Flux", "SD 3")),
        ((sd3, loras.tensors(loras.random_lora(loras.SD1))), ("SD 3", "SD 1")),
    ):
        assert fused(*pair) == 2
        words = f"'c.safetensors' is made for {labels[0]} and 's.safetensors' for {labels[1]}: "
        assert words in capsys.readouterr().err


def test_an_accelerator_is_warned_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("style.safetensors").rename("sdxl_lightning_4step.safetensors")
    assert fuse(style="sdxl_lightning_4step.safetensors") == 0
    assert re.fullmatch(
        r"nplora: warning: 'sdxl_lightning_4step\.safetensors' looks like an accelerator LoRA \(Lightning\).*\n",
        capsys.readouterr().err,
    )


def test_names_cannot_write_over_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "lora_unet_mid_block_\x1b[2J\u202e\U0001f600" + "x" * 5000
    assert fused({f"{name}.lora_up.weight": torch.ones(4, 2)}, lora_of(LINEAR, 40, 32, 2, 2)) == 2
    err = capsys.readouterr().err
    assert err.isascii() or err.removesuffix("\n").isprintable()
    assert "\\x1b[2J" in err
    assert err.endswith("download or save it again\n")
    assert len(err) < 1000
    assert fused(lora_of(name, 40, 32, 2, 1), lora_of(LINEAR, 40, 32, 2, 2), "--verbose") == 0
    assert capsys.readouterr().out.isascii()


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in ((["fuse", "--help"], "--content-weight"), (["--version"], __version__)):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert words in capsys.readouterr().out
