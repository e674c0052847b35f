"""A new idea is one file: a method with parameters and a need of its own, a host's model, a model family.

Each is written here as it would be in its own file, and registered for the test alone. The rest of the code has never
heard of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib_nplora.command_line.main import main
from lib_nplora.errors import RequestError
from lib_nplora.files import models, read_lora
from lib_nplora.files.models.transformers import Blocks, Names, family
from lib_nplora.fusion.walk import fingerprint, fuse
from lib_nplora.layers.block import Block
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.lowrank import LowRankDelta
from lib_nplora.methods.layer import AnyNeed, Layer, Need, Walk
from lib_nplora.methods.method import Method, Sum
from lib_nplora.methods.parameter import Choice, Parameter, Values, check_choice
from lib_nplora.methods.table import methods, parameters, register
from lib_nplora.methods.texts import format_number, parse_number
from lib_nplora.request.request import FusionRequest, Source
from lib_nplora.request.roles import format_roles, parse_roles
from lib_nplora.request.tag import format_tag, parse_tag

from . import loras as files
from .hosts.driver import write_lora
from .hosts.standins.a1111 import A1111
from .hosts.standins.driver import running
from .reference.kohya import factors

# A method: two parameters, and a need of a kind that no other method has.


@dataclass(frozen=True)
class Loudness:
    """Root mean square of each input column of the styles, (in,) float32."""

    columns: torch.Tensor

    @property
    def nbytes(self) -> int:
        return self.columns.nbytes


def _loudness(layer: Layer) -> Loudness:
    made.append(str(layer.key))
    return Loudness(sum(delta.dense() for delta in layer.style.modules).square().mean(0).sqrt())


LOUDNESS = Need("loudness of the style's columns", lambda layer: layer.style.identity, _loudness)

DEPTH = Parameter(
    "depth",
    lambda text: parse_number("depth", text),
    default=1.0,
    words="how deep the ducking goes",
    takes="a number",
    format=format_number,
    by_block=True,
    number=float,
)

CURVE = Parameter(
    "curve",
    lambda text: check_choice("curve", text, ("flat", "steep")),
    default="flat",
    words="how it falls off",
    takes="flat or steep",
    widget=Choice(("flat", "steep")),
    trials=("flat", "steep"),
    infotext="NP-LoRA curve",
)


def duck(layer: Layer, values: Values) -> Sum:
    """The content is turned down in the columns in which the style is loud."""
    columns = LOUDNESS.of(layer).columns
    share = columns / columns.max()
    gain = 1 / (1 + values[DEPTH] * (share**2 if values[CURVE] == "steep" else share))
    return Sum([delta.on_input(lambda rows: rows * gain) for delta in layer.content.deltas], layer.style.deltas)


DUCK = Method(
    "duck",
    order=999,
    about="content turned down where the style is loud",
    told="turns the content down in the columns in which the style is loud",
    source="a test",
    fuse=duck,
    parameters=(DEPTH, CURVE),
    needs=(LOUDNESS,),
)

made: list[str] = []
"""The layers whose loudness was made."""


@pytest.fixture
def method():
    made.clear()
    undo = register(DUCK)
    yield
    undo()
    assert "duck" not in methods()
    assert "depth" not in parameters()


def ducked(content, style, depth: float, curve: str) -> np.ndarray:
    """The method in float64, by its definition."""
    c, s = (up @ down for up, down in (content, style))
    loud = np.sqrt(np.square(s).mean(0))
    share = (loud / loud.max()) ** (2 if curve == "steep" else 1)
    return s + c / (1 + depth * share)


def test_a_method_is_in_tag_and_roles(method):
    request = parse_tag(["dog", "vangogh", "method=duck", "depth=2,mid@0.5", "curve=steep"])
    assert request.method is DUCK
    assert request.values.at(Block("mid"))[DEPTH] == 0.5
    assert request.values.at(Block("in", 4))[DEPTH] == 2
    assert format_tag(request) == "<nplora:dog:vangogh:method=duck:depth=2,mid@0.5:curve=steep>"
    roles = format_roles(request)
    assert "curve=steep" in roles
    assert parse_roles([tag.strip("<>").split(":")[1:] for tag in roles.split()]) == request
    with pytest.raises(RequestError, match="depth=deep is not a number"):
        parse_tag(["dog", "vangogh", "method=duck", "depth=deep"])
    assert parse_tag(["dog", "vangogh", "curve=steep"]).remarks == ["curve= has no effect with method=np"]


def test_a_method_has_its_fingerprint_and_its_need_is_kept(method):
    key = ModuleKey("mid_block_attentions_0_proj_in", "unet")
    generator = torch.Generator().manual_seed(0)

    def lora(name: str) -> LoraWeights:
        up, down = torch.randn(8, 2, generator=generator), torch.randn(2, 12, generator=generator)
        return LoraWeights(name, name, {key: LowRankDelta(up, down)})

    pair, kept = ([lora("dog")], [lora("vangogh")]), ByteLru(2**20)
    tags = ("method=duck", "method=duck:depth=2", "method=duck:curve=steep", "method=duck:depth=1,mid@2")
    requests = [parse_tag(["dog", "vangogh", *tag.split(":")]) for tag in tags]
    assert len({fingerprint(request, *pair) for request in requests}) == len(tags)
    for request, (depth, curve) in zip(requests, ((1, "flat"), (2, "flat"), (1, "steep"), (2, "flat"))):
        found = fuse(request, *pair, kept).deltas[key].dense().double().numpy()
        sides = [(side[0].deltas[key].up.double().numpy(), side[0].deltas[key].down.double().numpy()) for side in pair]
        np.testing.assert_allclose(found, ducked(*sides, depth, curve), atol=1e-5)
    assert made == [str(key)]


@dataclass(frozen=True, eq=False)
class Counted(AnyNeed):
    """A kind of need that is kept nowhere: how often the walk was asked for it so far."""

    counts: list[str]

    def fulfilled(self, walk: Walk, layer: Layer) -> int:
        self.counts.append(str(layer.key))
        return len(self.counts)


def test_a_kind_of_need_is_fulfilled_by_itself():
    count = Counted("count", [])

    def numbered(layer: Layer, values: Values) -> Sum:
        """The content times the number of the layer."""
        return Sum([delta.scaled(layer.fulfil(count, layer)) for delta in layer.content.deltas], layer.style.deltas)

    undo = register(Method("numbered", order=998, about="", told="", source="", fuse=numbered, needs=(count,)))
    try:
        keys = [ModuleKey(f"{block}_attentions_0_proj_in", "unet") for block in ("down_blocks_1", "mid_block")]
        ones = LowRankDelta(torch.ones(3, 1), torch.ones(1, 4))
        dog, vangogh = (LoraWeights(name, name, dict.fromkeys(keys, ones)) for name in ("dog", "vangogh"))
        fused = fuse(parse_tag(["dog", "vangogh", "method=numbered"]), [dog], [vangogh], ByteLru(0)).deltas
    finally:
        undo()
    assert [float(fused[key].dense()[0, 0]) for key in keys] == [2, 3]
    assert count.counts == [str(key) for key in keys]


def test_a_method_works_in_a_webui(method, tmp_path):
    """Tag, panel field and its place among the arguments, axis, infotext and paste, in a stand-in for a host."""
    with running(A1111, tmp_path) as host:
        from lib_nplora.webui import infotext
        from lib_nplora.webui.fields import PanelState, fields

        dog, vangogh = (
            write_lora(tmp_path / f"{name}.safetensors", host.modules, seed=seed)
            for seed, name in enumerate(("dog", "vangogh"))
        )
        tag = "<nplora:dog:vangogh:method=duck:depth=2:curve=steep>"
        picture = host.generate(f"a cat {tag}")
        assert "NP-LoRA curve: steep" in picture.infotext
        contents, styles = factors(dog), factors(vangogh)
        name = next(name for name in contents if "attn" in name)
        np.testing.assert_allclose(host.delta(name), ducked(contents[name], styles[name], 2, "steep"), atol=1e-4)

        assert list(fields())[-3:] == ["depth", "depth_by_block", "curve"]
        (script,) = host.page.alwayson
        labels = [field.label for field, _ in script.infotext_fields]
        assert labels[-3:] == ["depth", "depth by block", "curve"]
        panel = [{"content": "dog", "style": "vangogh", "method": "duck", "depth": 2, "curve": "steep"}]
        assert host.generate("a cat", panel=panel).infotext.startswith(f"a cat {tag}\n")
        by_position = [*fields().values()]
        by_position[: len(by_position)] = [True, "dog", "vangogh", *by_position[3:]]
        by_position[list(fields()).index("method")], by_position[-3], by_position[-1] = "duck", "2", "steep"
        by_panel = host.generate("a cat", panel=by_position)
        assert by_panel.pixels == picture.pixels

        params = {"Prompt": f"a cat {tag}", "NP-LoRA": "panel"}
        infotext.on_pasted("", params)
        shown = PanelState({name: params[infotext.label(name)] for name in fields()})
        assert (shown["method"], shown["depth"], shown["curve"]) == ("duck", "2", "steep")
        assert format_tag(shown.request()) == tag

        axes = {option.label: option for option in host.plot.axis_options}
        assert axes["[NP-LoRA] curve"].choices() == ["flat", "steep"]
        assert axes["[NP-LoRA] depth"].type is float
        cells = host.sweep("a cat", [("[NP-LoRA] depth by block", ("none", "mid@3"))], panel=panel)
        assert [cell.infotext.split("\n")[0] for cell in cells] == [
            f"a cat {tag}",
            "a cat <nplora:dog:vangogh:method=duck:depth=2,mid@3:curve=steep>",
        ]


def test_a_method_is_on_the_command_line_and_in_the_api(method, tmp_path, capsys):
    pair = [files.write(tmp_path / f"{n}.safetensors", files.random_lora(files.SD1, 4, n)) for n in (1, 2)]
    out = tmp_path / "out.safetensors"
    told = ["--method", "duck", "--depth", "2", "--curve", "steep"]
    assert main(["fuse", *map(str, pair), "-o", str(out), *told, "--dtype", "fp32"]) == 0
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert [metadata[f"nplora_{name}"] for name in ("method", "depth", "curve")] == ["duck", "2", "steep"]
    with pytest.raises(SystemExit):
        main(["fuse", "--help"])
    assert "for duck: how deep the ducking goes" in " ".join(capsys.readouterr().out.split())

    with running(A1111, tmp_path) as host:
        from lib_nplora.webui import rest
        from lib_nplora.webui import running as session

        app = FastAPI()
        app.add_api_route("/sdapi/v1/txt2img", lambda: {}, methods=["POST"])
        rest.register(app, session.host)
        client = TestClient(app)
        body = {"content": "1", "style": "2", "method": "duck", "depth": 2, "curve": "steep"}
        answer = client.post("/nplora/v1/fuse", json={**body, "output": "both", "dtype": "fp32"})
        assert answer.status_code == 200, answer.text
        ours, theirs = load_file(out), load_file(host.lora_dir / "both.safetensors")
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        refused = client.post("/nplora/v1/inspect", json={**body, "curve": "round"})
        assert (refused.status_code, refused.json()) == (
            422,
            {"detail": "there is no curve 'round'. Known: flat, steep."},
        )
        assert "how deep the ducking goes" in json.dumps(app.openapi())


# A host's model: here a torch module whose linear layers have names.


class Plain:
    """See Model, of lib_nplora.hosts.protocol."""

    checkpoint = None

    def __init__(self, module: torch.nn.ModuleDict) -> None:
        self.module, self.kept = module, {name: layer.weight.detach().clone() for name, layer in module.items()}

    def token(self):
        return id(self.module)

    def blocks(self):
        return {ModuleKey(name, "unet").place.block for name in self.module}

    def dtype(self, key):
        return self.module[key.name].weight.dtype

    def load(self, file):
        raise NotImplementedError("LoRAs are made in the test")

    def apply(self, fused):
        self.clear()
        for lora in fused:
            self.swap(lora, lora.first_winners(), lora.deltas)

    def swap(self, fused, winners, keys=None):
        for key in winners if keys is None else keys:
            self.module[key.name].weight.data = self.kept[key.name] + fused.update(key, winners).dense()

    def clear(self):
        for name, layer in self.module.items():
            layer.weight.data = self.kept[name].clone()


def test_a_hosts_model():
    """Fused, swapped and cleared. `tests/hosts/test_plain_model.py` looks at it layer by layer and step by step."""
    names = [f"{block}_attn1_to_q" for block in ("down_blocks_0_attentions_0", "mid_block_attentions_0")]
    module = torch.nn.ModuleDict({name: torch.nn.Linear(12, 8) for name in names})
    model, generator = Plain(module), torch.Generator().manual_seed(0)
    contents, styles = (
        LoraWeights(
            role,
            role,
            {
                ModuleKey(name, "unet"): LowRankDelta(
                    torch.randn(8, 2, generator=generator), torch.randn(2, 12, generator=generator)
                )
                for name in names
            },
        )
        for role in ("content", "style")
    )
    assert model.blocks() == {Block("in", 1), Block("mid")}

    def fused(tag: str):
        return fuse(parse_tag(["content", "style", *tag.split(":")]), [contents], [styles], ByteLru(0))

    def added(name: str) -> torch.Tensor:
        return (module[name].weight - model.kept[name]).detach()

    model.apply([fused("hard,mid@0")])
    for name, hard in zip(names, (True, False)):
        content, style = (lora.deltas[ModuleKey(name, "unet")].dense() for lora in (contents, styles))
        v = torch.linalg.svd(style).Vh[:2].T
        expected = style + (content - content @ v @ v.T if hard else content)
        torch.testing.assert_close(added(name), expected, atol=1e-5, rtol=0)
    turns = fused("method=switch")
    model.apply([turns])
    for step, lora in enumerate((contents, styles, contents)):
        model.swap(turns, turns.schedule.winners(step, 3))
        for name in names:
            torch.testing.assert_close(added(name), lora.deltas[ModuleKey(name, "unet")].dense(), atol=1e-6, rtol=0)
    model.clear()
    assert all(torch.equal(layer.weight, model.kept[name]) for name, layer in module.items())


# A model family, with names of its own and a fused layer.

TOY = family(
    "Toy",
    {"ss_base_model_version": "toy"},
    Names(
        blocks=(
            Blocks(
                "toy_layers",
                "toy_transformer_blocks",
                {"att.qkv": "attn.qkv", "att.out": "attn.to_out.0"},
                fused={"attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v")},
            ),
        ),
        singles={"toy_in": "toy_embedder"},
        swapped=frozenset(),
    ),
    own=r"toy_(layers|transformer_blocks)[._]\d",
    hidden=(16,),
    blocks=(Block("in"), *(Block("double", number) for number in range(2))),
    bare=("toy_layers", "toy_transformer_blocks", "toy_in"),
)


def test_a_model_family(tmp_path, capsys):
    """Read in two spellings, paired, written in diffusers', and read again; unknown before and after."""
    generator = torch.Generator().manual_seed(0)

    def lora(path, shapes: dict[str, tuple[int, int]], up: str, down: str):
        tensors = {}
        for name, (out, in_) in shapes.items():
            tensors[f"{name}.{up}.weight"] = torch.randn(out, 2, generator=generator)
            tensors[f"{name}.{down}.weight"] = torch.randn(2, in_, generator=generator)
        save_file(tensors, path)
        return path

    whole = {"toy_layers.0.att.qkv": (48, 16), "toy_layers.1.att.out": (16, 16), "toy_in": (16, 4)}
    content = lora(tmp_path / "content.safetensors", whole, "lora_B", "lora_A")
    slices = {f"transformer.toy_transformer_blocks.0.attn.to_{name}": (16, 16) for name in "qkv"}
    style = lora(tmp_path / "style.safetensors", slices, "lora_B", "lora_A")
    out = tmp_path / "out.safetensors"
    command = ["fuse", str(content), str(style), "-o", str(out), "--mu", "hard", "--dtype", "fp32"]
    assert main(command) == 2
    assert "is for a model that is not known here" in capsys.readouterr().err
    undo = models.register(TOY)
    try:
        assert read_lora(content).family is read_lora(style).family is TOY
        assert main(command) == 0
        assert "3 layers fused, 2 content only" in capsys.readouterr().out
        written = read_lora(out)
        assert written.family is TOY
        keys = {str(key) for key in written.weights.deltas}
        assert "lora_unet_toy_transformer_blocks_0_attn_qkv[16:32]" in keys
        with safe_open(out, "pt") as file:
            assert file.metadata()["ss_base_model_version"] == "toy"
        sd1 = files.write(tmp_path / "sd1.safetensors", files.random_lora(files.SD1, 4, 1))
        assert main(["fuse", str(content), str(sd1), "-o", str(tmp_path / "x.safetensors")]) == 2
        assert "is made for Toy and 'sd1.safetensors' for SD 1" in capsys.readouterr().err
        assert main([*command, "--overwrite", "--content-weight", "1,single@0"]) == 2
        assert "this model has no block single: it has in and double0 to double1" in capsys.readouterr().err
    finally:
        undo()
    assert main([*command, "--overwrite"]) == 2


def test_what_the_tests_registered_is_gone():
    assert FusionRequest.of((Source("a"),), (Source("b"),)).method.name == "np"
    assert "duck" not in methods()
    assert TOY not in models.families()
