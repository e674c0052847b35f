"""What a host lists, and what is found by name and by hash."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lib_nplora.errors import NotFoundError
from lib_nplora.hosts import detect_host

from .driver import write_lora
from .standins.common import NetworkOnDisk


@pytest.fixture
def shelf(driver):
    """With dog, and in a folder of their own Cat, whose alias is Kitty, and ant, whose header holds its hash."""
    modules, folder = driver.modules[:2], driver.lora_dir
    (folder / "animals").mkdir()
    write_lora(folder / "dog.safetensors", modules, seed=1)
    write_lora(folder / "animals" / "Cat.safetensors", modules, seed=2, metadata={"ss_output_name": "Kitty"})
    write_lora(
        folder / "animals" / "ant.safetensors", modules, seed=3, metadata={"sshs_model_hash": "0123456789abcdef"}
    )
    found = detect_host().shelf
    found.refresh()
    return found


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that the host has hashed."""
    names = []
    read_hash = NetworkOnDisk.read_hash

    def noted(self):
        names.append(self.name)
        read_hash(self)

    monkeypatch.setattr(NetworkOnDisk, "read_hash", noted)
    return names


def test_the_list_is_the_hosts_and_reads_no_file(shelf, driver, reads):
    assert shelf.names() == ["ant", "Cat", "dog"]
    listed = {entry.name: entry for entry in shelf.listed()}
    assert list(listed) == ["ant", "Cat", "dog"]
    assert (listed["Cat"].alias, listed["dog"].alias) == ("Kitty", "dog")
    assert listed["Cat"].path == str(driver.lora_dir / "animals" / "Cat.safetensors")
    assert [listed[name].shorthash for name in ("ant", "Cat")] == ["0123456789ab", ""]
    assert listed["Cat"].metadata["ss_output_name"] == "Kitty"
    assert not reads


def test_refresh_finds_what_was_added_and_forgets_what_was_removed(shelf, driver):
    write_lora(driver.lora_dir / "bee.safetensors", driver.modules[:1], seed=4)
    (driver.lora_dir / "dog.safetensors").unlink()
    assert shelf.names() == ["ant", "Cat", "dog"]
    shelf.refresh()
    assert shelf.names() == ["ant", "bee", "Cat"]


def test_the_folder_and_the_checkpoint(shelf, driver):
    model = detect_host().model
    assert shelf.folder == str(driver.lora_dir)
    assert model.checkpoint == "checkpoint-1.safetensors"
    driver.switch_checkpoint()
    assert model.checkpoint == "checkpoint-2.safetensors"
    driver.model_data.sd_model = None
    assert model.checkpoint is None
    driver.model_data.sd_model = object()
    assert model.checkpoint is None


def test_a_hash_that_the_host_knows_is_looked_up(shelf, reads):
    assert shelf.named_by_hash("0123456789ab") == "ant"
    assert not reads
    known = shelf.resolve("Kitty").shorthash
    assert reads == ["Cat"]
    assert shelf.named_by_hash(known) == "Cat"
    assert reads == ["Cat"]


def test_a_renamed_file_is_found_by_its_hash(shelf, driver, reads):
    shorthash = shelf.resolve("dog").shorthash
    (driver.lora_dir / "dog.safetensors").rename(driver.lora_dir / "animals" / "hound.safetensors")
    reads.clear()
    assert shelf.named_by_hash(shorthash) == "hound"
    assert "ant" not in reads
    reads.clear()
    assert shelf.named_by_hash(shorthash) == "hound"
    assert not reads
    with pytest.raises(NotFoundError):
        shelf.resolve("dog")


def test_files_are_read_newest_first_as_long_as_there_is_time(shelf, driver, reads):
    for age, name in enumerate(("dog", "animals/Cat", "bee")):
        path = driver.lora_dir / f"{name}.safetensors"
        if not path.exists():
            write_lora(path, driver.modules[:1], seed=9)
        os.utime(path, (1e9 - age, 1e9 - age))
    assert shelf.named_by_hash("no such hash", seconds=0) is None
    assert not reads
    assert shelf.named_by_hash("no such hash") is None
    assert reads == ["dog", "Cat", "bee"]


def test_a_file_that_cannot_be_hashed_stops_no_search(shelf, driver, monkeypatch):
    shorthash = shelf.resolve("dog").shorthash
    (driver.lora_dir / "dog.safetensors").rename(driver.lora_dir / "hound.safetensors")
    read_hash = NetworkOnDisk.read_hash

    def fail(self):
        if self.name == "Cat":
            raise OSError(22, "Invalid argument")
        read_hash(self)

    monkeypatch.setattr(NetworkOnDisk, "read_hash", fail)
    os.utime(driver.lora_dir / "hound.safetensors", (0, 0))
    assert shelf.named_by_hash(shorthash) == "hound"


def test_no_hash_is_no_ones_hash(shelf, reads):
    """A host that does no hashing gives every file an empty one."""
    assert shelf.named_by_hash("") is None
    assert not reads


def test_a_lookup_never_sees_the_list_half_made(shelf, driver, monkeypatch):
    """The host empties its tables first, in whatever thread it is asked to list again."""
    emptied, looked_up = threading.Event(), threading.Event()
    made = NetworkOnDisk.__init__

    def slowly(self, networks, name, filename):
        emptied.set()
        looked_up.wait(0.2)
        made(self, networks, name, filename)

    monkeypatch.setattr(NetworkOnDisk, "__init__", slowly)
    listing = threading.Thread(target=shelf.refresh)
    listing.start()
    assert emptied.wait(10)
    names = shelf.names()
    looked_up.set()
    listing.join()
    assert names == ["ant", "Cat", "dog"]


def test_the_files_of_one_name_are_told(shelf, driver):
    """The host takes the last that it finds, and tells of none but that."""
    assert all(entry.namesakes == () for entry in shelf.listed())
    (driver.lora_dir / "styles").mkdir()
    for folder in ("animals", "styles"):
        write_lora(driver.lora_dir / folder / "dog.safetensors", driver.modules[:1], seed=5)
    shelf.refresh()
    used, *others = shelf.resolve("dog").namesakes
    assert driver.lora_dir / used == Path(shelf.resolve("dog").path)
    assert sorted([used, *others]) == ["animals/dog.safetensors", "dog.safetensors", "styles/dog.safetensors"]
    assert {entry.name: entry.namesakes for entry in shelf.listed()} == {"ant": (), "Cat": (), "dog": (used, *others)}


def test_folders_are_looked_into_once_a_list(shelf, driver, monkeypatch):
    walks = []
    walk = driver.networks.shared.walk_files
    monkeypatch.setattr(driver.networks.shared, "walk_files", lambda *args, **kw: walks.append(1) or walk(*args, **kw))
    for _ in range(2):
        shelf.refresh()
        for _ in range(3):
            shelf.listed()
            shelf.resolve("dog")
    assert len(walks) == 2


@pytest.mark.parametrize("written", ["dog.safetensors", "animals/dog", "x\\DOG.SafeTensors", "Dgo.pt"])
def test_a_name_with_folder_or_ending_is_understood(shelf, written):
    with pytest.raises(NotFoundError, match=r"Did you mean 'dog'\?"):
        shelf.resolve(written)
