"""A few of those that `python -m tests.soak` sends by the thousand; and that it notices what is no answer."""

from __future__ import annotations

import importlib
import random
from collections import Counter
from dataclasses import replace

import pytest

from lib_nplora.hosts import detect_host
from lib_nplora.jobs.job import Job as FusionJob

from ..hosts.driver import Job
from ..hosts.standins.a1111 import A1111
from ..hosts.standins.common import NAMES
from ..hosts.standins.forge import Forge
from .grammar import Grammar
from .kinds import KINDS, soak
from .sentences import NoAnswer, check
from .standin import bench

COUNT = 25


def test_each_ends_in_an_answer():
    *_, done = soak(COUNT, seed=1)
    assert not done.failures, done.failures[0].why
    sent = Counter(kind for kind, _ in done.answers.elements())
    assert sent == dict.fromkeys(KINDS, COUNT)
    assert {("tags", "a fusion"), ("panel", "a fusion"), ("rest", "200")} <= done.answers.keys()


def test_the_same_seed_sends_the_same():
    one, other = (Grammar(random.Random("5 tags 7")) for _ in range(2))
    for draw in (Grammar.prompt, Grammar.panel, Grammar.file_name, lambda grammar: grammar.body("fuse")):
        assert [repr(draw(one)) for _ in range(20)] == [repr(draw(other)) for _ in range(20)]


@pytest.fixture(params=[A1111, Forge])
def soaked(request, tmp_path):
    with bench(request.param, tmp_path) as made:
        yield made


TAG = "a cat <nplora:dog:vangogh>"


def fails(*_, **__):
    raise ZeroDivisionError("not foreseen")


def webui(name: str):
    return importlib.import_module(f"lib_nplora.webui.{name}")


def test_half_a_fusion_is_noticed(soaked, monkeypatch):
    assert soaked.picture(Job(TAG), sound=True) == "a fusion"
    model = type(detect_host().model)
    apply = model.apply

    def half(self, fused):
        apply(self, [replace(lora, deltas=dict(list(lora.deltas.items())[1:])) for lora in fused])

    monkeypatch.setattr(model, "apply", half)
    with pytest.raises(NoAnswer, match="is not its fusion"):
        soaked.picture(Job(f"{TAG[:-1]}:2>"))


def test_what_is_left_behind_is_noticed(soaked):
    assert soaked.picture(Job("a cat <nplora:dog:nobody>")) == "a picture without, and why"
    soaked.host.parameter(NAMES[0], "weight").add_(1)
    with pytest.raises(NoAnswer, match=f"left behind in {NAMES[0]}"):
        soaked.picture(Job("a cat <nplora:dog:nobody>"))


def test_a_refusal_of_what_is_sound_is_noticed(soaked):
    with pytest.raises(NoAnswer, match=r"refused: .* no LoRA called 'nobody'"):
        soaked.picture(Job("a cat <nplora:dog:nobody>"), sound=True)


def test_silence_is_noticed(soaked, monkeypatch):
    monkeypatch.setattr(webui("extra_network"), "_report", lambda *_: None)
    with pytest.raises(NoAnswer, match="not a word about <nplora:dog:nobody>"):
        soaked.picture(Job("a cat <nplora:dog:nobody>"))


@pytest.mark.parametrize(("module", "function"), [("extra_network", "astray"), ("tagging", "_composed")])
def test_an_exception_of_ours_is_noticed(soaked, monkeypatch, module, function):
    monkeypatch.setattr(webui(module), function, fails)
    with pytest.raises(NoAnswer, match="ZeroDivisionError"):
        soaked.picture(Job(TAG, panel=[True, "dog", "vangogh"]))


def test_an_exception_that_became_a_comment_is_noticed(soaked, monkeypatch):
    monkeypatch.setattr(FusionJob, "check", fails)
    with pytest.raises(NoAnswer, match="in the log: this should not happen"):
        soaked.picture(Job(TAG))


def test_what_is_wrong_with_the_api_is_noticed(soaked, monkeypatch):
    body = b'{"content": "dog", "style": "vangogh", "output": "new"}'
    assert soaked.post("fuse", body) == "200"
    monkeypatch.setattr(webui("saving"), "fuse_files", fails)
    with pytest.raises(NoAnswer, match=r"in the log: .*failed"):
        soaked.post("fuse", body)


@pytest.mark.parametrize(
    "wrong",
    ["", "k=None", "a\nb", "KeyError: 'x'", "Traceback (most", "NoneType", "<class 'x'>", "scope.int: no", "x" * 4000],
)
def test_what_is_no_sentence_is_noticed(wrong):
    with pytest.raises(NoAnswer):
        check(wrong, of=10)


def test_a_sentence_is_one():
    check("NP-LoRA: <nplora:a:b>: there is no LoRA called 'a'. Did you mean 'b'?", of=12)
