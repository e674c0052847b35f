"""What a session remembers, forgets and says, with a host that only takes notes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lib_nplora.errors import HostError, NotFoundError, RequestError
from lib_nplora.hosts import ShelfFile
from lib_nplora.jobs.session import Asked, Session
from lib_nplora.layers.block import Block
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.lowrank import LowRankDelta
from lib_nplora.request.request import FusionRequest, Source
from lib_nplora.request.tag import parse_tag

KEY = ModuleKey("layer", "unet")
ATTENTION = ModuleKey("layer_attn1_to_q", "unet")


class NotingHost:
    """Two LoRAs of the same layers, one if not said otherwise; `overlapping` ones read the same inputs.

    Its own shelf and its own model.
    """

    name = "noting"
    keys = (KEY,)

    def __init__(self, overlapping: bool = False) -> None:
        self.loaded = "model"
        self.stamps = {"dog": "dog 1", "vangogh": "vangogh 1", "same dog": "dog 1"}
        self.loads: list[str] = []
        self.asked_for_blocks = 0
        self.applied: list[list[str]] = []
        self.swapped: list[tuple[str, str]] = []
        self.refuses = False
        self.overlapping = overlapping

    @property
    def shelf(self):
        return self

    @property
    def model(self):
        return self

    def token(self):
        return self.loaded

    def blocks(self):
        self.asked_for_blocks += 1
        return {Block("te", 1), Block("in", 1), Block("in", 2), Block("mid")}

    def dtype(self, key):
        return torch.float32

    def resolve(self, name):
        if name not in self.stamps:
            raise NotFoundError(f"there is no LoRA called '{name}'.")
        path = name.removeprefix("same ")
        return ShelfFile(name, path, self.stamps[name], f"hash of {path}", None)

    def load(self, file):
        self.loads.append(file.name)
        generator = torch.Generator().manual_seed(len(file.name))
        down = torch.eye(2, 64) if self.overlapping else torch.randn(2, 64, generator=generator)
        deltas = {key: LowRankDelta(torch.randn(8, 2, generator=generator), down) for key in self.keys}
        return LoraWeights(file.name, file.stamp, deltas)

    def apply(self, fused):
        if self.refuses:
            raise HostError("it will not")
        self.applied.append([lora.fingerprint for lora in fused])

    def swap(self, fused, winners):
        if self.refuses:
            raise HostError("it will not")
        self.swapped.append((fused.title, "".join(winners[key][0] for key in self.keys)))

    def clear(self):
        self.applied.append([])


def asked(tag: str) -> Asked:
    """As a prompt does."""
    try:
        return Asked(f"<nplora:{tag}>", parse_tag(tag.split(":")))
    except RequestError as error:
        return Asked(f"<nplora:{tag}>", error)


@pytest.fixture
def host() -> NotingHost:
    return NotingHost(overlapping=True)


@pytest.fixture
def session(host: NotingHost) -> Session:
    return Session(host)


def test_nothing_asked_nothing_applied(session, host):
    plan = session.prepare([])
    assert not plan.honoured
    assert not plan.problems
    assert not plan.remarks
    assert not session.apply(plan).problems
    assert host.applied == [[]]
    assert host.loads == []


def test_a_lora_is_read_once_until_the_file_or_the_model_changes(session, host):
    for tag in ("dog:vangogh:0.5", "dog:vangogh:2", "vangogh:dog:hard"):
        session.prepare([asked(tag)])
    assert host.loads == ["dog", "vangogh"]
    host.stamps["dog"] = "dog 2"
    session.prepare([asked("dog:vangogh:0.5")])
    assert host.loads == ["dog", "vangogh", "dog"]
    host.loaded = "another model"
    session.prepare([asked("dog:vangogh:0.5")])
    assert host.loads == ["dog", "vangogh", "dog", "dog", "vangogh"]


def test_equal_requests_are_one_fusion(session, host):
    plan = session.prepare(
        [asked("dog:vangogh"), asked("dog:vangogh"), asked("dog:vangogh:0.5"), asked("dog:vangogh:1")]
    )
    session.apply(plan)
    assert len(host.applied[-1]) == len(set(host.applied[-1])) == 2


def test_text_is_stale_when_the_same_tags_mean_other_weights(session, host):

    def stale(tag: str) -> bool:
        return session.apply(session.prepare([asked(tag)])).stale_text

    assert not stale("dog:vangogh:0.5")
    assert not stale("dog:vangogh:1")
    assert not stale("dog:vangogh:0.5")
    host.stamps["dog"] = "dog 2"
    assert stale("dog:vangogh:0.5")
    assert not stale("dog:vangogh:0.5")
    host.refuses = True
    assert stale("dog:vangogh:0.5")
    host.refuses = False
    assert stale("dog:vangogh:0.5")
    del host.stamps["dog"]
    assert stale("dog:vangogh:0.5")


def test_one_bad_request_does_not_stop_the_others(session, host):
    bad = Asked("<nplora:oops>", RequestError("the style is missing"))
    plan = session.prepare([bad, asked("dog:nobody"), asked("dog:vangogh:1")])
    assert list(plan.problems) == [
        "NP-LoRA: <nplora:oops>: the style is missing",
        "NP-LoRA: <nplora:dog:nobody>: there is no LoRA called 'nobody'.",
    ]
    assert [one.tag for one in plan.honoured] == ["<nplora:dog:vangogh:1>"]
    assert set(plan.files) == {"dog", "vangogh"}


def test_the_same_file_under_two_names_is_refused(session):
    (comment,) = session.prepare([asked("dog:same dog")]).problems
    assert "'dog' and 'same dog' would be content and style at once" in comment


def test_an_unknown_method_is_refused_before_anything_is_read(session, host):
    (comment,) = session.prepare([asked("dog:vangogh:method=magic")]).problems
    assert "there is no method 'magic'" in comment
    assert host.loads == []


def test_a_host_that_refuses_is_left_clean(session, host):
    plan = session.prepare([asked("dog:vangogh:1"), asked("vangogh:dog:1")])
    host.refuses = True
    assert session.apply(plan).problems == [
        "NP-LoRA: <nplora:dog:vangogh:1>: it will not",
        "NP-LoRA: <nplora:vangogh:dog:1>: it will not",
    ]
    assert host.applied == [[]]


def test_a_pair_that_hardly_overlaps_is_said_to():
    session = Session(NotingHost(overlapping=False))
    assert session.prepare([asked("dog:vangogh:0.1")]).remarks[0].endswith("% of the content's energy")
    assert "hardly overlap" in session.prepare([asked("dog:vangogh:0.1")]).remarks[0]
    assert not session.prepare([asked("dog:vangogh:0")]).remarks
    assert not session.prepare([asked("dog:vangogh:method=direct")]).remarks


def test_a_content_of_weight_0_is_not_remarked_on():
    assert not Session(NotingHost(overlapping=False)).prepare([asked("dog:vangogh:0.5:c=0")]).remarks


def test_a_pair_that_overlaps_is_not_remarked_on(session):
    assert not session.prepare([asked("dog:vangogh:0.5")]).remarks


def test_weights_of_the_parts_change_the_fingerprint(session):
    request = FusionRequest.of((Source("dog"),), (Source("vangogh"),))
    variants = [
        request,
        replace(request, te=0.5),
        replace(request, unet=0.5),
        replace(request, contents=(Source("dog", 1.0, 0.5),)),
        replace(request, styles=(Source("vangogh", 0.5, 1.0),)),
    ]
    plan = session.prepare([Asked(str(i), variant) for i, variant in enumerate(variants)])
    assert len({fused.fingerprint for fused in plan.honoured.values()}) == len(variants)


class ContestedHost(NotingHost):
    """Its LoRAs have a layer of attention."""

    keys = (ATTENTION,)


@pytest.fixture
def contested() -> tuple[Session, ContestedHost]:
    host = ContestedHost()
    return Session(host), host


def picture(session: Session, steps: int) -> list[str]:
    return [problem for step in range(steps) for problem in session.step(step, steps)]


def test_each_step_goes_to_the_host_with_its_winners(contested):
    session, host = contested
    session.apply(session.prepare([asked("dog:vangogh:method=fixed")]))
    assert session.changes_with_steps
    assert picture(session, 6) == picture(session, 3) == []
    title = "dog x vangogh"
    assert host.swapped == [(title, letter) for letter in "cccsss" + "ccs"]


def test_a_schedule_that_loses_its_host_is_said_once_and_not_tried_again(contested):
    session, host = contested
    plan = session.prepare([asked("dog:vangogh:method=fixed"), asked("vangogh:dog:method=fixed")])
    session.apply(plan)
    assert session.step(0, 4) == []
    host.refuses = True
    assert session.step(1, 4) == [
        f"NP-LoRA: <nplora:{pair}:method=fixed>: stopped changing at step 2 of 4: it will not"
        for pair in ("dog:vangogh", "vangogh:dog")
    ]
    host.refuses = False
    assert session.step(2, 4) == []
    assert len(host.swapped) == 2
    assert not session.changes_with_steps
    session.apply(plan)
    assert session.changes_with_steps


def test_one_schedule_that_fails_does_not_stop_the_other(contested):
    session, host = contested
    session.apply(session.prepare([asked("dog:vangogh:method=fixed"), asked("vangogh:dog:method=switch")]))
    swap = host.swap

    def choosy(fused, winners):
        if fused.title == "dog x vangogh":
            raise HostError("not that one")
        swap(fused, winners)

    host.swap = choosy
    (problem,) = picture(session, 3)
    assert "<nplora:dog:vangogh:method=fixed>: stopped changing at step 1 of 3: not that one" in problem
    assert host.swapped == [("vangogh x dog", letter) for letter in "csc"]


def test_nothing_changes_with_the_steps_after_a_clear_or_another_plan(contested):
    session, host = contested
    for end in (session.clear, lambda: session.apply(session.prepare([])), lambda: refused(session, host)):
        session.apply(session.prepare([asked("dog:vangogh:method=klora")]))
        assert session.changes_with_steps
        end()
        assert not session.changes_with_steps
        assert picture(session, 3) == []
    session.apply(session.prepare([asked("dog:vangogh")]))
    assert not session.changes_with_steps
    assert host.swapped == []


def refused(session: Session, host: NotingHost) -> None:
    plan = session.prepare([asked("dog:vangogh:method=klora")])
    host.refuses = True
    assert session.apply(plan).problems
    host.refuses = False


@pytest.mark.parametrize(
    ("tag", "unread"),
    [
        ("method=np:alpha=1", "alpha= has no effect with method=np"),
        ("alpha=1:beta=2", "alpha=, beta= has no effect with method=np"),
        ("method=klora:density=0.5", "density= has no effect with method=klora"),
        ("method=switch:alpha=1", "alpha= has no effect with method=switch"),
        ("method=ties:seed=1", "seed= has no effect with method=ties"),
        ("method=direct:scope=all", "scope= has no effect with method=direct"),
        ("0.1:method=direct", "mu= has no effect with method=direct"),
        ("0.5:method=direct", "mu= has no effect with method=direct"),
        ("0.5,mid@2:k=4:method=klora", "mu=, k= has no effect with method=klora"),
    ],
)
def test_an_option_that_the_method_does_not_read_is_remarked_on(contested, tag, unread):
    session, _ = contested
    remarks = session.prepare([asked(f"dog:vangogh:{tag}")]).remarks
    assert [remark for remark in remarks if remark.endswith(f": {unread}")]


@pytest.mark.parametrize(
    "tag", ["method=klora:alpha=1:beta=0:scope=all", "method=dare:seed=3:density=50%", "method=fixed:beta=0.1"]
)
def test_an_option_that_the_method_reads_is_not(contested, tag):
    session, _ = contested
    assert not session.prepare([asked(f"dog:vangogh:{tag}")]).remarks


def test_a_schedule_without_layers_is_remarked_on(session):
    """Its only layer is no attention."""
    (remark,) = session.prepare([asked("dog:vangogh:method=klora")]).remarks
    assert remark.endswith("no layer of scope=attention is in both LoRAs, so they are merged plainly")
    assert not session.prepare([asked("dog:vangogh:method=klora:scope=all")]).remarks


@pytest.mark.parametrize("off", ["c=0", "s=0", "unet=0"])
def test_a_schedule_that_has_nothing_to_choose_from_is_not(contested, off):
    session, _ = contested
    assert not session.prepare([asked(f"dog:vangogh:method=klora:{off}")]).remarks


@pytest.mark.parametrize(
    ("tag", "why"),
    [
        ("method=klora*:alpha=0", "alpha=0 makes no sawtooth"),
        ("method=klora:scope=attn", "there is no scope 'attn'"),
        ("method=blora", "takes the content from one block of SDXL, and 'dog' has no layer there"),
    ],
)
def test_what_a_method_cannot_do_is_a_problem_of_the_picture(contested, tag, why):
    session, _ = contested
    plan = session.prepare([asked(f"dog:vangogh:{tag}")])
    (problem,) = plan.problems
    assert why in problem
    assert not plan.honoured


def test_a_block_that_the_model_lacks_is_a_problem_of_the_picture(session, host):
    for tag, block in (
        ("dog:vangogh:0.5,out@2", "out"),
        ("dog:vangogh:c=1,in3@0", "in3"),
        ("dog:vangogh:method=direct:s=te2@0", "te2"),
    ):
        (problem,) = session.prepare([asked(tag)]).problems
        assert problem == f"NP-LoRA: <nplora:{tag}>: this model has no block {block}: it has te1, in1 to in2 and mid"
    assert session.prepare([asked("dog:vangogh:0.5,in@2,mid@hard:c=1,in2@0:s=1,te1@0")]).honoured


def test_the_model_is_asked_for_its_blocks_once(session, host):
    for _ in range(2):
        session.prepare([asked("dog:vangogh:0.5,in@2")])
    assert host.asked_for_blocks == 1
    host.loaded = "another model"
    session.prepare([asked("dog:vangogh:0.5,in@2")])
    assert host.asked_for_blocks == 2


def test_settings_that_make_no_sense_are_refused_before_anything_is_read(contested):
    session, host = contested
    session.prepare([asked("dog:vangogh:method=klora*:alpha=0"), asked("dog:vangogh:method=klora:scope=x")])
    assert host.loads == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("no such\nlayer"), "'dog' cannot be read (no such layer): it is damaged, or of a kind"),
        (AssertionError(), "'dog' cannot be read: it is damaged, or of a kind"),
    ],
)
def test_a_file_on_which_the_host_fails_is_told_without_the_names_of_its_exceptions(session, host, error, told):
    def fail(file):
        raise error

    host.load = fail
    (problem,) = session.prepare([asked("dog:vangogh")]).problems
    assert told in problem
    assert type(error).__name__ not in problem
