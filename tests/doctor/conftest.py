"""The bugs planted by the tests of this folder lie beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
