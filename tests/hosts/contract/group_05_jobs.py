"""5: kinds of job."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ...reference.kohya import fused
from .loras import HARD
from .pictures import lora_hashes


class Jobs:
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
        assert lora_hashes(before) != lora_hashes(after)

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
