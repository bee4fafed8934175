"""What notebooks use, and only notebooks: checks of exercises, figures with words, one look."""

import sys

from r1lab.files import NOTEBOOKS
from r1lab.lab import check
from r1lab.lab.lesson import ask, explorer, predict, rollouts, show, style, table

sys.path.append(str(NOTEBOOKS))  # what lessons share is found, too, where it is not beside them
