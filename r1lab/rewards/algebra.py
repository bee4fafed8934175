"""Equality of two expressions by math-verify. Runs in the worker process of `accuracy.py`."""

import logging
import re
from fractions import Fraction
from zlib import crc32

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Expr, I, N, Rational, Symbol

PLAIN = LatexExtractionConfig(normalization_config=NormalizationConfig(
    basic_latex=True, malformed_operators=True, boxed="none"))
logging.getLogger("math_verify").setLevel(logging.ERROR)  # its warnings about a timeout of None


def latex(text: str) -> str:
    """Typed notation as LaTeX, with exact fractions for decimals and radians for degrees."""
    text = re.sub(r"(\d+(?:\.\d+)?)°", r"(\1\\cdot\\frac{\\pi}{180})", text.replace("*", r"\cdot "))
    text = re.sub(r"\d*\.\d+", lambda m: "\\frac{%d}{%d}" % Fraction(m[0]).as_integer_ratio(), text)
    text = re.sub(r"\\frac\s*(\\pi|\w)", r"\\frac{\1}", text)
    text = re.sub(r"(\\frac\{[^{}]*\})\s*(\\pi|\w)", r"\1{\2}", text)
    for _ in range(3):
        text = re.sub(r"(\\sqrt|\^)\s*\(([^()]*)\)", r"\1{\2}", text)
    return text


def expression(text: str) -> Expr | None:
    found = parse(f"${latex(text)}$", [PLAIN], fallback_mode="no_fallback", parsing_timeout=None)
    if not found or not isinstance(found[0], Expr):
        return None
    # math-verify's letters are real or not according to what stands beside them.
    letters = found[0].free_symbols
    return found[0].subs({s: I if s.name == "i" else Symbol(s.name) for s in letters})


def ratios(gold: Expr, answer: Expr) -> list[complex]:
    """answer / gold at three fixed points of their variables, one of them with negative ones."""
    quotient, values = answer / gold, []
    for scale in (2**29, -(2**30), 2**31):
        at = {
            symbol: Rational(crc32(f"{symbol.name} {scale}".encode()), scale)
            for symbol in quotient.free_symbols
        }
        values.append(complex(N(quotient.subs(at), 20)))
    return values


def same_value(gold: str, answer: str, relation: bool = False) -> bool | None:
    """Are these equal? None: `gold` cannot be read.

    math-verify compares differences with an absolute tolerance, so that 1/2004! equals 1/2006! to
    it: the quotient must be 1 as well. With `relation` both are left sides of `... = 0`, which say
    the same if their quotient is any constant."""
    wanted, found = expression(gold), expression(answer)
    if wanted is None:
        return None
    if found is None:
        return False
    try:
        values = ratios(wanted, found)
    except (TypeError, ZeroDivisionError):  # no number at one of the points
        return False
    target = values[0] if relation else 1
    if not all(abs(value - target) <= 1e-9 * abs(target) for value in values) or target == 0:
        return False
    return relation or verify([wanted], [found], timeout_seconds=None)
