"""LoRA file <-> LoraWeights, for the command line. Inside a WebUI the host reads its own files."""

from .atomic import replacing
from .base import Base
from .models import SPELLINGS, Family, Spelling, carried, header_label, header_name, to_write
from .pairs import ReadPair, read_pair
from .reader import LoraFile, read_lora
from .refusals import two_models
from .sizing import EXACT, HIGHEST_RANK, Loss, Sizing, lost, parse_size
from .writer import DTYPES, WHOSE, write_lora

__all__ = [
    "DTYPES",
    "EXACT",
    "HIGHEST_RANK",
    "SPELLINGS",
    "WHOSE",
    "Base",
    "Family",
    "LoraFile",
    "Loss",
    "ReadPair",
    "Sizing",
    "Spelling",
    "carried",
    "header_label",
    "header_name",
    "lost",
    "parse_size",
    "read_lora",
    "read_pair",
    "replacing",
    "to_write",
    "two_models",
    "write_lora",
]
