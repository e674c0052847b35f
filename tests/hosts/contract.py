"""What every host must give its users. Runs on the stand-ins in CI, and on the real hosts where they are.

The numbers in the names: 1 weights, 2 limits of mu, 3 spellings and neighbours, 4 reversibility, 5 kinds of job,
6 other callers, 7 no work twice, 8 infotext, 9 the panel, 10 plots, 11 settings, 12 methods that change with the steps,
13 the other methods.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from lib_nplora.maths.dense import DenseDelta
from lib_nplora.methods.table import METHODS, _thinned

from . import formats
from .driver import (
    Call,
    Driver,
    Factors,
    Module,
    content_inside_style,
    factors,
    fused,
    output_side,
    ties,
    winners,
    write_lora,
)

HARD = float("inf")
SWITCHES = int(os.environ.get("NPLORA_SWITCHES", "50"))
GAINS = (0.9, 1.1, 1.7, 0.7, 0.8, 1.2, 1.4)
"""Of the layers of a LoRA that is to lose them to another at different steps."""

KLORA = "a cat <nplora:knight:ink:method=klora>"
KINDS = ("lora", "dora", "dora_out", "loha", "loha_tucker", "lokr", "full", "norm", "glora", "ia3", "oft", "boft")


class Loras:
    """The files that the suite plays with, in the host's LoRA folder."""

    def __init__(self, driver: Driver) -> None:
        folder = driver.lora_dir
        modules = driver.modules
        unet_only = tuple(module for module in modules if module.name.startswith("lora_unet"))
        half = len(unet_only) // 2
        self.dog = write_lora(folder / "dog.safetensors", modules, seed=1, rank=4, alpha=2)
        self.vangogh = write_lora(folder / "vangogh.safetensors", modules, seed=2, rank=6)
        self.hat = write_lora(folder / "hat.safetensors", unet_only, seed=3, rank=2, alpha=1)
        self.odd = write_lora(folder / "Van Gogh, v1.5 (röt).safetensors", modules, seed=4, rank=3)
        self.aliased = write_lora(
            folder / "file_0007.safetensors", modules, seed=5, metadata={"ss_output_name": "My Alias"}
        )
        self.tucker = write_lora(folder / "tucker.safetensors", modules, seed=9, tucker=True)
        self.half_precision = write_lora(folder / "bf16.safetensors", modules, seed=10, dtype=torch.bfloat16)
        self.namesake = write_lora(folder / "nplora dog x vangogh.safetensors", unet_only, seed=11)
        self.first_half = write_lora(folder / "first.safetensors", unet_only[:half], seed=6)
        self.second_half = write_lora(folder / "second.safetensors", unet_only[half:], seed=7)
        self.knight = write_lora(folder / "knight.safetensors", modules, seed=40, gains=GAINS)
        self.ink = write_lora(folder / "ink.safetensors", modules, seed=41, rank=5)
        self.small_content = write_lora(folder / "small content.safetensors", _sample(driver), seed=42)
        self.small_style = write_lora(folder / "small style.safetensors", _sample(driver), seed=43)
        wider = tuple(type(m)(m.name, m.out, m.inp + 8, m.kernel) for m in modules)
        self.other_model = write_lora(folder / "sdxl_thing.safetensors", wider, seed=8)
        for seed, kind in enumerate(KINDS):
            formats.write(folder / f"{kind}.safetensors", kind, _sample(driver), driver.norms, seed=20 + seed)
        self.broken = folder / "broken.safetensors"
        self.broken.write_bytes(self.dog.read_bytes()[:-1000])


class HostContract:
    """Needs a fixture `driver` of class scope; `loras` and `plain` stand in tests/conftest.py."""

    @pytest.fixture
    def watching(self, driver) -> Iterator[Callable[..., None]]:
        """The driver's `watch`, which ends with the test."""
        yield driver.watch
        driver.watch({})

    # 1: weights

    @pytest.mark.parametrize(
        ("tag", "options"),
        [
            ("<nplora:dog:vangogh>", {"mu": 0.5}),
            ("<nplora:dog:vangogh:0.5>", {"mu": 0.5}),
            ("<nplora:dog:vangogh:hard>", {"mu": HARD}),
            ("<nplora:dog:vangogh:10:c=0.7:s=-1.2>", {"mu": 10, "c": 0.7, "s": -1.2}),
            ("<nplora:dog:vangogh:1:te=0.3:unet=0.8>", {"mu": 1, "te": 0.3, "unet": 0.8}),
            ("<nplora:dog:vangogh:hard:k=2>", {"mu": HARD, "k": 2}),
        ],
    )
    def test_1_every_layer_holds_the_fusion(self, driver, loras, plain, tag, options):
        picture = driver.generate(f"a cat {tag}")
        assert picture.pixels != plain
        found = driver.compare(fused(loras.dog, loras.vangogh, **options))
        assert found.unet < 1e-4
        assert found.te < 1e-4
        assert found.outside == 0

    @pytest.mark.parametrize(
        ("tag", "content", "style"),
        [
            ("<nplora:tucker:vangogh:1>", "tucker", "vangogh"),
            ("<nplora:dog:tucker:1>", "dog", "tucker"),
            ("<nplora:bf16:vangogh:1>", "half_precision", "vangogh"),
        ],
    )
    def test_1_convolutions_with_a_core_and_other_number_formats(self, driver, loras, tag, content, style):
        driver.generate(f"a cat {tag}")
        found = driver.compare(fused(getattr(loras, content), getattr(loras, style), 1))
        assert found.worst < 1e-4
        assert found.outside == 0

    # 2: the limits of mu

    def test_2_mu_0_is_two_ordinary_tags(self, driver, loras):
        driver.generate("a cat <lora:dog:1><lora:vangogh:1>")
        merged = {name: driver.delta(name) for name in _some(driver)}
        driver.generate("a cat <nplora:dog:vangogh:0>")
        for name, expected in merged.items():
            error = ((driver.delta(name) - expected) ** 2).sum() / (expected**2).sum()
            print(name, error**0.5)
            assert error**0.5 < 1e-5, name
        assert driver.compare(fused(loras.dog, loras.vangogh, 0)).worst < 1e-5

    def test_2_direct_is_mu_0_whatever_mu(self, driver, loras):
        driver.generate("a cat <nplora:dog:vangogh:7:method=direct>")
        assert driver.compare(fused(loras.dog, loras.vangogh, 0)).worst < 1e-5

    def test_2_hard_leaves_the_content_nothing_inside_the_style(self, driver, loras):
        driver.generate("a cat <nplora:dog:vangogh:hard>")
        contents, styles = factors(loras.dog), factors(loras.vangogh)
        left = {n: content_inside_style(driver.delta(n), contents[n], styles[n]) for n in _some(driver)}
        print("content left inside the style:", max(left.values()))
        assert max(left.values()) < 1e-5, left

    # 3: kinds of LoRA

    @pytest.mark.parametrize("kind", KINDS)
    def test_3_any_kind_is_what_the_host_makes_of_it(self, driver, loras, kind):
        """As content and as style. The host's tags in the order in which each LoRA meets the original weights."""
        if kind not in driver.kinds:
            (comment,) = driver.generate(f"a cat <nplora:{kind}:vangogh:1>").comments
            assert "in a format that this WebUI does not read" in comment
            return
        names = [m.name for m in (driver.norms if kind == "norm" else _sample(driver))]
        partner = {name: up @ down for name, (up, down) in factors(loras.vangogh).items() if name in names}

        def measured(tags: str) -> dict[tuple[str, str], np.ndarray]:
            picture = driver.generate(f"a cat {tags}")
            expected = ("hardly overlap", "of all directions", "norms and biases", "no layer in common")
            assert all(any(part in comment for part in expected) for comment in picture.comments), picture.comments
            found = {(name, "weight"): driver.delta(name) for name in names}
            if kind in ("full", "norm"):
                found |= {(name, "bias"): driver.delta(name, "bias") for name in names if formats.has_bias(name)}
            return found

        alone = measured(f"<lora:{kind}:1>")
        both = measured(f"<lora:{kind}:1><lora:vangogh:1>")
        worst = {}
        for role, tag in (("content", f"{kind}:vangogh"), ("style", f"vangogh:{kind}")):
            plain = measured(f"<nplora:{tag}:0>")
            worst[role] = max(_error(plain[key], both[key]) for key in both)
            projected = measured(f"<nplora:{tag}:1>")
            for (name, what), own in alone.items():
                other = partner.get(name) if what == "weight" else None
                if other is None or kind == "norm":
                    expected = own
                else:
                    content, style = (own, other) if role == "content" else (other, own)
                    expected = style + content - 0.5 * _inside(content, style)
                assert _error(projected[name, what], expected) < 1e-4, (role, name, what)
        errors = ", ".join(f"as {role} {error:.1e}" for role, error in worst.items())
        print(f"{kind}: mu=0 against the host's own two tags: {errors}")
        assert max(worst.values()) < 1e-5

    # 3: spellings and neighbours

    @pytest.mark.parametrize(
        "prompt",
        [
            "a cat <lora:hat:0.5> <nplora:dog:vangogh:0.5>",
            "a cat <nplora:dog:vangogh:0.5> <lora:hat:0.5>",
            "<lora:hat:0.5> a cat <lora:dog:1:role=content> <lora:vangogh:1:role=style:mu=0.5>",
            "a cat <lora:vangogh:1:role=style> <lora:hat:0.5> <lora:dog:1:role=content:mu=0.5>",
        ],
    )
    def test_3_ordinary_tags_work_beside_it(self, driver, loras, prompt):
        driver.generate(prompt)
        expected = fused(loras.dog, loras.vangogh, 0.5)
        for name, (up, down) in factors(loras.hat).items():
            expected[name] = _sum(expected[name], (0.5 * up, down))
        found = driver.compare(expected)
        assert found.worst < 1e-4
        assert found.outside == 0

    def test_3_a_lora_that_is_added_twice_is_said_to_be(self, driver, loras):
        twice = "'{}' has an ordinary <lora:...> tag, too, so it is added twice"
        said = " ".join(driver.generate("a cat <nplora:file_0007:vangogh:1> <lora:My Alias:1> <lora:hat:1>").comments)
        assert twice.format("My Alias") in said
        assert twice.format("hat") not in said
        roles = "<lora:dog:1:role=content> <lora:vangogh:1:role=style>"
        assert "twice" not in " ".join(driver.generate(f"a cat {roles}").comments)

    def test_3_a_lora_with_our_name_is_the_users(self, driver, loras):
        driver.generate("a cat <lora:nplora dog x vangogh:1>")
        assert driver.compare(factors(loras.namesake)).worst < 1e-4

    def test_3_roles_take_the_weights_of_their_tags(self, driver, loras):
        driver.generate("a cat <lora:dog:0.7:role=content:mu=2> <lora:vangogh:0.4:role=style>")
        assert driver.compare(fused(loras.dog, loras.vangogh, 2, c=0.7, s=0.4)).worst < 1e-4

    def test_3_odd_names_and_aliases(self, driver, loras):
        driver.generate("a cat <nplora:Van Gogh, v1.5 (röt):My Alias:1>")
        assert driver.compare(fused(loras.odd, loras.aliased, 1)).worst < 1e-4
        driver.generate("a cat <nplora:Van Gogh, v1.5 (röt):file_0007:1>")
        assert driver.compare(fused(loras.odd, loras.aliased, 1)).worst < 1e-4

    def test_3_two_fusions_add_up(self, driver, loras):
        driver.generate("a cat <nplora:dog:vangogh:0.5> <nplora:hat:vangogh:hard:s=0>")
        first, second = fused(loras.dog, loras.vangogh, 0.5), fused(loras.hat, loras.vangogh, HARD, s=0)
        assert driver.compare({name: _sum(first[name], second[name]) for name in first}).worst < 1e-4

    def test_3_layers_of_one_lora_only_are_added_as_they_are(self, driver, loras):
        picture = driver.generate("a cat <nplora:first:second:hard>")
        assert driver.compare(fused(loras.first_half, loras.second_half, HARD)).worst < 1e-4
        (comment,) = picture.comments
        assert "no layer in common" in comment

    # what a user can get wrong

    @pytest.mark.parametrize(
        ("tag", "reasons"),
        [
            ("<nplora:dog:vangog:0.5>", ["no LoRA called 'vangog'", "Did you mean 'vangogh'?"]),
            ("<nplora:dog>", ["the style is missing", "<nplora:dog:style>"]),
            ("<nplora:dog:vangogh:-1>", ["mu=-1 is negative"]),
            ("<nplora:dog:vangogh:nan>", ["mu=nan is not a finite number"]),
            ("<nplora:dog:vangogh:0.5:metod=np>", ["unknown key 'metod'", "Did you mean 'method'?"]),
            ("<nplora:dog:vangogh:0.5:method=nq>", ["no method 'nq'", "Known: np, hard, direct, klora"]),
            ("<nplora:dog:dog:0.5>", ["'dog' would be content and style at once"]),
            ("<nplora:file_0007:My Alias>", ["'file_0007' and 'My Alias' would be content and style at once"]),
            ("<nplora:dog:sdxl_thing:0.5>", ["'sdxl_thing'", "another model"]),
            ("<nplora:dog:broken:0.5>", ["'broken' cannot be read"]),
        ],
    )
    def test_a_wrong_tag_says_why_and_changes_nothing(self, driver, loras, plain, tag, reasons):
        picture = driver.generate(f"a cat {tag}")
        (comment,) = picture.comments
        assert tag in comment
        for reason in reasons:
            assert reason in comment
        assert picture.pixels == plain
        assert driver.compare({}).outside == 0

    def test_a_wrong_tag_leaves_the_others_alone(self, driver, loras):
        alone = driver.generate("a cat <lora:hat:0.5>")
        picture = driver.generate("a cat <nplora:dog:nobody> <lora:hat:0.5>")
        assert len(picture.comments) == 1
        assert picture.pixels == alone.pixels
        picture = driver.generate("a cat <nplora:dog:nobody> <nplora:dog:vangogh:1>")
        assert driver.compare(fused(loras.dog, loras.vangogh, 1)).worst < 1e-4

    @pytest.mark.parametrize(
        ("roles", "reason"),
        [
            ("<lora:dog:0.8:role=content>", "no LoRA has role=style"),
            ("<lora:dog:0.8:role=stile>", "no role 'stile'"),
        ],
    )
    def test_a_role_without_its_partner_is_an_ordinary_tag(self, driver, loras, roles, reason):
        picture = driver.generate(f"a cat {roles}")
        assert reason in picture.comments[0]
        assert roles in picture.comments[0]
        assert picture.pixels == driver.generate("a cat <lora:dog:0.8>").pixels

    # 4: reversibility

    def test_4_a_b_a_gives_the_same_pixels(self, driver, loras):
        first = driver.generate("a cat <nplora:dog:vangogh:0.5>").pixels
        assert driver.generate("a cat <nplora:dog:vangogh:hard>").pixels != first
        assert driver.generate("a cat <nplora:dog:vangogh:0.5>").pixels == first

    def test_4_removed_is_never_there(self, driver, loras, plain):
        driver.generate("a cat")
        before = driver.fingerprint()
        driver.generate("a cat <nplora:dog:vangogh:0.5>")
        assert driver.fingerprint() != before
        picture = driver.generate("a cat")
        assert picture.pixels == plain
        assert picture.comments == ()
        assert driver.fingerprint() == before

    def test_4_many_switches_leave_no_drift(self, driver, loras, plain):
        prompts = {
            "a cat": plain,
            "a cat <nplora:dog:vangogh:0.5>": None,
            "a cat <nplora:dog:vangogh:hard> <lora:hat:1>": None,
            "a cat <lora:dog:1> <nplora:hat:vangogh:2:k=1>": None,
            "a cat <lora:hat:1>": None,
            "a cat <nplora:dog:nobody>": plain,
        }
        rng = random.Random(0)
        for prompt in rng.choices(list(prompts), k=SWITCHES):
            pixels = driver.generate(prompt).pixels
            assert pixels == (prompts[prompt] or pixels), prompt
            prompts[prompt] = pixels
        driver.generate("a cat")
        assert driver.compare({}).outside == 0

    # 5: kinds of job

    def test_5_batches(self, driver, loras):
        tag = "a cat <nplora:dog:vangogh:0.5>"
        pixels = driver.generate(tag, batch_size=2, n_iter=2).pixels
        assert driver.compare(fused(loras.dog, loras.vangogh, 0.5)).worst < 1e-4
        assert len(set(pixels)) == 4
        assert driver.generate(tag, batch_size=2, n_iter=2).pixels == pixels

    def test_5_hires_with_the_same_tag(self, driver, loras):
        tag = "a cat <nplora:dog:vangogh:0.5>"
        picture = driver.generate(tag, hr_prompt="")
        assert driver.compare(fused(loras.dog, loras.vangogh, 0.5)).worst < 1e-4
        assert picture.pixels == driver.generate(tag, hr_prompt=tag).pixels

    def test_5_hires_with_another_tag(self, driver, loras):
        first = driver.generate("a cat <nplora:dog:vangogh:0.5>", hr_prompt="a cat <nplora:dog:vangogh:hard>")
        assert driver.compare(fused(loras.dog, loras.vangogh, HARD)).worst < 1e-4
        same = driver.generate("a cat <nplora:dog:vangogh:0.5>", hr_prompt="")
        again = driver.generate("a cat <nplora:dog:vangogh:0.5>", hr_prompt="a cat <nplora:dog:vangogh:hard>")
        assert first.pixels == again.pixels != same.pixels

    def test_5_hires_with_a_tag_in_one_pass_only(self, driver, loras, plain):
        first_only = driver.generate("a cat <nplora:dog:vangogh:0.5>", hr_prompt="a cat")
        assert driver.compare({}).outside == 0
        second_only = driver.generate("a cat", hr_prompt="a cat <nplora:dog:vangogh:0.5>")
        assert driver.compare(fused(loras.dog, loras.vangogh, 0.5)).worst < 1e-4
        neither = driver.generate("a cat", hr_prompt="a cat")
        assert len({first_only.pixels, second_only.pixels, neither.pixels}) == 3
        assert driver.generate("a cat").pixels == plain

    def test_5_img2img(self, driver, loras):
        without = driver.generate("a cat", img2img=True)
        picture = driver.generate("a cat <nplora:dog:vangogh:0.5>", img2img=True)
        assert picture.pixels != without.pixels
        assert driver.compare(fused(loras.dog, loras.vangogh, 0.5)).worst < 1e-4

    def test_5_a_replaced_file_is_read_again(self, driver, loras, tmp_path):
        folder: Path = driver.lora_dir
        changing = folder / "changing.safetensors"
        shutil.copy(loras.dog, changing)
        before = driver.generate("a cat <nplora:changing:vangogh:0.5>")
        assert driver.compare(fused(loras.dog, loras.vangogh, 0.5)).worst < 1e-4
        os.replace(shutil.copy(loras.odd, tmp_path / "new.safetensors"), changing)
        after = driver.generate("a cat <nplora:changing:vangogh:0.5>")
        assert driver.compare(fused(loras.odd, loras.vangogh, 0.5)).worst < 1e-4
        assert after.pixels == driver.generate("a cat <nplora:Van Gogh, v1.5 (röt):vangogh:0.5>").pixels
        assert before.pixels != after.pixels
        assert _hashes(before) != _hashes(after)

    def test_5_a_file_that_appears_is_found(self, driver, loras, plain):
        late = driver.lora_dir / "late.safetensors"
        late.unlink(missing_ok=True)
        tag = "a cat <nplora:late:vangogh:0.5>"
        assert "no LoRA called 'late'" in driver.generate(tag).comments[0]
        shutil.copy(loras.dog, late)
        expected = driver.generate("a cat <nplora:dog:vangogh:0.5>").pixels
        assert driver.generate(tag).pixels == expected

    def test_5_a_checkpoint_switched_between_two_pictures(self, driver, loras):
        here = driver.generate("a cat <nplora:dog:vangogh:0.5>").pixels
        driver.switch_checkpoint()
        try:
            there_plain = driver.generate("a cat").pixels
            there = driver.generate("a cat <nplora:dog:vangogh:0.5>").pixels
            assert driver.compare(fused(loras.dog, loras.vangogh, 0.5)).worst < 1e-4
            assert len({here, there, there_plain}) == 3
        finally:
            driver.switch_checkpoint()
        assert driver.generate("a cat <nplora:dog:vangogh:0.5>").pixels == here

    # 6: other callers

    @pytest.mark.parametrize("scripts", ["none", "other"])
    def test_6_an_inner_pass_gets_the_fusion(self, driver, loras, scripts):
        tag = "a cat <nplora:dog:vangogh:0.5>"
        inner = driver.generate(tag, inner=(scripts, tag)).inner
        assert driver.compare(fused(loras.dog, loras.vangogh, 0.5)).worst < 1e-4
        assert inner == driver.generate("a cat", inner=(scripts, tag)).inner
        without = driver.generate(tag, inner=(scripts, "a cat")).inner
        assert driver.compare({}).outside == 0
        assert inner != without == driver.generate("a cat", inner=(scripts, "a cat")).inner

    def test_6_disable_extra_networks_gets_none(self, driver, loras, plain):
        """With other tags, because the hosts reuse what they encoded for the same ones, their own LoRAs' too."""
        driver.generate("a cat <nplora:dog:vangogh:0.5>")
        picture = driver.generate("a bird <nplora:dog:vangogh:0.6>", disable_extra_networks=True)
        assert driver.compare({}).outside == 0
        assert picture.pixels == driver.generate("a bird").pixels

    # 7: no work twice

    def test_7_another_mu_reads_and_decomposes_nothing(self, driver, loras):
        driver.generate("a cat <nplora:dog:vangogh:0.5>")
        before = dict(driver.counts())
        driver.generate("a cat <nplora:dog:vangogh:0.6>")
        driver.generate("a cat <nplora:dog:vangogh:hard:c=0.5:k=2>")
        assert dict(driver.counts()) == before
        assert before["loads"] > 0
        assert before["decompositions"] > 0

    def test_7_another_content_decomposes_nothing(self, driver, loras):
        driver.generate("a cat <nplora:dog:vangogh:0.5>")
        before = driver.counts()["decompositions"]
        driver.generate("a cat <nplora:hat:vangogh:0.5>")
        assert driver.counts()["decompositions"] == before

    # 8: infotext

    @pytest.mark.parametrize(
        "tags",
        [
            "<nplora:dog:vangogh:0.5:c=0.8>",
            "<lora:dog:0.8:role=content> <lora:vangogh:1:role=style:mu=0.5>",
        ],
    )
    def test_8_the_infotext_holds_the_tag_and_both_hashes(self, driver, loras, tags):
        picture = driver.generate(f"a cat {tags}")
        assert f"a cat {tags}" in picture.infotext
        assert set(_hashes(picture)) == {"dog", "vangogh"}
        assert _hashes(picture) == _hashes(driver.generate("a cat <lora:dog:1> <lora:vangogh:1>"))

    def test_8_nothing_of_ours_stands_in_other_pictures(self, driver, loras):
        infotext = driver.generate("a cat").infotext
        assert "nplora" not in infotext.lower()
        assert "Lora hashes" not in infotext

    # 9: the panel

    @pytest.mark.parametrize(
        ("panel", "tag"),
        [
            ([True, "dog", "vangogh"], "<nplora:dog:vangogh:0.5>"),
            (
                [True, "dog", "vangogh", 2, False, 0.8, 1.2, "2", "np", False],
                "<nplora:dog:vangogh:2:c=0.8:s=1.2:te=0:k=2>",
            ),
            ([{"content": "dog", "style": "vangogh", "mu": "hard"}], "<nplora:dog:vangogh:hard>"),
            ([{"content": "dog", "style": "vangogh", "method": "direct"}], "<nplora:dog:vangogh:0.5:method=direct>"),
        ],
    )
    def test_9_the_panel_is_its_tag(self, driver, loras, panel, tag):
        typed = driver.generate(f"a cat {tag}")
        picture = driver.generate("a cat", panel=panel)
        assert picture.pixels == typed.pixels
        assert picture.infotext.startswith(f"a cat {tag}\n")
        assert ", NP-LoRA: panel" in picture.infotext
        assert typed.infotext == picture.infotext.replace(", NP-LoRA: panel", "")

    def test_9_the_panel_off_is_not_there(self, driver, loras, plain):
        picture = driver.generate("a cat", panel=[False, "dog", "vangogh", 2])
        assert picture.pixels == plain
        assert picture.infotext == driver.generate("a cat").infotext

    def test_9_the_prompt_wins_over_the_panel(self, driver, loras):
        prompt = "a cat <nplora:dog:vangogh:2>"
        typed = driver.generate(prompt)
        picture = driver.generate(prompt, panel=[True, "dog", "vangogh", 0.1])
        assert picture.pixels == typed.pixels
        assert picture.infotext == typed.infotext
        (comment,) = set(picture.comments) - set(typed.comments)
        assert "the prompt's own tag for this pair is used, not the panel's: <nplora:dog:vangogh:2>" in comment

    def test_9_an_alias_is_the_same_pair(self, driver, loras):
        prompt = "a cat <nplora:My Alias:vangogh:2>"
        assert driver.generate(prompt, panel=[True, "file_0007", "vangogh"]).infotext.startswith(f"{prompt}\n")

    def test_9_the_panel_reaches_every_pass(self, driver, loras):
        panel = [True, "dog", "vangogh", 1]
        tag = "<nplora:dog:vangogh:1>"
        for options in ({"hr_prompt": ""}, {"hr_prompt": "a dog"}, {"batch_size": 2, "n_iter": 2}, {"img2img": True}):
            typed = {**options, **({"hr_prompt": f"a dog {tag}"} if options.get("hr_prompt") else {})}
            # An encoder of pictures may draw from the random state that the picture before left: this one is alike.
            driver.generate(f"a cat {tag}", **typed)
            expected = driver.generate(f"a cat {tag}", **typed).pixels
            assert driver.generate("a cat", panel=panel, **options).pixels == expected, options
        inner = driver.generate("a cat", panel=panel, inner=("none", f"a face {tag}")).inner
        assert inner == driver.generate(f"a cat {tag}", inner=("none", f"a face {tag}")).inner

    @pytest.mark.parametrize(
        ("panel", "reason"),
        [
            ([True, "dog", "vangog"], "Did you mean 'vangogh'?"),
            ([True], "choose a content LoRA and a style LoRA"),
            ([True, "dog", "vangogh", -1], "mu=-1 is negative"),
            ([{"contnet": "dog"}], "Did you mean 'content'?"),
        ],
    )
    def test_9_a_wrong_panel_says_why_and_changes_nothing(self, driver, loras, plain, panel, reason):
        picture = driver.generate("a cat", panel=panel)
        assert picture.pixels == plain
        assert reason in " ".join(picture.comments)

    # 10: plots

    def test_10_each_cell_is_its_tag(self, driver, loras):
        mus, methods = ("0", "0.1", "0.5", "1", "10", "hard"), ("np", "direct")
        cells = driver.sweep(
            "a cat", [("[NP-LoRA] mu", mus), ("[NP-LoRA] method", methods)], panel=[True, "dog", "vangogh"]
        )
        tags = [
            f"<nplora:dog:vangogh:{mu}{'' if method == 'np' else ':method=direct'}>" for method in methods for mu in mus
        ]
        assert len(cells) == len(tags)
        for cell, tag in zip(cells, tags):
            assert cell.infotext.startswith(f"a cat {tag}\n"), cell.infotext
            assert cell.pixels == driver.generate(f"a cat {tag}").pixels, tag

    def test_10_a_plot_varies_the_tag_of_the_prompt(self, driver, loras):
        cells = driver.sweep(
            "a <nplora:dog:vangogh:2> cat",
            [("[NP-LoRA] content weight", ("0.5", "1")), ("[NP-LoRA] style", ("vangogh", "tucker"))],
        )
        tags = [f"<nplora:dog:{style}:2{c}>" for style in ("vangogh", "tucker") for c in (":c=0.5", "")]
        for cell, tag in zip(cells, tags, strict=True):
            assert cell.infotext.startswith(f"a {tag} cat\n")
            assert cell.pixels == driver.generate(f"a {tag} cat").pixels, tag

    def test_10_a_sweep_of_mu_reads_and_decomposes_once(self, driver, loras):
        """Whatever axis the pair stands on: mu is varied innermost."""
        pairs = 2
        write_lora(driver.lora_dir / "fresh.safetensors", driver.modules, seed=30, rank=4)
        write_lora(driver.lora_dir / "fresh style.safetensors", driver.modules, seed=31, rank=4)
        write_lora(driver.lora_dir / "fresh style 2.safetensors", driver.modules, seed=32, rank=4)
        before = dict(driver.counts())
        driver.sweep(
            "a cat <nplora:fresh:fresh style:1>",
            [
                ("[NP-LoRA] style", ("fresh style", "fresh style 2")),
                ("[NP-LoRA] mu", ("0", "0.1", "0.5", "1", "10", "hard")),
            ],
        )
        counts = {name: driver.counts()[name] - before.get(name, 0) for name in ("loads", "decompositions")}
        assert counts == {"loads": 1 + pairs, "decompositions": pairs * len(driver.modules)}

    def test_10_a_plot_without_a_fusion_changes_nothing(self, driver, loras, plain):
        for cell in driver.sweep("a cat", [("[NP-LoRA] mu", ("0", "1"))]):
            assert cell.pixels == plain

    # 11: settings

    def test_11_a_picture_can_be_refused(self, driver, loras, plain):
        driver.set_option("nplora_on_error", "Stop, without a picture")
        try:
            for prompt, panel in (("a cat <nplora:dog:vangog>", None), ("a cat", [True, "dog"])):
                with pytest.raises(Exception, match="NP-LoRA: "):
                    driver.generate(prompt, panel=panel)
            assert driver.generate("a cat").pixels == plain
        finally:
            driver.set_option("nplora_on_error", "Say so under the picture")

    # 12: methods that change with the steps

    @pytest.mark.parametrize("steps", [6, 30])
    @pytest.mark.parametrize("method", ["klora", "klora*", "fixed"])
    def test_12_each_layer_is_its_winners_at_each_step(self, driver, loras, watching, method, steps):
        expected = winners(loras.knight, loras.ink, method, steps)
        if method != "fixed":
            print(f"{len(expected)} layers:", *sorted(set(expected.values())))
            assert len(set(expected.values())) >= 3
        watching(_sides(loras.knight, loras.ink, expected))
        picture = driver.generate(f"a cat <nplora:knight:ink:method={method}>", steps=steps)
        assert picture.comments == ()
        assert _schedules(driver.seen(), steps) == [expected]
        found = driver.compare(_standing(loras, expected))
        assert found.worst < 1e-4
        assert found.outside == 0

    def test_12_weights_and_options_count(self, driver, loras, watching):
        """Louder layers win no more, as gamma weighs that out: but the scale and the strengths are as asked."""
        expected = winners(loras.knight, loras.ink, "klora", 6, alpha=1.0, beta=0.8)
        assert expected != winners(loras.knight, loras.ink, "klora", 6)
        watching(_sides(loras.knight, loras.ink, expected, c=0.5 * 0.8, s=-1.2 * 0.8))
        driver.generate("a cat <nplora:knight:ink:method=klora:alpha=1:beta=0.8:c=0.5:s=-1.2:unet=0.8>", steps=6)
        assert _schedules(driver.seen(), 6) == [expected]

    def test_12_switch_takes_turns_in_all_layers(self, driver, loras, watching):
        """Those that only one of the LoRAs holds take turns with nothing."""
        contents, styles = factors(loras.first_half), factors(loras.ink)
        names = [name for name in styles if name.startswith("lora_unet")]
        watching({"c": {n: contents.get(n, _nothing(styles[n])) for n in names}, "s": {n: styles[n] for n in names}})
        driver.generate("a cat <nplora:first:ink:method=switch>", steps=6)
        assert _schedules(driver.seen(), 6) == [dict.fromkeys(names, "cscscs")]
        text = {name: update for name, update in styles.items() if name not in names}
        found = driver.compare({**text, **{name: styles[name] for name in names}})
        assert found.worst < 1e-4
        assert found.outside == 0

    def test_12_two_calls_a_step(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(_sides(loras.knight, loras.ink, expected))
        driver.generate(KLORA, steps=6, sampler="Heun")
        calls = driver.seen()
        assert [(call.number, call.planned, call.steps) for call in calls] == [(i, 12, 6) for i in range(11)]
        letters = {name: "".join(2 * letter for letter in won)[:11] for name, won in expected.items()}
        assert _letters(calls) == letters

    def test_12_the_second_picture_is_the_first(self, driver, loras, plain):
        driver.generate("a cat")
        before = driver.fingerprint()
        first = driver.generate(KLORA, steps=6)
        without = driver.generate("a cat", steps=6)
        assert first.pixels != without.pixels
        assert driver.fingerprint() == before
        assert len({first.pixels, driver.generate(KLORA.replace("klora", "klora*"), steps=6).pixels}) == 2
        assert driver.generate(KLORA, steps=6) == first
        assert driver.generate(KLORA, steps=6) == first
        for other in ("<nplora:knight:ink:0.5>", "<nplora:dog:vangogh>", "<lora:knight:1>", "<lora:hat:1>", ""):
            driver.generate(f"a cat {other}")
            assert driver.generate(KLORA, steps=6).pixels == first.pixels, other
        assert driver.generate("a cat").pixels == plain
        assert driver.fingerprint() == before

    def test_12_other_steps_in_between(self, driver, loras, watching):
        """A picture that ended at another winner than it began with leaves nothing for the next."""
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(_sides(loras.knight, loras.ink, expected))
        for steps in (6, 1, 6, 3):
            driver.generate(KLORA, steps=steps)
            assert _schedules(driver.seen(), steps) == [winners(loras.knight, loras.ink, "klora", steps)]

    def test_12_hires_has_a_schedule_of_its_own(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(_sides(loras.knight, loras.ink, expected))
        picture = driver.generate(KLORA, steps=6, hr_prompt="")
        assert _schedules(driver.seen(), 6) == [expected, expected]
        assert driver.generate(KLORA, steps=6, hr_prompt=KLORA).pixels == picture.pixels

    def test_12_hires_in_one_pass_only(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(_sides(loras.knight, loras.ink, expected, neither=True))
        neither = dict.fromkeys(expected, "-" * 6)
        driver.generate(KLORA, steps=6, hr_prompt="a cat")
        assert _schedules(driver.seen(), 6) == [expected, neither]
        driver.generate("a cat", steps=6, hr_prompt=KLORA)
        assert _schedules(driver.seen(), 6) == [neither, expected]

    @pytest.mark.parametrize("other", ["a cat <lora:hat:1>", "a cat <nplora:dog:vangogh>"])
    def test_12_another_hires_prompt_encoded_in_between(self, driver, loras, watching, other):
        """The pass after next may find weights at the last winners, put there under the same names."""
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(_sides(loras.knight, loras.ink, expected))
        driver.generate(KLORA, steps=6)
        driver.generate(KLORA, steps=6, hr_prompt=other)
        first, _ = _passes(driver.seen())
        assert _letters(first) == expected

    def test_12_img2img_counts_the_steps_that_it_makes(self, driver, loras, watching):
        watching(_sides(loras.knight, loras.ink, winners(loras.knight, loras.ink, "klora", 1)))
        driver.generate(KLORA, steps=12, img2img=True)
        steps = driver.seen()[0].steps
        assert 6 < steps < 12
        assert _schedules(driver.seen(), steps) == [winners(loras.knight, loras.ink, "klora", steps)]

    def test_12_batches_begin_anew(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(_sides(loras.knight, loras.ink, expected))
        pixels = driver.generate(KLORA, steps=6, batch_size=2, n_iter=2).pixels
        assert _schedules(driver.seen(), 6) == [expected, expected]
        assert len(set(pixels)) == 4

    def test_12_what_follows_a_skipped_picture_begins_anew(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        watching(_sides(loras.knight, loras.ink, expected))
        driver.generate(KLORA, steps=6, n_iter=2, stop=("skipped", 3))
        skipped, following = _passes(driver.seen())
        assert _letters(skipped) == {name: letters[:4] for name, letters in expected.items()}
        assert _letters(following) == expected

    @pytest.mark.parametrize("scripts", ["none", "other"])
    def test_12_an_inner_pass_has_a_schedule_of_its_own(self, driver, loras, watching, scripts):
        watching(_sides(loras.knight, loras.ink, winners(loras.knight, loras.ink, "klora", 1)))
        inner = driver.generate(KLORA, steps=6, inner=(scripts, KLORA)).inner
        outer, within = _passes(driver.seen())
        assert _letters(outer) == winners(loras.knight, loras.ink, "klora", 6)
        assert _letters(within) == winners(loras.knight, loras.ink, "klora", within[0].steps)
        assert inner == driver.generate("a cat", inner=(scripts, KLORA)).inner

    @pytest.mark.parametrize("how", ["interrupted", "skipped", "fail"])
    def test_12_an_end_in_mid_picture_leaves_nothing(self, driver, loras, plain, how):
        driver.generate("a cat")
        before = driver.fingerprint()
        first = driver.generate(KLORA, steps=6).pixels
        for tag in ("a cat", KLORA):
            for call in (0, 3):
                if how == "fail":
                    with pytest.raises(Exception, match="the test fails here"):
                        driver.generate(KLORA, steps=6, stop=(how, call))
                else:
                    assert driver.generate(KLORA, steps=6, stop=(how, call)).pixels != first
                if tag == KLORA:
                    assert driver.generate(KLORA, steps=6).pixels == first
                assert driver.generate("a cat").pixels == plain
                assert driver.fingerprint() == before

    def test_12_a_checkpoint_switched_after_it(self, driver, loras, plain):
        first = driver.generate(KLORA, steps=6).pixels
        driver.switch_checkpoint()
        try:
            without = driver.generate("a cat").pixels
            assert driver.compare({}).outside == 0
            there = driver.generate(KLORA, steps=6).pixels
            assert there == driver.generate(KLORA, steps=6).pixels != first
            assert driver.generate("a cat").pixels == without
            assert driver.compare({}).outside == 0
        finally:
            driver.switch_checkpoint()
        assert driver.generate("a cat").pixels == plain
        assert driver.generate(KLORA, steps=6).pixels == first

    def test_12_an_ordinary_tag_beside_it(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        hat = {name: (0.5 * up, down) for name, (up, down) in factors(loras.hat).items()}
        sides = _sides(loras.knight, loras.ink, expected)
        watching({side: {n: _sum(update, hat[n]) for n, update in at.items()} for side, at in sides.items()})
        for prompt in (f"{KLORA} <lora:hat:0.5>", f"<lora:hat:0.5> {KLORA}"):
            driver.generate(prompt, steps=6)
            assert _schedules(driver.seen(), 6) == [expected], prompt

    def test_12_two_of_them(self, driver, loras, watching):
        pairs = (loras.knight, loras.ink), (loras.ink, loras.dog)
        one, other = (winners(*pair, "klora", 6) for pair in pairs)
        first, second = (_sides(*pair, one) for pair in pairs)
        watching({a + b: {n: _sum(first[a][n], second[b][n]) for n in one} for a in "cs" for b in "cs"})
        driver.generate(f"{KLORA} <nplora:ink:dog:method=klora>", steps=6)
        found = {name: [call.labels[name] for call in driver.seen()] for name in one}
        assert found == {name: [a + b for a, b in zip(one[name], other[name])] for name in one}

    def test_12_beside_another_method(self, driver, loras, watching):
        expected = winners(loras.knight, loras.ink, "klora", 6)
        beside = fused(loras.dog, loras.vangogh, 0.5)
        sides = _sides(loras.knight, loras.ink, expected)
        watching({side: {n: _sum(update, beside[n]) for n, update in at.items()} for side, at in sides.items()})
        driver.generate(f"<nplora:dog:vangogh:0.5> {KLORA}", steps=6)
        assert _schedules(driver.seen(), 6) == [expected]

    # 13: the other methods

    def test_13_hard_reverse_and_the_output_side(self, driver, loras):
        for tag, expected in (
            ("<nplora:dog:vangogh:method=hard>", fused(loras.dog, loras.vangogh, HARD)),
            ("<nplora:dog:vangogh:2:method=reverse>", fused(loras.vangogh, loras.dog, 2)),
            ("<nplora:dog:vangogh:2:method=uspace>", output_side(loras.dog, loras.vangogh, 2)),
        ):
            driver.generate(f"a cat {tag}")
            found = driver.compare(expected)
            assert found.worst < 1e-4, tag
            assert found.outside == 0

    @pytest.mark.parametrize("density", [None, 0.5])
    def test_13_ties(self, driver, loras, density):
        contents, styles = _dense(loras.small_content), _dense(loras.small_style)
        option = "" if density is None else f":density={density}"
        driver.generate(f"a cat <nplora:small content:small style:method=ties{option}:c=0.8>")
        for name, content in contents.items():
            expected = ties(0.8 * content, styles[name], density or 0.2)
            known = np.isfinite(expected)
            assert known.mean() > 0.99
            assert _error(driver.delta(name)[known], expected[known]) < 1e-4, name
        assert driver.compare(factors(loras.small_content)).outside == 0

    def test_13_dare(self, driver, loras):
        """By the mask that the method makes of its seed."""
        contents, styles = _dense(loras.small_content), _dense(loras.small_style)
        for seed in (0, 7):
            settings = METHODS["dare"].settings(0.5, density=0.4, seed=seed)
            tag = f"<nplora:small content:small style:method=dare:density=0.4:seed={seed}>"
            assert f"NP-LoRA random seed: {seed}" in driver.generate(f"a cat {tag}").infotext
            for name, content in contents.items():
                ones = DenseDelta(torch.ones(content.shape), content.shape)
                masks = [_thinned(ones, settings, place).matrix.double().numpy() for place in (0, 1)]
                assert {0.0, 2.5} == set(np.unique(masks).round(5))
                expected = content * masks[0] + styles[name] * masks[1]
                assert _error(driver.delta(name), expected) < 1e-4, (seed, name)
        assert driver.compare(factors(loras.small_content)).outside == 0
        assert "random seed" not in driver.generate("a cat <nplora:small content:small style:method=ties>").infotext

    def test_13_blocks_of_another_model_are_refused(self, driver, loras, plain):
        picture = driver.generate("a cat <nplora:dog:vangogh:method=blora>")
        (comment,) = picture.comments
        assert "takes the content from one block of SDXL, and 'dog' has no layer there" in comment
        assert picture.pixels == plain

    def test_13_each_method_comes_and_goes(self, driver, loras, plain):
        pixels = {}
        for method in METHODS:
            tag = f"<nplora:small content:small style:method={method}>"
            pixels[method] = driver.generate(f"a cat {tag}").pixels
            assert driver.generate("a cat").pixels == plain, method
        assert driver.compare({}).outside == 0
        assert pixels.pop("blora") == plain
        assert plain not in pixels.values()


def _some(driver: Driver) -> list[str]:
    """Names of layers of every kind and part, few enough to be fetched one by one."""
    names = [module.name for module in driver.modules]
    return names[:: max(1, len(names) // 12)]


def _sample(driver: Driver) -> tuple[Module, ...]:
    """A small layer of every part, kernel and proportion."""

    def kind(module: Module) -> tuple[str, int, bool, bool]:
        return module.name[:7], module.kernel, module.out > module.inp, module.out < module.inp

    largest_first = sorted(driver.modules, key=lambda module: -module.out * module.inp)
    return tuple({kind(module): module for module in largest_first}.values())


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative, in the Frobenius norm."""
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-12))


def _inside(content: np.ndarray, style: np.ndarray) -> np.ndarray:
    """What of the content lies along the style's directions, as many as hold all but 1e-6 of its energy."""
    style = np.asarray(style, dtype=np.float64)
    wide = style.shape[0] < style.shape[1]
    energies, vectors = np.linalg.eigh(style @ style.T if wide else style.T @ style)
    kept = np.cumsum(energies) > 1e-6 * energies.sum()
    v = style.T @ vectors[:, kept] / np.sqrt(energies[kept]) if wide else vectors[:, kept]
    return content @ v @ v.T


def _sum(*parts):
    return np.concatenate([up for up, _ in parts], axis=1), np.concatenate([down for _, down in parts])


def _hashes(picture) -> dict[str, str]:
    _, found, rest = picture.infotext.partition('Lora hashes: "')
    assert found, picture.infotext
    return dict(pair.split(": ") for pair in rest.split('"')[0].split(", "))


def _sides(
    content: Path, style: Path, names: Iterable[str], *, c: float = 1.0, s: float = 1.0, neither: bool = False
) -> dict[str, dict[str, Factors]]:
    """What these layers hold while the content wins, and while the style does, and if nothing is applied."""
    sides = {}
    for side, path, weight in (("c", content, c), ("s", style, s)):
        updates = factors(path)
        sides[side] = {name: (weight * updates[name][0], updates[name][1]) for name in names}
    if neither:
        sides["-"] = {name: _nothing(update) for name, update in sides["c"].items()}
    return sides


def _nothing(update: Factors) -> Factors:
    return 0 * update[0][:, :1], update[1][:1]


def _standing(loras: Loras, expected: Mapping[str, str]) -> dict[str, Factors]:
    """All layers after the last step: the contested ones their winner's, the others the plain sum."""
    sides = {"c": factors(loras.knight), "s": factors(loras.ink)}
    plain = fused(loras.knight, loras.ink, 0)
    return {**plain, **{name: sides[letters[-1]][name] for name, letters in expected.items()}}


def _passes(calls: Sequence[Call]) -> list[list[Call]]:
    """The calls of each time that a sampler ran."""
    passes: list[list[Call]] = []
    for call in calls:
        if call.number == 0:
            passes.append([])
        passes[-1].append(call)
    return passes


def _letters(calls: Sequence[Call]) -> dict[str, str]:
    """By layer, the label at each call."""
    print(f"{len(calls)} calls, worst relative error {max(call.error for call in calls):.1e}")
    return {name: "".join(call.labels[name] for call in calls) for name in calls[0].labels}


def _schedules(calls: Sequence[Call], steps: int) -> list[dict[str, str]]:
    """By pass and layer, the label at each of so many steps."""
    passes = _passes(calls)
    assert [[(call.number, call.steps) for call in one] for one in passes] == [
        [(i, steps) for i in range(steps)] for _ in passes
    ]
    return [_letters(one) for one in passes]


def _dense(path: Path) -> dict[str, np.ndarray]:
    return {name: up @ down for name, (up, down) in factors(path).items()}
