"""Accelerators and families, by names and headers as they are found in the wild."""

from __future__ import annotations

import pytest

from lib_nplora.jobs.traits import accelerator, family


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sd_xl_turbo_lora_v1", "Turbo"),
        ("FLUX.1-Turbo-Alpha", "Turbo"),
        ("sdxl_lightning_8step_lora", "Lightning"),
        ("Qwen-Image-Lightning-4steps-V1.0", "Lightning"),
        ("LCM_LoRA_SDXL", "LCM"),
        ("lcm-lora-sdv1-5", "LCM"),
        ("Hyper-SD15-8steps-CFG-lora", "Hyper"),
        ("Hyper-FLUX.1-dev-16steps-lora", "Hyper"),
        ("dmd2_sdxl_4step_lora", "DMD"),
        ("DMD lora", "DMD"),
        ("sdxlturbo", "Turbo"),
        ("hyperSDXL_8step", "Hyper"),
    ],
)
def test_accelerators_are_known_by_their_names(name, kind):
    assert accelerator(name) == kind


@pytest.mark.parametrize(
    "name",
    [
        "hyperrealism v2",
        "hyper_realistic_v2",
        "Hyper Detailed",
        "hyper-detailer",
        "Lightning_Bolt_Style",
        "turbo-encabulator",
        "turbocharger car XL",
        "hyperrealism SDXL",
        "lightnings",
        "calcmyth",
        "dog",
        "admd",
        "",
    ],
)
def test_words_that_only_look_alike_are_not(name):
    assert accelerator(name) is None


@pytest.mark.parametrize(
    ("metadata", "label"),
    [
        ({"ss_base_model_version": "sd_v1"}, "SD 1"),
        ({"ss_base_model_version": "sd_v2_v"}, "SD 2"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "SDXL"),
        ({"ss_base_model_version": "flux1"}, "Flux"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "SDXL"),
        ({"modelspec.architecture": "Flux.1-dev/lora"}, "Flux"),
        ({"modelspec.architecture": "stable-diffusion-3-medium/lora"}, "SD 3"),
        ({"ss_base_model_version": None}, None),
        ({"ss_base_model_version": "unheard of"}, None),
        ({}, None),
    ],
)
def test_families_are_named_in_the_header(metadata, label):
    assert family(metadata) == label
