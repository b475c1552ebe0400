"""Tests import the scripts from the folder above, as a user's Python does who starts them there."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import util  # noqa: E402  before anything imports NumPy: it sets the threads of NumPy's BLAS

__all__ = ["util"]
