"""16: what is said of a picture, to whoever asked for it."""

from __future__ import annotations

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
