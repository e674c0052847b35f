"""16: what is said of a picture, to whoever asked for it."""

from __future__ import annotations

import re
import shutil

import pytest

from ...reference.kohya import factors, fused
from ...reference.matrices import added
from .loras import HARD

SAID = "NP-LoRA comment"


class Said:
    def test_16_a_reason_reaches_programs_and_the_log(self, driver, loras):
        tag = "<nplora:dog:vangog>"
        reason = f"{tag}: there is no LoRA called 'vangog'. Did you mean 'vangogh'?"
        picture = driver.generate(f"a cat {tag}", hr_prompt="", n_iter=2)
        assert picture.comments == (f"NP-LoRA: {reason}",)
        assert picture.params[SAID] == reason
        assert f'{SAID}: "{reason}"' in picture.infotext
        assert driver.logged().count(reason) == 1

    def test_16_each_reason_is_a_line(self, driver, loras):
        tags = ("<nplora:dog>", "<nplora:dog:vangogh:-1>")
        said = driver.generate(f"a cat {' '.join(tags)}").params[SAID]
        assert [line.partition(": ")[0] for line in said.splitlines()] == list(tags)

    def test_16_a_panel_that_says_nothing_is_told_to_programs(self, driver, loras):
        picture = driver.generate("a cat", panel=[True, "dog"])
        assert picture.params[SAID] == "choose a content LoRA and a style LoRA"
        assert driver.logged().count("choose a content LoRA") == 1

    def test_16_nothing_is_said_of_the_next_picture(self, driver, loras):
        driver.generate("a cat <nplora:dog>")
        picture = driver.generate("a cat")
        assert SAID not in picture.params
        assert SAID not in picture.infotext
        assert "NP-LoRA" not in driver.logged()

    def test_16_each_cell_of_a_plot_says_its_own(self, driver, loras):
        reason = "takes the content from one block of SDXL, and 'dog' has no layer there"
        axes = [("[NP-LoRA] method", ("np", "blora", "direct"))]
        said = [reason in cell.infotext for cell in driver.sweep("a cat <nplora:dog:vangogh:1>", axes)]
        assert said == [False, True, False]
        assert driver.logged().count(reason) == 1

    def test_16_a_cell_says_what_its_method_does_not_read(self, driver, loras):
        axes = [("[NP-LoRA] mu", ("0.1", "2")), ("[NP-LoRA] method", ("np", "klora"))]
        cells = driver.sweep("a cat <nplora:dog:vangogh:1>", axes)
        remark = "[NP-LoRA] mu has no effect with method=klora"
        assert [remark in cell.infotext for cell in cells] == [False, False, True, True]
        assert all(cell.infotext.startswith("a cat <nplora:dog:vangogh:method=klora>\n") for cell in cells[2:])
        assert len({cell.pixels for cell in cells}) == 3

    @pytest.mark.parametrize("mu", ["0.5", "2"])
    def test_16_a_tag_says_what_its_method_does_not_read(self, driver, loras, mu):
        tag = f"<nplora:dog:vangogh:{mu}:method=direct>"
        picture = driver.generate(f"a cat {tag}")
        assert picture.params[SAID] == f"{tag}: mu= has no effect with method=direct"
        assert driver.compare(fused(loras.dog, loras.vangogh, 0)).worst < 1e-4

    def test_16_a_panel_says_what_its_method_does_not_read_of_what_is_given_by_name(self, driver, loras):
        panel = {"content": "dog", "style": "vangogh", "method": "direct", "mu": 0.5, "alpha": ""}
        picture = driver.generate("a cat", panel=[panel])
        assert picture.params[SAID] == "mu has no effect with method=direct"
        assert picture.infotext.startswith("a cat <nplora:dog:vangogh:method=direct>\n")

    @pytest.mark.parametrize(
        ("meant", "said"),
        [
            ("< nplora:dog:vangogh:1>", "< nplora:dog:vangogh:1>: this is no tag. Write <nplora:dog:vangogh:1>"),
            ("<nplora>", "<nplora>: this is no tag. Write <nplora:content:style>"),
            ("<np-lora:dog:vangogh>", "<np-lora:dog:vangogh>: this is no tag. Write <nplora:dog:vangogh>"),
            ("<nplora:dog:vangogh", "<nplora:dog:vangogh: it has no '>' at its end. Write <nplora:dog:vangogh>"),
            ("<nplra:dog:vangogh>", "<nplra:dog:vangogh>: there is no tag of this name. Write <nplora:dog:vangogh>"),
        ],
    )
    def test_16_what_is_no_tag_is_said_to_be_none(self, driver, loras, meant, said):
        assert driver.generate(f"a cat {meant}", hr_prompt="").params[SAID] == said
        assert driver.compare({}).outside == 0

    def test_16_what_is_no_tag_is_told_in_the_negative_prompt_too(self, driver, loras):
        said = driver.generate("a cat", negative_prompt="a bird <nplra:dog:vangogh>").params[SAID]
        wrong = "<nplra:dog:vangogh>: there is no tag of this name. Write <nplora:dog:vangogh>"
        assert said == f"{wrong} in the prompt: no tag is read in the negative one"
        assert driver.compare({}).outside == 0

    def test_16_a_tag_in_the_negative_prompt_is_told(self, driver, loras):
        tag = "<nplora:dog:vangogh:hard>"
        picture = driver.generate("a cat", negative_prompt=f"a bird {tag}")
        assert picture.params[SAID] == f"{tag}: no tag is read in the negative prompt. Move it to the prompt"
        assert driver.compare({}).outside == 0

    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("<NPLORA:dog:vangogh:1>", "<nplora:dog:vangogh:1>"),
            ("<NpLora:dog:vangogh:1>", "<nplora:dog:vangogh:1>"),
            (
                "<LORA:dog:1:role=content> <Lora:vangogh:1:role=style:mu=1>",
                "<lora:dog:1:role=content> <lora:vangogh:1:role=style:mu=1>",
            ),
        ],
    )
    def test_16_the_case_of_a_tag_does_not_matter(self, driver, loras, written, meant):
        expected = driver.generate(f"a cat {meant}")
        picture = driver.generate(f"a cat {written}")
        assert picture.pixels == expected.pixels
        assert [text.replace(written, meant) for text in picture.comments] == list(expected.comments)

    def test_16_what_is_no_tag_stops_a_picture_that_may_be_stopped(self, driver, loras):
        driver.set_option("nplora_on_error", "Stop, without a picture")
        try:
            with pytest.raises(Exception, match=r"this is no tag. Write <nplora:dog:vangogh>"):
                driver.generate("a cat < nplora:dog:vangogh>")
        finally:
            driver.set_option("nplora_on_error", "Say so under the picture")

    @pytest.mark.parametrize(
        ("prompt", "said"),
        [
            (
                "<nplora:dog:vangogh:1> <nplora:dog:vangogh:1>",
                "<nplora:dog:vangogh:1>: it stands twice, and counts once",
            ),
            (
                "<nplora:dog:vangogh:1> <nplora:dog:vangogh:mu=1>",
                "<nplora:dog:vangogh:1>: it is the same as <nplora:dog:vangogh:mu=1>, and counts once",
            ),
        ],
    )
    def test_16_what_counts_once_is_said(self, driver, loras, prompt, said):
        expected = driver.generate("a cat <nplora:dog:vangogh:1>").pixels
        picture = driver.generate(f"a cat {prompt}")
        assert picture.pixels == expected
        assert said in picture.params[SAID].splitlines()

    def test_16_what_is_added_twice_is_said(self, driver, loras):
        one, other = "<nplora:dog:vangogh:0>", "<nplora:dog:vangogh:hard>"
        said = driver.generate(f"a cat {one} {other}").params[SAID].splitlines()
        assert f"{one}: 'dog' and 'vangogh' are also in {other}, so added twice" in said
        first, second = fused(loras.dog, loras.vangogh, 0), fused(loras.dog, loras.vangogh, HARD)
        assert driver.compare({name: added(first[name], second[name]) for name in first}).worst < 1e-4

    def test_16_another_extensions_keys_on_a_fused_lora_are_said_to_be_lost(self, driver, loras):
        tags = "<lora:dog:1:role=content:lbw=1,0:start=1> <lora:vangogh:1:role=style:mu=1:stop=1:step=0-1>"
        picture = driver.generate(f"a cat {tags}")
        assert driver.compare(fused(loras.dog, loras.vangogh, 1)).worst < 1e-4
        for key, name in (("lbw", "dog"), ("start", "dog"), ("stop", "vangogh"), ("step", "vangogh")):
            reason = f"'{key}=' of '{name}' has no effect: lora-block-weight does not reach a LoRA that is fused"
            assert reason in picture.params[SAID]

    def test_16_another_extensions_keys_are_left_to_it_where_nothing_is_fused(self, driver, loras):
        picture = driver.generate("a cat <lora:dog:0.8:role=content:lbw=1,0>")
        assert "no LoRA has role=style" in picture.params[SAID]
        assert "lora-block-weight" not in picture.params[SAID]
        assert picture.pixels == driver.generate("a cat <lora:dog:0.8>").pixels

    def test_16_the_file_that_is_used_is_named_if_its_name_repeats(self, driver, loras):
        for folder, source in (("a", loras.dog), ("b", loras.odd)):
            (driver.lora_dir / folder).mkdir(exist_ok=True)
            shutil.copy(source, driver.lora_dir / folder / "double.safetensors")
        picture = driver.generate("a cat <nplora:double:vangogh:0:s=0>")
        (said,) = [line for line in picture.params[SAID].splitlines() if "'double' is" in line]
        found = re.search(r"'double' is ([ab])/double.safetensors, not ([ab])/double.safetensors: rename one", said)
        assert found
        used = loras.dog if found[1] == "a" else loras.odd
        assert driver.compare(fused(used, loras.vangogh, 0, s=0)).worst < 1e-4
        driver.generate("a cat <lora:double:1>")
        assert driver.compare(factors(used)).worst < 1e-4

    def test_16_a_name_with_its_ending_gets_the_one_without(self, driver, loras):
        said = driver.generate("a cat <nplora:dog.safetensors:vangogh>").params[SAID]
        assert said.endswith("there is no LoRA called 'dog.safetensors'. Did you mean 'dog'?")
