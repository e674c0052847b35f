"""Which names a new LoRA may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_nplora.errors import RequestError
from lib_nplora.hosts.protocol import LoraEntry
from lib_nplora.webui.new_file import ExistsError, new_file


@pytest.fixture
def folder(lora_folder: Path) -> Path:
    """With LoRAs/in -> LoRAs/styles, LoRAs/Old.safetensors and others."""
    (lora_folder / "in").symlink_to(lora_folder / "styles")
    (lora_folder / "dangling.safetensors").symlink_to(lora_folder.parent / "nowhere")
    (lora_folder / "Old.safetensors").touch()
    (lora_folder / "caf\u00e9.safetensors").touch()
    (lora_folder / "styles" / "ink.safetensors").touch()
    return lora_folder


def listed(folder: Path) -> list[LoraEntry]:
    return [
        LoraEntry("ink", "Ink Wash v2", str(folder / "styles" / "ink.safetensors"), ""),
        LoraEntry("gone", "gone", str(folder / "gone.safetensors"), ""),
    ]


def refusal(folder: Path, output: str, kind: type[Exception]) -> str:
    with pytest.raises(kind) as refused:
        new_file(folder, output, listed(folder))
    return str(refused.value)


@pytest.mark.parametrize(
    ("output", "file"),
    [
        ("dog", "dog.safetensors"),
        ("dog.safetensors", "dog.safetensors"),
        ("dog.SafeTensors", "dog.safetensors"),
        ("dog v1.5", "dog v1.5.safetensors"),
        ("dog v1.5.safetensors", "dog v1.5.safetensors"),
        ("a. b", "a. b.safetensors"),
        ("Hündin, (röt) 犬", "Hündin, (röt) 犬.safetensors"),
        ("styles/dog", "styles/dog.safetensors"),
        ("styles\\dog", "styles/dog.safetensors"),
        ("in/dog", "in/dog.safetensors"),
        ("styles/Old", "styles/Old.safetensors"),
        ("gone", "gone.safetensors"),
        ("d" * 243, f"{'d' * 243}.safetensors"),
    ],
)
def test_names_that_may_be(folder, output, file):
    assert new_file(folder, output, listed(folder)) == folder / file


def test_a_lora_folder_that_is_a_link_itself(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert new_file(tmp_path / "link", "styles/dog", []) == tmp_path / "link" / "styles" / "dog.safetensors"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", "is no file name"),
        (" ", "is no file name"),
        (".", "is no file name"),
        ("styles/", "is no file name"),
        ("styles//dog", "is no file name"),
        ("./dog", "is no file name"),
        (".safetensors", "is no file name"),
        ("styles/.safetensors", "is no file name"),
        ("...", "is no file name"),
        ("..", "leads out of the LoRA folder"),
        ("../dog", "leads out of the LoRA folder"),
        ("..\\dog", "leads out of the LoRA folder"),
        ("styles/../dog", "leads out of the LoRA folder"),
        ("styles\\..\\..\\dog", "leads out of the LoRA folder"),
        ("/tmp/dog", "leads out of the LoRA folder"),
        ("\\dog", "leads out of the LoRA folder"),
        ("C:\\dog", "leads out of the LoRA folder"),
        ("C:dog", "leads out of the LoRA folder"),
        ("\\\\server\\share\\dog", "leads out of the LoRA folder"),
        ("out/dog", "leads out of the LoRA folder"),
        ("new/dog", "no subfolder 'new'"),
        ("Old.safetensors/dog", "no subfolder 'Old.safetensors'"),
        (f"{'d' * 300}/dog", "no subfolder"),
        ("dog.ckpt", "ends in .ckpt: let it end in .safetensors"),
        ("dog.pt", "ends in .pt"),
        ("dog.safetensors.txt", "ends in .txt"),
        ("dog:v2", "no tag can name 'dog:v2', because of its :"),
        ("<dog>", "because of its < >"),
        ("mu=1", "because of its ="),
        ("dog ", "starts or ends with"),
        ("dog .safetensors", "starts or ends with"),
        ("dog.", "starts or ends with"),
        (".dog", "ends in .dog"),
        (".5", "starts or ends with"),
        ("Con", "Windows keeps the name 'Con'"),
        ("lpt1.2", "Windows keeps the name 'lpt1.2'"),
        ("d" * 244, "is too long"),
        ("犬" * 100, "is too long"),
        ("do\ng", "cannot be shown"),
        ("do\0g", "cannot be shown"),
        ("do\ud800g", "cannot be shown"),
    ],
)
def test_names_that_may_not_be(folder, output, words):
    assert words in refusal(folder, output, RequestError)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("Old", "there is a file 'Old.safetensors' already"),
        ("OLD", "there is a file 'Old.safetensors' already"),
        ("cafe\u0301", "there is a file 'caf\u00e9.safetensors' already"),
        ("dangling", "there is a file 'dangling.safetensors' already"),
        ("styles/ink", "there is a file 'ink.safetensors' already"),
        ("in/INK", "there is a file 'ink.safetensors' already"),
        ("Ink", "'Ink' means the LoRA"),
        ("ink wash V2", "'ink wash V2' means the LoRA"),
    ],
)
def test_names_that_are_taken(folder, output, words):
    assert words in refusal(folder, output, ExistsError)
