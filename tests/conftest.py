"""Tests import the scripts from the folder above, as a user's Python does who starts them there."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pytest  # noqa: E402

import util  # noqa: E402  before anything imports NumPy: it sets the threads of NumPy's BLAS

__all__ = ["util"]


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="run the long soak of kills and resumes too")


def pytest_configure(config):
    config.addinivalue_line("markers", "soak: takes minutes; skipped unless --soak is given")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("soak") and not config.getoption("--soak"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: give --soak"))
