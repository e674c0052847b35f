"""The emoji sets, fetched by name from the npm registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REGISTRY = "https://registry.npmjs.org"


@dataclass(frozen=True)
class EmojiSet:
    """One package of drawings, at the version that the shipped weights saw."""

    package: str
    version: str
    licence: str
    author: str
    source: str

    @property
    def archive(self) -> str:
        """The name that the registry and `npm pack` give the file."""
        return f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def _set(name: str, version: str, licence: str, author: str, source: str) -> EmojiSet:
    return EmojiSet(f"@iconify-json/{name}", version, licence, author, f"https://github.com/{source}")


SETS = {
    "twemoji": _set("twemoji", "1.2.5", "CC-BY-4.0", "Twitter", "jdecked/twemoji"),
    "noto": _set("noto", "1.2.9", "Apache-2.0", "Google Inc", "googlefonts/noto-emoji"),
    "notoold": _set("noto-v1", "1.2.5", "Apache-2.0", "Google Inc", "googlefonts/noto-emoji"),
    "fluentflat": _set("fluent-emoji-flat", "1.2.6", "MIT", "Microsoft Corporation", "microsoft/fluentui-emoji"),
    "highcontrast": _set(
        "fluent-emoji-high-contrast", "1.2.6", "MIT", "Microsoft Corporation", "microsoft/fluentui-emoji"
    ),
    "monotone": _set("emojione-monotone", "1.2.1", "CC-BY-4.0", "Emoji One", "EmojiTwo/emojitwo"),
}
"""Our names of the sets, as `words` and `filters` use them."""


def fetch(emoji_set: EmojiSet, folder: Path) -> Path:
    """The set's archive in the folder; downloaded if it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / emoji_set.archive
    if not path.exists():
        if npm := shutil.which("npm"):
            spec = f"{emoji_set.package}@{emoji_set.version}"
            subprocess.run([npm, "pack", "--silent", "--ignore-scripts", spec], cwd=folder, check=True)
        else:
            base = os.environ.get("NPM_CONFIG_REGISTRY", REGISTRY).rstrip("/")
            name = emoji_set.package.rpartition("/")[2]
            part = path.with_suffix(".part")
            urllib.request.urlretrieve(f"{base}/{emoji_set.package}/-/{name}-{emoji_set.version}.tgz", part)
            part.replace(path)
    return path


def read(emoji_set: EmojiSet, folder: Path) -> dict[str, Any]:
    """The set's `icons.json`: SVG bodies by name, with aliases. Refuses a licence other than the one noted here."""
    with tarfile.open(fetch(emoji_set, folder)) as archive:
        about = json.load(_member(archive, "package.json"))
        if about["license"] != emoji_set.licence:
            raise ValueError(f"{emoji_set.package} is under {about['license']}, not under {emoji_set.licence}")
        icons: dict[str, Any] = json.load(_member(archive, "icons.json"))
        return icons


def _member(archive: tarfile.TarFile, name: str) -> Any:
    return archive.extractfile(f"package/{name}")
