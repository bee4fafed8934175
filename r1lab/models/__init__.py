"""Models: configurations, tokenizer, loading, and the policy."""

from transformers.utils import logging

logging.disable_progress_bar()  # of the loading of weights: r1lab's own bars say what matters
