"""What notebooks use, and only notebooks: figures with words, one look, a quiet progress bar."""

from r1lab.lab.display import progress, show, style

__all__ = ["progress", "show", "style"]
