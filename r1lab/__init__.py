"""r1lab: DeepSeek-R1, end to end, in notebooks that run."""

__version__ = "0.1.0"
