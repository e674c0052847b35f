"""The REST API: what it saves, what it refuses and in what words."""

from __future__ import annotations

import json
import logging
import threading
from base64 import b64decode
from pathlib import Path

import pytest
import torch
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from fastapi.testclient import TestClient
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib_nplora.command_line.main import main
from lib_nplora.files import DTYPES, HIGHEST_RANK, read_lora
from lib_nplora.fusion.outcome import Outcome
from lib_nplora.hosts import Host
from lib_nplora.hosts.lora_list import LoraList
from lib_nplora.methods.table import parameters
from lib_nplora.webui import rest, rest_answers, saving
from tests import loras
from tests.files import newer
from tests.hosts.standins.common import add_lora_list, module
from tests.reference import interference, kohya

CONV_IN = "lora_unet_conv_in"
LINEAR = "lora_unet_mid_block_attentions_0_proj_in"


class Loaded:
    """A host's model, as far as the API asks it."""

    checkpoint: str | None = None


@pytest.fixture
def folder(lora_folder: Path) -> Path:
    made = lora_folder
    loras.write(made / "dog.safetensors", loras.random_lora(loras.SD1, 4, 1, alpha=2))
    loras.write(
        made / "styles" / "vangogh.safetensors",
        loras.random_lora(loras.SD1[2:], 3, 2),
        metadata={"ss_output_name": "Van Gogh", "ss_base_model_version": "sd_v1"},
    )
    loras.write(made / "xl.safetensors", loras.random_lora(loras.SDXL, 3, 3))
    return made


@pytest.fixture
def host(folder: Path) -> Host:
    networks = module("networks")
    add_lora_list(networks, folder)
    return Host("stand-in", model=Loaded(), shelf=LoraList(networks))


def hosts_app(*dependencies) -> FastAPI:
    """An app with the host's own route."""
    app = FastAPI()
    app.add_api_route("/sdapi/v1/txt2img", lambda: {}, methods=["POST"], dependencies=list(dependencies))
    return app


@pytest.fixture
def client(host: Host) -> TestClient:
    app = hosts_app()
    rest.register(app, lambda: host)
    return TestClient(app)


def fuse(client: TestClient, **changes):
    body = {"content": "dog", "style": "vangogh", "output": "new", **changes}
    return client.post("/nplora/v1/fuse", json={name: value for name, value in body.items() if value is not ...})


def inspect(client: TestClient, **changes):
    return client.post("/nplora/v1/inspect", json={"content": "dog", "style": "vangogh", **changes})


def files(folder: Path) -> dict[str, bytes]:
    """Everything below the folder and beside it."""
    return {str(path.relative_to(folder.parent)): path.read_bytes() for path in folder.parent.rglob("*.*")}


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def sentence(answer, status: int) -> str:
    """The body of an error, which is nothing but a sentence."""
    assert answer.status_code == status, answer.text
    (text,) = answer.json().values()
    assert list(answer.json()) == ["detail"]
    assert "\n" not in text
    assert "Traceback" not in text
    return text


# what it does


def test_the_list(client, folder, host):
    host.shelf.resolve("dog")
    dog, vangogh, xl = client.get("/nplora/v1/loras").json()
    assert dog == {
        "name": "dog",
        "alias": "dog",
        "path": str(folder / "dog.safetensors"),
        "hash": host.shelf.resolve("dog").shorthash,
        "made_for": None,
    }
    assert (vangogh["name"], vangogh["alias"], vangogh["made_for"]) == ("vangogh", "Van Gogh", "SD 1")
    assert (xl["name"], xl["hash"]) == ("xl", None)


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        ({}, []),
        ({"mu": "hard", "k": "90%", "content_weight": 0.7}, ["--mu=hard", "--k=90%", "--content-weight=0.7"]),
        ({"mu": 3, "k": 2, "dtype": "bf16"}, ["--mu=3", "--k=2", "--dtype=bf16"]),
        ({"style_weight": -1, "dtype": "fp16"}, ["--style-weight=-1"]),
        ({"mu": "0.25", "k": "1", "rank": 2, "dtype": "fp32"}, ["--mu=0.25", "--k=1", "--rank=2", "--dtype=fp32"]),
        ({"energy": "90%", "spelling": "diffusers"}, ["--energy=90%", "--spelling=diffusers"]),
        ({"method": "Direct", "full": True}, ["--method=direct", "--full"]),
        ({"method": "ties", "density": 0.3, "full": True}, ["--method=ties", "--density=30%", "--full"]),
        ({"method": "dare", "density": "40%", "seed": 7, "rank": 4},
         ["--method=dare", "--density=0.4", "--seed=7", "--rank=4"]),
        ({"method": "dare", "density": None, "seed": None, "full": True}, ["--method=dare", "--full"]),
    ],
)  # fmt: skip
def test_the_saved_file_is_the_command_lines(client, folder, tmp_path, changes, arguments):
    answer = fuse(client, **changes)
    assert answer.status_code == 200, answer.text
    theirs = tmp_path / "cli" / "new.safetensors"
    theirs.parent.mkdir()
    pair = [str(folder / "dog.safetensors"), str(folder / "styles" / "vangogh.safetensors")]
    assert main(["fuse", *pair, "-o", str(theirs), *arguments]) == 0
    ours = folder / "new.safetensors"
    found, expected = load_file(ours), load_file(theirs)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert metadata(ours) == metadata(theirs)


def test_what_it_says_of_the_new_file(client, folder, host):
    answer = fuse(client, style="Van Gogh", mu="hard", output="styles/new").json()
    total = len(loras.SD1)
    assert answer["name"] == "new"
    assert answer["path"] == str(folder / "styles" / "new.safetensors")
    assert answer["layers"] == {
        "fused": total - 2,
        "content_only": 2,
        "style_only": 0,
        "added_unprojected": 0,
        "not_matched": 0,
    }
    assert 0 < answer["removed"] < 1
    assert answer["remarks"] == []
    assert "new" in host.shelf.names()
    assert host.shelf.resolve("new").path == answer["path"]
    assert metadata(Path(answer["path"]))["ss_output_name"] == "new"


def test_the_file_may_be_fused_again_at_once(client):
    assert fuse(client).status_code == 200
    assert fuse(client, content="new", output="newer").status_code == 200


def test_remarks(client, folder, host):
    (folder / "dog.safetensors").rename(folder / "sdxl_lightning_4step.safetensors")
    answer = fuse(client, content="sdxl_lightning_4step", rank=1).json()
    accelerator, lost = answer["remarks"]
    assert "looks like an accelerator LoRA (Lightning), which is no content" in accelerator
    assert f"{len(loras.SD1)} layers cut to rank 1" in lost
    loras.write(folder / "few.safetensors", loras.random_lora(loras.SD1[:2], 3, 2))
    for answer in (fuse(client, content="few", output="plain"), inspect(client, content="few")):
        assert answer.json()["remarks"] == [
            "The two LoRAs share no layer that can be fused, so this is a plain merge."
        ]  # fmt: skip


def test_the_file_that_is_used_is_named_if_its_name_repeats(client, folder, host):
    (folder / "a").mkdir()
    loras.write(folder / "a" / "dog.safetensors", loras.random_lora(loras.SD1, 4, 1, alpha=2))
    host.shelf.refresh()
    used, *others = host.shelf.resolve("dog").namesakes
    told = f"'dog' is {used}, not {' or '.join(others)}: rename one to use both"
    assert fuse(client).json()["remarks"][0] == told
    assert inspect(client).json()["remarks"][0] == told


def test_an_inspection_by_the_formula(client, folder):
    before = files(folder)
    answer = inspect(client, mu="hard", content_weight=2, style_weight=3).json()
    assert files(folder) == before
    content, style = (
        kohya.deltas(path) for path in (folder / "dog.safetensors", folder / "styles" / "vangogh.safetensors")
    )
    energy = removed = 0.0
    rows = {row["name"]: row for row in answer["rows"]}
    assert rows.keys() == content.keys()
    for name, delta in content.items():
        row, energy = rows[name], energy + 4 * (delta**2).sum()
        assert row["part"] == ("te" if name.startswith("lora_te") else "unet")
        assert row["reason"] == ""
        if name not in style:
            assert (row["outcome"], row["removed"], row["protected"]) == ("content only", 0, 0)
            assert row["overlap"] is None
            continue
        expected = interference.row(2 * delta, 3 * style[name], float("inf"))
        assert row["outcome"] == "fused"
        assert row["removed"] == pytest.approx(expected["removed"], rel=1e-4)
        assert row["protected"] == pytest.approx(3 / delta.shape[1])
        assert row["overlap"] == pytest.approx(row["removed"], abs=1e-5)
        assert row["chance"] == pytest.approx(3 / delta.shape[1])
        assert row["norm_ratio"] == pytest.approx(expected["norm_ratio"], rel=1e-5)
        assert row["winners"] is None
        removed += expected["removed"] * 4 * (delta**2).sum()
    assert answer["removed"] == pytest.approx(removed / energy, rel=1e-4)
    assert answer["content_energy"] == pytest.approx(energy, rel=1e-5)
    assert answer["style_energy"] == pytest.approx(9 * sum((d**2).sum() for d in style.values()), rel=1e-5)
    fused = [row["protected"] for row in answer["rows"] if row["outcome"] == "fused"]
    assert answer["protected"] == pytest.approx(sum(fused) / len(fused))
    assert answer["layers"]["fused"] == len(fused)
    assert answer["findings"][0].startswith("The two share ")
    assert answer["same_start"] is False
    assert answer["plot"] is None


def test_an_inspection_can_be_drawn(client):
    answer = inspect(client, method="klora", steps=7, plot=True).json()
    assert b64decode(answer["plot"]).startswith(b"\x89PNG")
    assert {len(row["winners"]) for row in answer["rows"] if row["winners"]} == {7}
    assert "steps=0 is not a whole number" in sentence(inspect(client, steps=0), 422)


@pytest.mark.parametrize(
    ("pictures", "copied"),
    [
        ({"dog.png": b"dog", "styles/vangogh.jpg": b"stars"}, ("new.png", b"dog")),
        ({"styles/vangogh.preview.jpg": b"stars"}, ("new.preview.jpg", b"stars")),
        ({"new.webp": b"mine", "dog.png": b"dog"}, None),
        ({}, None),
    ],
)
def test_the_new_file_gets_a_picture(client, folder, pictures, copied):
    for name, picture in pictures.items():
        (folder / name).write_bytes(picture)
    before = files(folder)
    answer = fuse(client).json()
    new = {name: content for name, content in files(folder).items() if name not in before}
    assert new.pop("LoRAs/new.safetensors")
    assert new == ({f"LoRAs/{copied[0]}": copied[1]} if copied else {})
    assert answer["preview"] == (str(folder / copied[0]) if copied else None)


def test_names_may_be_as_long_as_the_file_system_takes(client, folder, host):
    """Those of pictures beside them would be longer."""
    long = "d" * (255 - len(".safetensors"))
    (folder / "dog.safetensors").rename(folder / f"{long}.safetensors")
    host.shelf.refresh()
    answer = fuse(client, content=long, output=long.replace("d", "n"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["preview"] is None
    assert "too long" in sentence(fuse(client, content=long, output=f"{long}n"), 422)


def test_the_multipliers_of_the_parts(client, folder):
    assert fuse(client, te=0, unet=0.5, dtype="fp32", output="part").status_code == 200
    assert fuse(client, dtype="fp32", output="whole").status_code == 200
    part, whole = (
        {str(key): delta.dense() for key, delta in read_lora(folder / f"{name}.safetensors").weights.deltas.items()}
        for name in ("part", "whole")
    )
    for name, delta in whole.items():
        if name.startswith("lora_te"):
            assert name not in part
        else:
            torch.testing.assert_close(part[name], 0.5 * delta)
    with_nothing = inspect(client, te=0, unet=0).json()
    assert with_nothing["content_energy"] == with_nothing["removed"] == 0


# what it refuses


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"content": "dgo"}, 404, "there is no LoRA called 'dgo'. Did you mean 'dog'?"),
        ({"style": "van gogh"}, 404, "Did you mean 'Van Gogh'?"),
        ({"content": ""}, 404, "there is no LoRA called ''"),
        ({"content": "\ud800"}, 404, r"there is no LoRA called '\ud800'"),
        ({"style": "dog"}, 400, "are the same LoRA"),
        ({"style": "xl"}, 400, "made for SD 1 and 'xl.safetensors' for SDXL"),
        ({"content": "broken"}, 400, "'broken.safetensors' cannot be opened"),
        ({"content": "full"}, 400, "no small rank: give a rank N to store the nearest of rank N, or full=true to"),
        ({"content_weight": 1e12}, 400, "too large for fp16: choose the dtype bf16 or fp32"),
        ({"content_weight": 1e308}, 422, "the weight 1e+308 of 'dog' is too large: 1e12 is the most"),
        ({"mu": -1}, 422, "mu=-1 is negative: mu is a number from 0 up, or 'hard'"),
        ({"mu": "strong"}, 422, "mu=strong is not a number"),
        ({"mu": float("nan")}, 422, "mu=nan is not a finite number"),
        ({"mu": float("inf")}, 422, "mu=inf is not a finite number"),
        ({"mu": []}, 422, "mu: takes a number or a text"),
        ({"style_weight": None, "te": "x"}, 422, "style_weight: takes a number or a text; te: takes a number"),
        ({"k": 0}, 422, "k=0 is less than 1"),
        ({"k": 1.5}, 422, "k"),
        ({"k": "most"}, 422, "k=most is not 'all', a whole number or a share such as 90%"),
        ({"method": "lora"}, 422, "there is no method 'lora'"),
        ({"density": 0}, 422, "density=0 is not a share: it is above 0 and at most 1, or at most 100%"),
        ({"density": "lots"}, 422, "density=lots is not a number."),
        ({"seed": -1}, 422, "seed=-1 is not a whole number from 0 to 4294967295"),
        ({"seed": 1.5}, 422, "seed=1.5 is not a whole number"),
        ({"alpha": "x"}, 422, "alpha=x is not a number."),
        ({"method": "klora"}, 422, "method=klora changes from step to step"),
        ({"content_weight": float("inf")}, 422, "content_weight=inf is not a finite number"),
        ({"style_weight": "much"}, 422, "style_weight=much is not a number."),
        ({"te": float("nan")}, 422, "te=nan is not a finite number"),
        ({"unet": float("-inf")}, 422, "unet=-inf is not a finite number"),
        ({"dtype": "fp8"}, 422, "dtype: takes one of fp16, bf16, fp32"),
        ({"rank": 0}, 422, "rank=0 is not a whole number from 1"),
        ({"rank": HIGHEST_RANK + 1}, 422, f"to {HIGHEST_RANK}"),
        ({"rank": 2.5}, 422, "rank: takes a whole number"),
        ({"full": "perhaps"}, 422, "full: takes true or false"),
        ({"energy": "9"}, 422, "energy=9 is not a share such as 99%"),
        ({"energy": "101%"}, 422, "a share of the energy such as 99%"),
        ({"energy": "99%", "rank": 2}, 422, "exclude each other"),
        ({"spelling": "latin"}, 422, "kohya"),
        ({"rank": 2, "full": True}, 422, "rank, energy and full exclude each other"),
        ({"output": ...}, 422, "output: is missing"),
        ({"content": ...}, 422, "content: is missing"),
        ({"content": 3}, 422, "content: takes a text"),
        ({"mue": 1}, 422, "mue: there is no such field"),
        ({"output": "../new"}, 422, "leads out of the LoRA folder"),
        ({"output": "/tmp/new"}, 422, "leads out of the LoRA folder"),
        ({"output": "out/new"}, 422, "leads out of the LoRA folder"),
        ({"output": "sub/new"}, 422, "no subfolder 'sub'"),
        ({"output": "dog:v=2"}, 422, "no tag can name 'dog:v=2', because of its : ="),
        ({"output": "new.ckpt"}, 422, "ends in .ckpt"),
        ({"output": "DOG"}, 409, "there is a file 'dog.safetensors' already"),
        ({"output": "styles/xl"}, 409, "'xl' means the LoRA"),
        ({"output": "van Gogh"}, 409, "'van Gogh' means the LoRA"),
    ],
)  # fmt: skip
def test_every_refusal_is_a_sentence_and_leaves_no_file(client, folder, host, changes, status, words):
    (folder / "broken.safetensors").write_text("<html>not found</html>")
    save_file({f"{LINEAR}.diff": torch.randn(44, 48)}, folder / "full.safetensors")
    host.shelf.refresh()
    before = files(folder)
    body = json.dumps({
        name: value
        for name, value in {"content": "dog", "style": "vangogh", "output": "new", **changes}.items()
        if value is not ...
    })  # fmt: skip
    headers = {"Content-Type": "application/json"}
    assert words in sentence(client.post("/nplora/v1/fuse", content=body, headers=headers), status)
    assert files(folder) == before


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"dog"', "\xff"])
def test_what_is_no_request(client, body):
    for route in ("fuse", "inspect"):
        answer = client.post(
            f"/nplora/v1/{route}", content=body.encode("latin-1"), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422)
        assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"content": "dgo"}, 404, "Did you mean 'dog'?"),
        ({"style": "xl"}, 400, "made for SD 1"),
        ({"mu": "strong"}, 422, "mu=strong is not a number"),
        ({"output": "new"}, 422, "output: "),
        ({"method": "klora", "scope": "atention"}, 422, "there is no scope 'atention'. Did you mean 'attention'?"),
        ({"method": "klora*", "alpha": -1}, 422, "alpha=-1 makes no sawtooth"),
        ({"style_weight": 1e7, "te": -1e7, "plot": True}, 422, "the weight -1e+14 of 'vangogh' is too large"),
    ],
)
def test_inspections_are_refused_alike(client, changes, status, words):
    assert words in sentence(inspect(client, **changes), status)


def test_a_lora_that_was_removed_since(client, folder):
    (folder / "dog.safetensors").unlink()
    assert "there is no LoRA called 'dog'" in sentence(fuse(client), 404)


def test_a_name_that_is_taken_while_the_fusion_is_made(client, folder, monkeypatch):
    def slow(pair, how, progress, still_free):
        def watched(done, total):
            progress(done, total)
            (folder / "New.safetensors").write_bytes(b"another program's")

        return fuse_files(pair, how, watched, still_free)

    fuse_files = saving.fuse_files
    monkeypatch.setattr(saving, "fuse_files", slow)
    # The other file is there from the first layer on, and is looked for when ours is complete.
    assert "there is a file 'New.safetensors' already" in sentence(fuse(client), 409)
    assert (folder / "New.safetensors").read_bytes() == b"another program's"
    assert not (folder / "new.safetensors").exists()


def test_of_two_requests_for_one_name_one_is_refused(client, folder):
    answers = []
    threads = [threading.Thread(target=lambda mu=mu: answers.append(fuse(client, mu=mu))) for mu in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert [path.name for path in folder.iterdir() if path.name.startswith((".", "new"))] == ["new.safetensors"]


def test_an_unknown_webui(folder):
    app = hosts_app()
    rest.register(app, lambda: None)
    client = TestClient(app)
    for answer in (client.get("/nplora/v1/loras"), fuse(client), inspect(client)):
        assert "does not know this WebUI" in sentence(answer, 503)


def test_what_was_not_foreseen_goes_to_the_console(client, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(saving, "fuse_files", fail)
    with caplog.at_level(logging.ERROR, "nplora"):
        said = sentence(fuse(client), 500)
    assert said == "this should not happen: ZeroDivisionError (details are in the console)"
    assert "secret" in caplog.text
    assert "Traceback" in caplog.text


def test_a_name_that_is_no_unicode_spoils_no_list(client, folder, host):
    loras.write(folder / "r\udcf6t.safetensors", loras.random_lora(loras.SD1[:1]))
    host.shelf.refresh()
    assert [lora["name"] for lora in client.get("/nplora/v1/loras").json()] == ["dog", r"r\udcf6t", "vangogh", "xl"]


# kinds that need the model's weights


@pytest.fixture
def dora(folder: Path) -> Path:
    """A DoRA of the first layer, which an inspection shows only if the model's weights were read."""
    conv = next(layer for layer in loras.SD1 if layer.canonical == CONV_IN)
    state = loras.tensors(loras.random_lora([conv], 2, 5))
    state[f"{CONV_IN}.dora_scale"] = torch.ones(conv.out_features, 1, 1, 1)
    save_file(state, folder / "dora.safetensors")
    return folder / "dora.safetensors"


def write_checkpoint(path: Path, name: str = "model.diffusion_model.input_blocks.0.0.weight") -> str:
    conv = next(layer for layer in loras.SD1 if layer.canonical == CONV_IN)
    save_file({name: torch.randn(conv.out_features, conv.in_features, *conv.kernel)}, path)
    return str(path)


def test_the_loaded_checkpoint_is_read_where_it_is_needed(client, folder, host, dora, tmp_path):
    host.model.checkpoint = write_checkpoint(tmp_path / "model.safetensors")
    answer = fuse(client, content="dora", dtype="fp32")
    assert answer.status_code == 200, answer.text
    theirs = tmp_path / "cli" / "new.safetensors"
    theirs.parent.mkdir()
    pair = [str(dora), str(folder / "styles" / "vangogh.safetensors")]
    assert main(["fuse", *pair, "-o", str(theirs), "--base", host.model.checkpoint, "--dtype", "fp32"]) == 0
    found, expected = load_file(folder / "new.safetensors"), load_file(theirs)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert metadata(folder / "new.safetensors") == metadata(theirs)
    assert "nplora_base" in metadata(theirs)
    assert fuse(client, output="other").status_code == 200
    assert "nplora_base" not in metadata(folder / "other.safetensors")


def test_without_the_right_checkpoint_it_says_which(client, folder, host, dora, tmp_path):
    advice = "weights of the model that they were made for: load it into the WebUI first, as a .safetensors file"
    assert advice in sentence(inspect(client, content="dora"), 400)
    host.model.checkpoint = str(tmp_path / "model.ckpt")
    assert advice in sentence(inspect(client, content="dora"), 400)
    assert inspect(client).status_code == 200
    host.model.checkpoint = write_checkpoint(tmp_path / "model.safetensors", "model.diffusion_model.out.2.weight")
    said = sentence(inspect(client, content="dora"), 400)
    assert "load into the WebUI the checkpoint that the LoRA was made for" in said
    assert inspect(client).status_code == 200


# models beside Stable Diffusion


def write_pair(folder, content, style) -> dict[str, str]:
    """Two files among the host's LoRAs, and how a request names them."""
    for name, state in (("one", content), ("other", style)):
        newer.write(folder / f"{name}.safetensors", state)
    return {"content": "one", "style": "other"}


@pytest.mark.parametrize(
    "checkpoint", [None, "model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "a.b.weight"]
)
@pytest.mark.parametrize("spelled", [newer.comfyui, newer.kohya])
def test_no_checkpoint_stands_in_the_way_of_what_needs_none(client, folder, host, tmp_path, checkpoint, spelled):
    """The loaded one may be another model's, or of a model that is not known."""
    host.model.checkpoint = checkpoint and write_checkpoint(tmp_path / "flux.safetensors", checkpoint)
    wan = newer.random_lora("Wan", 2, 1), newer.random_lora("Wan", 3, 2)
    odd = [{f"stream.0.{part}": factors for part, factors in zip("qkv", lora.values())} for lora in wan]
    for number, (content, style) in enumerate(((newer.comfyui(wan[0]), spelled(wan[1])), map(newer.comfyui, odd))):
        names = write_pair(folder, content, style)
        host.shelf.refresh()
        seen = inspect(client, **names)
        assert seen.status_code == 200, seen.text
        assert seen.json()["layers"]["fused"] == len(content) // 2
        answer = fuse(client, **names, output=f"new{number}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["layers"]["fused"] == len(content) // 2


def test_a_bare_checkpoint_is_read_by_the_pairs_family(client, folder, host, tmp_path):
    """Z-Image's names, without a prefix, are no other family's."""
    content, style = (newer.comfyui(newer.random_lora("Z-Image", 2, seed)) for seed in (1, 2))
    name = "layers.29.attention.qkv"
    content[f"diffusion_model.{name}.dora_scale"] = torch.ones(3 * newer.H, 1)
    names = write_pair(folder, content, style)
    host.shelf.refresh()
    host.model.checkpoint = write_checkpoint(tmp_path / "flux.safetensors", "double_blocks.0.img_attn.qkv.weight")
    said = sentence(inspect(client, **names), 400)
    assert said == "'flux.safetensors' is no checkpoint of Z-Image: load another into the WebUI"
    save_file({f"{name}.weight": torch.randn(3 * newer.H, newer.H)}, tmp_path / "z_image.safetensors")
    host.model.checkpoint = str(tmp_path / "z_image.safetensors")
    assert inspect(client, **names).status_code == 200
    answer = fuse(client, **names, rank=4)
    assert answer.status_code == 200, answer.text
    assert json.loads(metadata(folder / "new.safetensors")["nplora_base"])["name"] == "z_image"


def test_no_checkpoint_is_asked_for_of_an_unknown_model(client, folder, host):
    state = newer.comfyui({"stream.0.q": (torch.ones(8, 2), torch.ones(2, 6))})
    names = write_pair(folder, state | {"diffusion_model.stream.0.q.dora_scale": torch.ones(8, 1)}, state)
    host.shelf.refresh()
    said = sentence(inspect(client, **names), 400)
    assert "'one.safetensors' holds modules that need the weights of the model that they were made for" in said
    assert "load it into the WebUI first" not in said


# beside the host's own API


def test_a_host_without_an_api_gets_none(host):
    app = FastAPI()
    before = [route.path for route in app.routes]
    rest.register(app, lambda: host)
    assert [route.path for route in app.routes] == before
    assert TestClient(app).get("/nplora/v1/loras").status_code == 404


def test_a_second_time_adds_nothing(host):
    app = hosts_app()
    rest.register(app, lambda: host)
    before = len(app.routes)
    rest.register(app, lambda: None)
    assert len(app.routes) == before
    assert TestClient(app).get("/nplora/v1/loras").status_code == 200


def test_the_hosts_guards_are_ours(host, folder):
    def auth(credentials: HTTPBasicCredentials = Depends(HTTPBasic())):  # noqa: B008
        if (credentials.username, credentials.password) != ("me", "secret"):
            raise HTTPException(401, "Incorrect username or password", {"WWW-Authenticate": "Basic"})

    app = hosts_app(Depends(auth))
    rest.register(app, lambda: host)
    client = TestClient(app)
    before = files(folder)
    for wrong in (None, ("me", "guess")):
        client.auth = wrong
        for answer in (client.get("/nplora/v1/loras"), fuse(client), inspect(client)):
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert files(folder) == before
    client.auth = ("me", "secret")
    for answer in (client.get("/nplora/v1/loras"), fuse(client), inspect(client)):
        assert answer.status_code == 200


def test_the_documentation_tells_the_types(client):
    schema = client.get("/openapi.json").json()
    ours = {path: methods for path, methods in schema["paths"].items() if "nplora" in path}
    assert {(path, method) for path, methods in ours.items() for method in methods} == {
        ("/nplora/v1/loras", "get"),
        ("/nplora/v1/fuse", "post"),
        ("/nplora/v1/inspect", "post"),
    }
    parts = schema["components"]["schemas"]
    for methods in ours.values():
        for route in methods.values():
            assert route["tags"] == ["nplora"]
            assert route["summary"]
            assert route["description"]
            assert "$ref" in json.dumps(route["responses"]["200"])
            for status in route["responses"].keys() - {"200"}:
                content = route["responses"][status]["content"]["application/json"]
                assert content["schema"]["$ref"].endswith("/Problem")
    body = ours["/nplora/v1/fuse"]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    fields = parts[body.rpartition("/")[2]]
    assert set(fields["required"]) == {"content", "style", "output"}
    assert all(field["description"] for field in fields["properties"].values())
    mu, beta = (fields["properties"][name] for name in ("mu", "beta"))
    assert mu["description"].endswith("such as `0.5,mid@2`; null: 0.5")
    assert beta["description"].endswith("a number; null: 0.5, with klora* 1.3")
    assert {"number", "string"} <= {kind["type"] for kind in mu["anyOf"]}
    assert set(parameters()) <= set(fields["properties"]) - set(fields["required"])
    assert fields["properties"]["dtype"]["enum"] == list(DTYPES)
    outcomes = parts[rest_answers.LayerRow.__name__]["properties"]["outcome"]["enum"]
    assert outcomes == [outcome.value for outcome in Outcome]
    assert client.get("/docs").status_code == 200
