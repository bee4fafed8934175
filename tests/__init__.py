"""Tests find what lies beside the lessons, as the lessons do: `import tabular`."""

import sys
from pathlib import Path

# Notebooks run in their own folder. This is the one place where that folder comes on the path: for
# pytest, for the golden record and for the experiments, which all import this package first.
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
sys.path.append(str(NOTEBOOKS))
