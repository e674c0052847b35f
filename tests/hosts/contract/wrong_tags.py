"""What a user can get wrong."""

from __future__ import annotations

import shutil

import pytest

from ...reference.kohya import fused


class WrongTags:
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

    @pytest.mark.parametrize(
        ("prompt", "without"),
        [
            ("<nplora:dog:dog_again:hard>", ""),
            ("<lora:dog:1:role=content> <lora:dog_again:0.5:role=style>", "<lora:dog:1> <lora:dog_again:0.5>"),
        ],
    )
    def test_a_copy_under_another_name_is_no_second_lora(self, driver, loras, prompt, without):
        """As on the command line; ordinary tags are merged plainly, as they are without us."""
        copy = driver.lora_dir / "dog_again.safetensors"
        shutil.copy(loras.dog, copy)
        expected = driver.generate(f"a cat {without}").pixels
        picture = driver.generate(f"a cat {prompt}")
        copy.unlink()
        (comment,) = picture.comments
        assert "'dog' and 'dog_again' would be content and style at once (both are the same LoRA)" in comment
        assert picture.pixels == expected

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
