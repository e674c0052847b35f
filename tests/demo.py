"""python -m tests.demo [FOLDER]: make two small LoRA files, fuse them, show per layer what was removed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests import loras


def main(folder: Path) -> int:
    """Write content, style and their fusion into `folder`. Returns the exit code of the command line."""
    folder.mkdir(parents=True, exist_ok=True)
    content = loras.write(folder / "content.safetensors", loras.random_lora(loras.SD1, rank=4, seed=1, alpha=4))
    style = loras.write(folder / "style.safetensors", loras.random_lora(loras.SD1[4:], rank=8, seed=2, alpha=8))
    command = ["fuse", str(content), str(style), "-o", str(folder / "fused.safetensors"), "--verbose"]
    print("python -m lib_nplora", *command, flush=True)
    return subprocess.run([sys.executable, "-m", "lib_nplora", *command], check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with TemporaryDirectory() as temporary:
        sys.exit(main(Path(temporary)))
