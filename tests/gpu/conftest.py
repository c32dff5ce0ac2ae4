"""Lets the tests of this folder share `gpu_helpers`."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _exact_products() -> None:
    """fp32 is to be fp32 here, not tf32."""
    torch.backends.cuda.matmul.allow_tf32 = False
