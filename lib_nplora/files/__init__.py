"""LoRA file <-> LoraWeights, for the command line. Inside a WebUI the host reads its own files."""

from .atomic import replacing
from .base import Base
from .reader import LoraFile, read_lora
from .sizing import Loss, Sizing
from .writer import DTYPES, write_lora

__all__ = ["DTYPES", "Base", "LoraFile", "Loss", "Sizing", "read_lora", "replacing", "write_lora"]
