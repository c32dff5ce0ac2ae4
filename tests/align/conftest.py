"""Fixtures of the tiny world, for every test in this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from align_helpers import examples, start, tokenizer

__all__ = ["examples", "start", "tokenizer"]
