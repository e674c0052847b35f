"""What is checked and remarked of a fusion, wherever its LoRAs come from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lib_nplora.errors import MismatchError
from lib_nplora.jobs.job import Job, LoadedLora
from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.delta import whole
from lib_nplora.maths.lowrank import LowRankDelta
from lib_nplora.request.request import FusionRequest, Source

KEY, OTHER = ModuleKey("layer", "unet"), ModuleKey("other", "te")


def lora(name: str, *keys: ModuleKey, scale: float = 1.0, unmatched: tuple[str, ...] = (), **traits) -> LoadedLora:
    """A LoRA whose every layer reads the same inputs as any other's."""
    generator = torch.Generator().manual_seed(len(name))
    deltas = {
        key: LowRankDelta(scale * torch.randn(8, 2, generator=generator), torch.eye(2, 64)) for key in keys or (KEY,)
    }
    return LoadedLora(LoraWeights(name, name, deltas, unmatched), name, f"{name}.safetensors", **traits)


def job(content: LoadedLora, style: LoadedLora, **settings) -> Job:
    return Job(FusionRequest.of((Source(content.name),), (Source(style.name),), **settings), [content], [style])


def told(one: Job, surface: str = "command line", **how: bool) -> list[str]:
    fused = one.fuse(ByteLru(0))
    return [remark.told(surface) for remark in one.remarks(fused.summary, fused.schedule, **how)]


DOG, VANGOGH = lora("dog"), lora("vangogh")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dog", "'dog' would be content and style at once (both are the same LoRA): choose two different ones"),
        ("hound", "'dog' and 'hound' would be content and style at once (both are the same LoRA)"),
    ],
)
def test_one_lora_on_both_sides_is_refused_by_its_names(name, words):
    with pytest.raises(MismatchError) as caught:
        job(DOG, replace(DOG, name=name)).check()
    assert str(caught.value).startswith(words)


def test_every_content_is_held_against_every_style():
    pair = job(DOG, VANGOGH)
    pair.check()
    with pytest.raises(MismatchError, match="'vangogh' would be"):
        replace(pair, contents=[DOG, VANGOGH], styles=[lora("cat's hat"), VANGOGH]).check()


@pytest.mark.parametrize("form", [lambda delta: delta, whole])
def test_a_copy_is_known_by_its_values(form):
    """Whatever its name and its digest; not if one value of its last layer is another."""

    def made(name: str, change: float = 0.0) -> LoadedLora:
        deltas = {key: form(delta) for key, delta in lora("dog", KEY, OTHER).weights.deltas.items()}
        delta = lora("dog", KEY, OTHER).weights.deltas[OTHER]
        delta.up[-1, -1] += change
        return replace(DOG, name=name, weights=LoraWeights(name, name, {**deltas, OTHER: form(delta)}))

    with pytest.raises(MismatchError, match="'dog' and 'copy' would be content and style at once"):
        job(made("dog"), made("copy")).check()
    job(made("dog"), made("another", change=1e-3)).check()
    job(made("dog"), replace(DOG, name="shorter", weights=replace(DOG.weights, digest="shorter"))).check()


def test_families_told_by_layers_are_refused_if_they_differ():
    sdxl, flux = replace(DOG, family="SDXL"), replace(VANGOGH, family="Flux")
    with pytest.raises(MismatchError, match="'dog' is made for SDXL and 'vangogh' for Flux: choose two LoRAs for the"):
        job(sdxl, flux).check()
    job(sdxl, replace(flux, family=None)).check()
    job(sdxl, replace(flux, family="SDXL")).check()


def test_a_pair_that_is_as_it_should_be_is_not_remarked_on():
    assert told(job(DOG, VANGOGH)) == []


@pytest.mark.parametrize(
    ("surface", "advice"),
    [
        ("command line", "leave it out"),
        ("API", "leave it out"),
        ("WebUI", "use an ordinary <lora:...> tag for it"),
    ],
)
@pytest.mark.parametrize("role", ["content", "style"])
def test_an_accelerator_is_known_by_its_file_whatever_it_is_called(role, surface, advice):
    odd = replace(DOG, name="alias", file="sdxl_lightning_4step.safetensors")
    pair = job(odd, VANGOGH) if role == "content" else job(VANGOGH, odd)
    words = f"'alias' looks like an accelerator LoRA (Lightning), which is no {role}: {advice}"
    assert told(pair, surface) == [words]


def test_headers_that_name_two_families_are_remarked_on():
    made = [replace(DOG, metadata={"ss_base_model_version": "sdxl_base_v1-0"})]
    for version, remarks in (("flux1", 1), ("sdxl_base_v1-0", 0), ("", 0)):
        style = replace(VANGOGH, metadata={"ss_base_model_version": version})
        found = told(job(*made, style))
        assert len(found) == remarks
        assert all("made for different models ('dog': SDXL, 'vangogh': Flux)" in text for text in found)


def test_headers_that_name_two_models_of_no_list_are_remarked_on():
    for version, remarks in (("bar", ["foo", "bar"]), ("foo", []), (None, [])):
        made = [replace(DOG, metadata={"ss_base_model_version": "foo"})]
        found = told(job(*made, replace(VANGOGH, metadata={"ss_base_model_version": version})))
        assert len(found) == bool(remarks)
        assert all("different models ('dog': foo, 'vangogh': bar):" in text for text in found)


@pytest.mark.parametrize("role", ["content", "style"])
def test_a_side_that_changes_nothing_is_remarked_on_unless_it_was_asked_for(role):
    silent = lora("silent", scale=0)
    pair = job(silent, VANGOGH) if role == "content" else job(DOG, silent)
    words = f"the {role} changes nothing: its alpha is 0, or all its values are"
    assert told(pair) == [words]
    assert told(replace(pair, request=replace(pair.request, unet=0.0))) == []


def test_what_fits_no_layer_is_remarked_on_by_its_lora():
    summary, own = told(job(lora("dog", unmatched=("a", "b")), VANGOGH))
    assert summary.startswith("not everything could be fused: 1 layers fused")
    assert own == "2 of the modules in 'dog' fit no layer of this model"


def test_what_a_method_does_not_read_is_remarked_on():
    assert told(job(DOG, VANGOGH, density=0.5)) == ["density= has no effect with method=np"]


def test_a_plain_merge_is_told_apart_from_what_a_method_leaves_out():
    pair = job(lora("dog", KEY), lora("vangogh", OTHER), method="np")
    summary = pair.fuse(ByteLru(0)).summary
    assert pair.merges_plainly(summary)
    assert told(pair) == []
    assert not replace(pair, request=pair.request.with_method("blora")).merges_plainly(summary)
    assert not job(DOG, VANGOGH).merges_plainly(job(DOG, VANGOGH).fuse(ByteLru(0)).summary)


def test_what_weighs_nothing_is_no_plain_merge():
    """Unless there is nothing in common anyway."""
    for pair, plainly in (
        (job(lora("dog", KEY, OTHER), lora("vangogh", KEY), unet=0.0), False),
        (job(DOG, VANGOGH, unet=0.0), False),
        (job(lora("dog", KEY, OTHER), lora("vangogh", ModuleKey("third", "unet")), te=0.0), True),
    ):
        assert pair.merges_plainly(pair.fuse(ByteLru(0)).summary) == plainly


def test_what_is_told_anyway_is_not_remarked_on():
    apart = replace(VANGOGH, weights=LoraWeights("vangogh", "", {KEY: LowRankDelta(torch.ones(8, 2), ends())}))
    (remark,) = told(job(DOG, apart))
    assert remark.startswith("these LoRAs hardly overlap: mu=0.5 removes 0.")
    assert told(job(DOG, apart), removal_told=True) == []


def ends() -> torch.Tensor:
    """Two directions, hardly any of which the other LoRAs read."""
    down = torch.eye(64)[-2:].clone()
    down[0, 0] = 0.1
    return down


def test_the_walk_is_what_is_held_together():
    pair = job(lora("dog", KEY, OTHER), lora("vangogh", KEY))
    fused, walked = pair.fuse(ByteLru(0)), list(pair.walk(ByteLru(0)))
    assert [layer.key for layer in walked] == [*fused.deltas] == [KEY, OTHER]
    for layer in walked:
        assert torch.equal(layer.delta.dense(), fused.deltas[layer.key].dense())
    assert pair.summary(walked).layers == fused.summary.layers
    assert fused.fingerprint == pair.fingerprint
