"""What notebooks use, and only notebooks: checks of exercises, figures with words, one look."""

from r1lab.lab import check
from r1lab.lab.lesson import show, style
from r1lab.lab.widgets import explorer

__all__ = ["check", "explorer", "show", "style"]
