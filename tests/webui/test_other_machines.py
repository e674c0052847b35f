"""What a picture is told of those that the extension Distribute had made on other machines."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from lib_nplora.webui.said import SAID

from ..hosts.contract import Loras
from ..hosts.standins.a1111 import A1111
from ..hosts.standins.common import Processing, Runner
from ..hosts.standins.driver import running
from ..hosts.standins.page import Script

NP = "a cat <nplora:dog:vangogh:0.5>"
OURS = ["np-lora", "controlnet"]


class Distribute(Script):
    """As that extension's script: its jobs are those of the last picture that it split."""

    args_from = args_to = 0

    def __init__(self, jobs, splits=True):
        self.world = SimpleNamespace(p=None, jobs=jobs)
        self.splits = splits

    def title(self):
        return "Distribute"

    def process(self, p, *args):
        if self.splits:
            self.world.p = p


def job(scripts=OURS, said=None, sent=True):
    params = {} if said is None else {SAID: said}
    response = {"info": json.dumps({"extra_generation_params": params})}
    listed = {"txt2img": scripts, "img2img": OURS} if scripts else {}
    worker = SimpleNamespace(label="attic", supported_scripts=listed, response=response)
    return SimpleNamespace(worker=worker, thread=object() if sent else None)


@pytest.fixture
def host(tmp_path):
    with running(A1111, tmp_path) as host:
        Loras(host)
        yield host


def told(host, script, prompt=NP, **options) -> list[str]:
    """What the picture is told beside what it is told on one machine."""
    alone = host.generate(prompt, **options)
    host.page.alwayson = [*host.page.alwayson, script]
    picture = host.generate(prompt, **options)
    assert picture.pixels == alone.pixels
    known = alone.params.get(SAID, "").splitlines()
    lines = picture.params.get(SAID, "").splitlines()
    assert all(f"NP-LoRA: {line}" in picture.comments for line in lines)
    return [line for line in lines if line not in known]


def test_a_machine_without_the_extension(host):
    script = Distribute([job(scripts=["controlnet"])])
    assert told(host, script) == ["the machine 'attic' has no NP-LoRA: its pictures are without the fusion"]


def test_a_machine_without_a_file(host):
    script = Distribute([job(said="<nplora:dog:vangogh:0.5>: no LoRA is called 'dog'")])
    assert told(host, script) == ["the machine 'attic': <nplora:dog:vangogh:0.5>: no LoRA is called 'dog'"]


def test_what_is_said_here_as_well_is_said_once(host):
    wrong = "<nplora:dog:nobody>"
    said = host.generate(wrong).params[SAID]
    assert told(host, Distribute([job(said=f"{said}\nanother")]), wrong) == ["the machine 'attic': another"]


@pytest.mark.parametrize(
    "script",
    [
        Distribute([job(scripts=["controlnet"], sent=False)]),
        Distribute([job(scripts=["controlnet"])], splits=False),
        Distribute([job()]),
        Distribute([job(scripts=None)]),
        Distribute([SimpleNamespace(thread=object())]),
    ],
    ids=["no part sent", "another picture's", "all in order", "not asked for its scripts", "of another version"],
)
def test_nothing_to_tell(host, script):
    assert told(host, script) == []


@pytest.mark.parametrize(("prompt", "panel"), [(NP, ()), ("a cat", (True, "dog", "vangogh"))], ids=["tag", "panel"])
def test_this_machine_makes_no_picture(host, prompt, panel):
    """The host has gathered its comments by then, and no prompt has the panel's tag."""
    (ours,) = host.page.alwayson
    script = Distribute([job(scripts=["controlnet"])])
    p = Processing(host, prompt, Runner(None, [ours, script]))
    p.all_prompts = None
    script.world.p = p
    processed = SimpleNamespace(comments="before\n")
    for _ in range(2):
        ours.postprocess(p, processed, *panel)
        assert processed.comments == (
            "before\nNP-LoRA: the machine 'attic' has no NP-LoRA: its pictures are without the fusion\n"
        )


def test_a_picture_without_a_fusion(host):
    assert told(host, Distribute([job(scripts=["controlnet"], said="no")]), "a cat") == []


def test_a_plot_of_our_axes(host):
    host.page.alwayson = [*host.page.alwayson, Distribute([job()])]
    for cell in host.sweep(NP, [("[NP-LoRA] mu", ("0", "1"))]):
        assert any("is not told of this plot's values" in comment for comment in cell.comments)
