"""Accelerators and families, by names and headers as they are found in the wild."""

from __future__ import annotations

import pytest

from lib_nplora.files import header_label
from lib_nplora.jobs.traits import accelerator


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
        ("Hyper-SD3-16steps-CFG-lora", "Hyper"),
        ("SDXL-Lightning", "Lightning"),
        ("Wan2.2-Lightning_T2V-v1.1-A14B-4steps-lora", "Lightning"),
        ("z_image_turbo_distill_patch_lora_bf16", "Turbo"),
        ("flux.1-turbo-alpha by somebody 8steps", "Turbo"),
        ("pcm_sdxl_normalcfg_8step_converted", "PCM"),
        ("pcm_sd15_smallcfg_2step", "PCM"),
        ("TCD-SDXL-LoRA", "TCD"),
        ("flash-sdxl", "Flash"),
        ("flash_sd3.safetensors", "Flash"),
        ("Chroma-Flash_r64-fp32", "Flash"),
        ("lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank64_bf16", "LightX2V"),
        ("Wan2.1-I2V-14B-lightx2v", "LightX2V"),
        ("Wan21_CausVid_14B_T2V_lora_rank32", "CausVid"),
        ("Qwen-Image-8step-distilled", "step distillation"),
        ("pcm_sdxl_lcmlike_lora_converted", "PCM"),
        ("chroma-flash-heun_r32-fp32", "Flash"),
        ("Z-Image-Turbo-Fun-Lora-Distill-8-Steps", "step distillation"),
        ("flash-pixart", "Flash"),
        ("Flux2TurboComfyv2", "Turbo"),
        ("ernie-image-turbo", "Turbo"),
        ("Anima-Turbo-LoRA-v0.1", "Turbo"),
        ("lightning_flux_4steps", "Lightning"),
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
        "z_image_turbo_mystyle",
        "z-image-turbo portraits 8steps",
        "Krea-2-Turbo_watercolour",
        "sdxl_turbo_mystyle",
        "dog sd3.5_large_turbo",
        "mystyle_flux_turbo_2000steps",
        "Hyper-Realistic SDXL",
        "hyper_realistic_flux_8steps",
        "Lightning Farron SDXL",
        "lightning_mcqueen_flux",
        "Lightning (FFXIII) - Illustrious XL",
        "sdxl flash photography",
        "flashlight sdxl 4 step",
        "pcmcia sdxl",
        "turbo",
        "Hyper v2",
        "swan lightning",
        "lightning_z_image_turbo",
        "lightning_flux",
        "flash z image turbo v1",
        "flux_turbo_mystyle_8steps",
        "Lightning McQueen Flux 8 steps",
        "animated turbo",
        "",
    ],
)
def test_words_that_only_look_alike_are_not(name):
    assert accelerator(name) is None


@pytest.mark.timeout(2)
@pytest.mark.parametrize("part", ["sdxl", "lora", "z_image_turbo", "1", "step_", "\u202e"])
def test_names_without_end_are_judged_at_once(part):
    assert accelerator(part * 10_000) in (None, "Turbo")


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
        ({"ss_base_model_version": "pid"}, "PiD"),
        ({"ss_base_model_version": None}, None),
        ({"ss_base_model_version": "unheard of"}, None),
        ({}, None),
    ],
)
def test_families_are_named_in_the_header(metadata, label):
    assert header_label(metadata) == label
