"""Figures and one HTML page about a run, from what its folder holds."""

from r1lab.report.html import write_report

__all__ = ["write_report"]
