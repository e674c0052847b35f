"""Files of another kind, and what is no file."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from .bad_rows import Row, packed, whole

GOOD = packed(whole())


class Payload:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.marker), "w")


def rows(marker: Path) -> Iterator[Row]:
    """`marker` appears if any code in the files runs."""
    yield from _magic()
    yield from _pickles(marker)
    yield from _not_files()


def _magic() -> Iterator[Row]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("lora.safetensors", GOOD)
    array = io.BytesIO()
    array.write(
        b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}".ljust(118) + bytes(8)
    )
    for what, content in {
        "an empty file": b"",
        "a text file": b"This is a LoRA. Trust me.\n",
        "a web page instead of the download": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "an error of a download site": b'{"error": "Unauthorized", "message": "log in to download"}',
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 151108824\n",
        "an index of shards": b'{"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}',
        "a zip archive": archive.getvalue(),
        "a gzip file": gzip.compress(GOOD),
        "a gguf file": b"GGUF\x03\x00\x00\x00" + bytes(100),
        "a png image": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "a numpy array": array.getvalue(),
        "an hdf5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "a program": b"\x7fELF\x02\x01\x01" + bytes(100),
        "a script": b"#!/bin/sh\necho hello\n",
        "a onnx model": b"\x08\x07\x12\x07pytorch" + bytes(60),
        "random bytes": bytes(value * 37 % 251 for value in range(5000)),
    }.items():
        yield Row(what, content)
    yield Row("a gguf file by its name", b"GGUF\x03\x00\x00\x00" + bytes(100), file="a-gguf-file-by-its-name.gguf")
    yield Row("a zip archive by its name", archive.getvalue(), file="a-zip-archive-by-its-name.zip")


def _pickles(marker: Path) -> Iterator[Row]:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        content = pickle.dumps({"state_dict": Payload(marker)}, protocol=protocol)
        yield Row(f"a pickle of protocol {protocol} that runs code", content)
    saved, legacy = io.BytesIO(), io.BytesIO()
    tensors = {**whole(), "payload": Payload(marker)}
    torch.save(tensors, saved)
    torch.save(tensors, legacy, _use_new_zipfile_serialization=False)
    yield Row("torch's file under another name", saved.getvalue())
    yield Row("torch's old file under another name", legacy.getvalue())
    for ending in ("pt", "pth", "ckpt", "bin", "pkl", "CKPT", "Pt"):
        name = f"a pickle as {'an upper-case ' if ending[0].isupper() else 'a '}{ending.lower()} file"
        yield Row(name, saved.getvalue(), file=f"{name.replace(' ', '-')}.{ending}")
    yield Row("a sound file with the name of a pickle", GOOD, file="a-sound-file-with-the-name-of-a-pickle.ckpt")


def _not_files() -> Iterator[Row]:
    yield Row("a folder", lambda path: path.mkdir())
    yield Row("a folder with a LoRA in it", lambda path: (path.mkdir(), (path / path.name).write_bytes(GOOD)))
    yield Row("a link to itself", lambda path: path.symlink_to(path))
    yield Row("a link to a loop", lambda path: (path.symlink_to(f"{path}.2"), Path(f"{path}.2").symlink_to(path)))
    yield Row("a link to nothing", lambda path: path.symlink_to(path.with_name("nowhere")))
    yield Row("a link to a folder", lambda path: path.symlink_to(path.parent))
    yield Row("no file", lambda path: None)
    if hasattr(os, "mkfifo"):
        yield Row("a pipe that nobody writes to", os.mkfifo)
        yield Row("a socket", _socket)
    if Path("/dev/zero").exists():
        yield Row("a device without end", lambda path: path.symlink_to("/dev/zero"))
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        yield Row("a file without permission", lambda path: (path.write_bytes(GOOD), path.chmod(0)))


def _socket(path: Path) -> None:
    """The name is bound from within the folder, for a socket's path is short."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)
