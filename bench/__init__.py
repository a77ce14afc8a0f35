"""Benchmarks: every figure that the documentation states, measured side by side in one run (`make bench`).

They use the builders of the tests (`tests/support`) for keys, certificates, tokens and requests.
"""

import sys
from pathlib import Path

_TESTS = str(Path(__file__).resolve().parents[1] / "tests")
if _TESTS not in sys.path:
    sys.path.insert(0, _TESTS)
