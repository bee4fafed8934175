"""What notebooks use, and only notebooks: checks of exercises, figures with words, one look."""

from r1lab.lab import check
from r1lab.lab.lesson import ask, explorer, predict, rollouts, show, style, table
