"""Files: `save` and `load` for state in safetensors, `write_atomically` for anything else."""

from .atomic import write_atomically
from .state import FileFormatError, load, load_metadata, save

__all__ = ["FileFormatError", "load", "load_metadata", "save", "write_atomically"]
