"""Files in, their fusion out: what the command line does not show."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from lib_nplora import files
from lib_nplora.command_line.main import main
from lib_nplora.errors import FileError
from lib_nplora.files import read_lora
from lib_nplora.fusion.outcome import Outcome
from lib_nplora.jobs.pair import FilePair, Saving, fuse_files, inspect_files, losses_told
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.request.request import FusionRequest, Source
from tests import loras, reference

PARTS = ".np*/*"
"""Files that are not complete yet."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    loras.write(tmp_path / "content.safetensors", loras.random_lora(loras.SD1, 4, 1, alpha=2))
    loras.write(tmp_path / "style.safetensors", loras.random_lora(loras.SD1[2:], 3, 2))
    return tmp_path


def pair(folder: Path, **settings: float) -> FilePair:
    request = FusionRequest.of((Source("content"),), (Source("style", 0.5, 0.5),), **settings)
    return FilePair(folder / "content.safetensors", folder / "style.safetensors", request)


def saved(folder: Path, **settings: float) -> dict[str, torch.Tensor]:
    out = folder / "out.safetensors"
    fuse_files(pair(folder, **settings), Saving(out, "fp32", overwrite=True))
    return {str(key): delta.dense() for key, delta in read_lora(out).weights.deltas.items()}


def test_a_name_that_no_file_can_have_is_refused_first(folder: Path) -> None:
    out = folder / f"{'n' * 256}.safetensors"
    with pytest.raises(FileError, match=r"n\.safetensors' can be no name of a file: "):
        fuse_files(pair(folder), Saving(out))
    with pytest.raises(FileError, match=r"the output folder .* does not exist"):
        fuse_files(pair(folder), Saving(out.with_suffix("") / "x.safetensors"))


def test_the_multipliers_of_the_parts_reach_the_file(folder: Path) -> None:
    whole, part = saved(folder), saved(folder, te=-2.0, unet=0.25)
    assert whole.keys() == part.keys()
    for name, delta in whole.items():
        torch.testing.assert_close(part[name], (-2.0 if name.startswith("lora_te") else 0.25) * delta)
    assert {name.startswith("lora_te") for name in whole} == {True, False}
    with safe_open(folder / "out.safetensors", "pt") as file:
        (style,) = json.loads(file.metadata()["nplora_styles"])
    assert (style["te"], style["unet"]) == (-1.0, 0.125)


def test_an_inspection_tells_what_a_fusion_tells_and_writes_nothing(folder: Path) -> None:
    before = set(folder.iterdir())
    inspected = inspect_files(pair(folder, mu=2.0))
    assert set(folder.iterdir()) == before
    fused = fuse_files(pair(folder, mu=2.0), Saving(folder / "out.safetensors"))
    assert inspected.summary.layers == fused.summary.layers
    assert str(inspected.summary) == str(fused.summary)
    assert inspected.summary.removed > 0
    assert sum(layer.outcome is Outcome.CONTENT_ONLY for layer in inspected.summary.layers.values()) == 2


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dare", {"nplora_density": "0.25", "nplora_seed": "0"}),
        ("ties", {"nplora_density": "0.25"}),
        ("np", {}),
    ],
)
def test_a_file_tells_the_settings_that_made_it(folder: Path, method: str, settings: dict[str, str]) -> None:
    out = folder / "out.safetensors"
    fusion = fuse_files(pair(folder, method=method, density=0.25), Saving(out, full=True))
    with safe_open(out, "pt") as file:
        told = file.metadata()
    assert {key: told[key] for key in ("nplora_density", "nplora_seed") if key in told} == settings
    assert tuple(map(str, fusion.remarks)) == (() if settings else ("density= has no effect with method=np",))


def test_whole_layers_are_saved_as_they_are(folder: Path) -> None:
    once = saved_whole(folder, seed=1)
    assert all(torch.equal(once[name], delta) for name, delta in saved_whole(folder, seed=1).items())
    other = saved_whole(folder, seed=2)
    assert any(not torch.equal(once[name], delta) for name, delta in other.items())


def saved_whole(folder: Path, **settings: int) -> dict[str, torch.Tensor]:
    out = folder / "out.safetensors"
    fuse_files(pair(folder, method="dare", **settings), Saving(out, "fp32", full=True, overwrite=True))
    return {str(key): delta.dense() for key, delta in read_lora(out).weights.deltas.items()}


class Stopped(Exception):
    """A user has seen enough."""


def test_whoever_watches_sees_every_layer_and_may_stop_it(folder: Path) -> None:
    seen = []
    total = len(loras.SD1)
    stops_at = total + 1

    def watch(done: int, of: int) -> None:
        seen.append((done, of))
        if done == stops_at:
            raise Stopped

    fuse_files(pair(folder), Saving(folder / "out.safetensors"), watch)
    assert seen == [(done, total) for done in range(total + 1)]
    for stops_at in (0, 5, total):
        with pytest.raises(Stopped):
            fuse_files(pair(folder), Saving(folder / "other.safetensors"), watch)
        assert seen[-1] == (stops_at, total)
        with pytest.raises(Stopped):
            inspect_files(pair(folder), watch)
    assert sorted(path.name for path in folder.iterdir()) == [
        "content.safetensors", "out.safetensors", "style.safetensors"
    ]  # fmt: skip


def test_a_layer_in_slices_is_one_layer_to_whoever_watches(tmp_path: Path) -> None:
    blocks = [loras.random_blocks(loras.FLUX, seed=seed) for seed in (1, 2)]
    for name, tensors, spelling in zip(("content", "style"), blocks, ("diffusers", "kohya")):
        save_file(loras.block_tensors(tensors, spelling), tmp_path / f"{name}.safetensors")
    seen = []
    inspect_files(pair(tmp_path), lambda *numbers: seen.append(numbers))
    assert seen == [(done, len(loras.FLUX)) for done in range(len(loras.FLUX) + 1)]


@pytest.mark.parametrize("length", [13, 250, 251, 255])
def test_a_name_may_be_as_long_as_the_file_system_takes(folder: Path, length: int) -> None:
    out = folder / f"{'z' * (length - 12)}.safetensors"
    longest = []
    fuse_files(pair(folder), Saving(out), still_free=lambda: longest.extend(map(str, folder.glob(PARTS))))
    assert len(read_lora(out).weights.deltas) == len(loras.SD1)
    assert [len(part) <= len(str(folder / "x.safetensors")) for part in longest] == [True]


def test_the_last_word_comes_when_the_file_is_complete(folder: Path) -> None:
    found = []

    def refused() -> None:
        found.extend(path.stat().st_size for path in folder.glob(PARTS))
        raise Stopped

    before = set(folder.iterdir())
    with pytest.raises(Stopped):
        fuse_files(pair(folder), Saving(folder / "out.safetensors"), still_free=refused)
    assert set(folder.iterdir()) == before
    fuse_files(pair(folder), Saving(folder / "out.safetensors"), still_free=lambda: None)
    assert found == [(folder / "out.safetensors").stat().st_size]


def ranks(path: Path) -> dict[str, int]:
    return {str(key): delta.rank for key, delta in read_lora(path).weights.deltas.items()}


@pytest.mark.parametrize("share", ["100%", "90%", "50%"])
def test_an_energy_keeps_the_fewest_directions_that_hold_it(folder: Path, share: str) -> None:
    exact, cut = folder / "exact.safetensors", folder / "cut.safetensors"
    fuse_files(pair(folder, mu=2.0), Saving(exact, "fp32"))
    size = RankRule.parse(share)
    fusion = fuse_files(pair(folder, mu=2.0), Saving(cut, "fp32", size))
    found = {str(key): delta for key, delta in read_lora(cut).weights.deltas.items()}
    lost = energy = 0.0
    for key, delta in read_lora(exact).weights.deltas.items():
        whole = delta.dense().double().numpy()
        k = reference.cut(np.linalg.svd(whole, compute_uv=False), share)
        nearest, behind = reference.truncated(whole, k)
        assert found[str(key)].rank == k
        assert reference.error(found[str(key)].dense(), nearest) < 1e-5
        if k < delta.rank:
            lost, energy = lost + behind, energy + (whole**2).sum()
    assert files.lost(fusion.losses.values()) == pytest.approx(lost / energy if energy else 0.0, abs=1e-6)
    with safe_open(cut, "pt") as file:
        assert file.metadata()["nplora_energy"] == share
    if share == "50%":
        assert sum(ranks(cut).values()) < sum(ranks(exact).values())
        assert "layers cut to 50% of their energy" in losses_told(fusion)


def test_both_spellings_hold_the_same(folder: Path) -> None:
    kohya, diffusers = folder / "kohya.safetensors", folder / "diffusers.safetensors"
    fuse_files(pair(folder), Saving(kohya, "fp32"))
    (remark,) = map(str, fuse_files(pair(folder), Saving(diffusers, "fp32", spelling="diffusers")).remarks)
    assert "for SD 1 are read by diffusers, and not throughout by WebUIs, for which kohya's is made" in remark
    one, other = (read_lora(path).weights.deltas for path in (kohya, diffusers))
    assert set(one) == set(other)
    for key, delta in one.items():
        torch.testing.assert_close(other[key].dense(), delta.dense())
    with safe_open(diffusers, "pt") as file:
        starts = {name.split(".")[0] for name in file.keys()}  # noqa: SIM118
    assert starts == {"unet", "text_encoder"}


def test_what_diffusers_spelling_cannot_hold_is_refused(folder: Path) -> None:
    out = folder / "out.safetensors"
    with pytest.raises(FileError, match="which diffusers' spelling cannot hold: choose kohya's, or a rank"):
        fuse_files(pair(folder, method="dare"), Saving(out, full=True, spelling="diffusers"))
    assert not out.exists()


LINEAR = "lora_unet_mid_block_attentions_0_proj_in"
UP, DOWN = torch.ones(44, 1), torch.ones(1, 48)
LORA = {f"{LINEAR}.lora_up.weight": UP, f"{LINEAR}.lora_down.weight": DOWN}
MADE_FOR = "which need the weights of the model that they were made for"


@pytest.mark.parametrize(
    ("content", "weight", "base", "command_line", "api", "webui"),
    [
        (
            {f"{LINEAR}.diff": torch.randn(44, 48)},
            1.0,
            None,
            "no small rank: add --rank N to store the nearest of rank N, or --full to store such layers whole",
            "no small rank: give a rank N to store the nearest of rank N, or full=true to store such layers whole",
            "no small rank: choose a size such as 32",
        ),
        (
            LORA,
            1e12,
            None,
            "too large for fp16: choose --dtype bf16 or fp32, or a smaller weight",
            "too large for fp16: choose the dtype bf16 or fp32, or a smaller weight",
            "too large for fp16: choose bf16 or fp32, or a smaller weight",
        ),
        (
            {**LORA, f"{LINEAR}.dora_scale": torch.ones(44, 1)},
            1.0,
            None,
            f"{MADE_FOR}: name its .safetensors file with --base",
            f"{MADE_FOR}: load it into the WebUI first, as a .safetensors file",
            f"{MADE_FOR}: load it into the WebUI first, as a .safetensors file",
        ),
        (
            {**LORA, f"{LINEAR}.dora_scale": torch.ones(44, 1)},
            1.0,
            "conv_in.weight",
            "which a LoRA changes: name as --base the checkpoint that the LoRA was made for",
            "which a LoRA changes: load into the WebUI the checkpoint that the LoRA was made for",
            "which a LoRA changes: load into the WebUI the checkpoint that the LoRA was made for",
        ),
    ],
    ids=["no small rank", "too large", "no base", "another base"],
)
def test_a_refusal_has_a_remedy_for_each_surface(
    tmp_path: Path, content: dict, weight: float, base: str | None, command_line: str, api: str, webui: str
) -> None:
    save_file(content, tmp_path / "content.safetensors")
    save_file({name: 2 * tensor for name, tensor in LORA.items()}, tmp_path / "style.safetensors")
    if base:
        save_file({base: torch.ones(4, 4, 3, 3)}, tmp_path / "base.safetensors")
    request = FusionRequest.of((Source("content", weight, weight),), (Source("style"),))
    files = (tmp_path / f"{name}.safetensors" for name in ("content", "style"))
    with pytest.raises(FileError) as caught:
        fuse_files(
            FilePair(*files, request, tmp_path / "base.safetensors" if base else None),
            Saving(tmp_path / "out.safetensors"),
        )
    assert str(caught.value).endswith(command_line)
    assert caught.value.told("API").endswith(api)
    assert caught.value.told("WebUI").endswith(webui)


def command_line(*arguments: str) -> None:
    """Ends the process with its exit code. A kill leaves nothing of a lock that is not shared between processes."""
    tqdm.set_lock(threading.RLock())
    sys.exit(main(arguments))


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., BaseProcess]:
    """Starts the command line in a process of its own: a fork of one that has imported torch once for all."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def start(*arguments: str) -> BaseProcess:
        process = context.Process(target=command_line, args=arguments)
        process.start()
        return process

    return start


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_process_that_is_killed_leaves_no_half_file(folder: Path, start: Callable[..., BaseProcess]) -> None:
    """At moments from the start of its file to the end; with --overwrite, the file is the old one or the new one."""
    tall = [loras.Module("unet", f"mid_block.layers.{i}", "", 2**15, 64) for i in range(6)]
    sides = [folder / "content.safetensors", folder / "style.safetensors"]
    for seed, path in enumerate(sides):
        loras.write(path, loras.random_lora(tall, 16, seed), dtype=torch.float16)
    out = folder / "out.safetensors"
    writing = 0.0

    def parts() -> list[Path]:
        try:
            return [path for path in folder.glob(PARTS) if path.stat().st_size]
        except FileNotFoundError:  # it took its place meanwhile
            return []

    def run(kill_after: float | None = None) -> int | None:
        """The exit code of a process that is killed so long after its file began to grow."""
        nonlocal writing
        process = start("fuse", *map(str, sides), "-o", str(out), "--overwrite")
        while not parts() and process.is_alive():
            time.sleep(0.001)
        began = time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
            process.kill()
        process.join()
        writing = writing or time.perf_counter() - began
        return process.exitcode

    assert run() == 0
    complete = out.read_bytes()
    half_written = 0
    for overwrite in (False, True):
        for moment in range(6):
            if overwrite:
                out.write_bytes(b"the old one")
            else:
                out.unlink(missing_ok=True)
            run(kill_after=writing * moment / 5)
            left = parts()
            half_written += bool(left)
            assert not [path for path in folder.glob(PARTS) if path.suffix]
            assert (out.read_bytes() if out.exists() else None) in ((b"the old one" if overwrite else None), complete)
            for beside in {path.parent for path in left}:
                shutil.rmtree(beside)
    assert half_written
