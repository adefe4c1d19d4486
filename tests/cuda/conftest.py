"""Tests of the CUDA backend that need no GPU; a job of their own, with the extra `cuda-check`."""

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # kernel_reference.py
