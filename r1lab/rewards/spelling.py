"""One spelling for each thing: how an answer is tidied before it is compared, by named rules."""

import re
import tomllib
from pathlib import Path

TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
SIGNS = {0xFF01 + i: 0x21 + i for i in range(94)}  # full-width forms, as in Chinese text
SIGNS |= str.maketrans("−–÷。’“”\u00a0\u2009\u202f", "--/.'\"\"   ")
SIGNS |= str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻₀₁₂₃₄₅₆₇₈₉", "0123456789-0123456789")


def rewrite(text: str, part: str) -> str:
    """Apply each rule of a part of the table once."""
    for rule in TABLE[part]:
        text = re.sub(rule["find"], rule["new"], text)
    return text


def settle(text: str, part: str) -> str:
    """Apply the rules of a part of the table until they change nothing."""
    before = None
    while text != before:
        before, text = text, rewrite(text, part)
    return text


def tidy(text: str) -> str:
    """One spelling for each sign, without delimiters, lead-ins and closing punctuation."""
    text = rewrite(rewrite(text, "digits").translate(SIGNS), "spelling")
    if text.count("$") % 2:  # a dollar amount, not a pair of delimiters
        text = re.sub(r"\$(?=\s*[\d.-])", "¤", text, count=1)
    return settle(text.replace("$", " "), "wrapping")
