"""The two search families: finding is hard, checking is easy, so reflection pays.

`signs`: the numbers stay in order, each gets a plus or a minus, the sum must hit the target.
Level n has n+1 numbers and 2^n sign patterns, of which exactly one is right.
`countdown`: the numbers may be used in any order with + - *, each exactly once, from left to right.

An attempt is written as a running total, then the target again, then a verdict:
`9+5=14-1=13:13 ok`. Restating the target next to the total is what makes the verdict easy.
"""

import ast
import itertools
import operator
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from r1lab.world.words import NO, OK, REFLECTIVE_SHARES, Family, Puzzle, Voice, choose

Moves = Sequence[tuple[str, int]]  # what is done to a running total, as (("+", 5), ("-", 1))
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
ATTEMPT = re.compile(r"(-?\d+)((?:[-+*]\d+=-?\d+)+)(?::(-?\d+))?\s*([a-zA-ZÀ-ÿ]+|[^\W\d_])?")
MOVE = re.compile(r"([-+*])(\d+)=(-?\d+)")
VERDICTS = dict.fromkeys(OK.values(), True) | dict.fromkeys(NO.values(), False)


class Attempt(NamedTuple):
    """One try as the model wrote it.

    Attributes:
        moves: what was done to the running total after `start`.
        totals: the running totals as written, one per move.
        stated_target: the target as restated, None when missing.
        verdict: True for an ok, False for a no, None when missing.
        ordered: do the tries of this family have an order?
    """

    start: int
    moves: Moves
    totals: tuple[int, ...]
    stated_target: int | None
    verdict: bool | None
    ordered: bool = True

    @property
    def key(self) -> tuple:
        """Equal for attempts that try the same."""
        return self.start, self.moves

    @property
    def place(self) -> tuple[int, int] | None:
        """Length and number in binary counting: a minus is the digit 1, the last changes fastest."""
        digits = "".join("1" if op == "-" else "0" for op, _ in self.moves)
        return (len(digits), int(digits, 2)) if self.ordered else None

    @property
    def expression(self) -> str:
        """The attempt as an answer, e.g. `9+5-1`; parentheses only where precedence needs them."""
        return chain_expression(self.start, self.moves)

    def steps_right(self) -> list[bool]:
        """For each move: is the written total what the total before it gives?"""
        steps = zip((self.start, *self.totals), self.moves, self.totals)
        return [apply_move(before, move) == total for before, move, total in steps]


def parse_attempts(text: str, ordered: bool = True) -> list[Attempt]:
    """Read all attempts in a text, in order. Words that are no verdict leave `verdict` None."""
    attempts = []
    for start, chain, target, word in ATTEMPT.findall(text):
        steps = MOVE.findall(chain)
        moves = tuple((op, int(number)) for op, number, _ in steps)
        totals = tuple(int(total) for *_, total in steps)
        stated = int(target) if target else None
        attempts.append(Attempt(int(start), moves, totals, stated, VERDICTS.get(word), ordered))
    return attempts


def apply_move(total: int, move: tuple[str, int]) -> int:
    """Apply a move to a total."""
    op, number = move
    return OPERATORS[op](total, number)


def running_totals(start: int, moves: Moves) -> list[int]:
    """Apply the moves one after the other; return the total after each."""
    return list(itertools.accumulate(moves, apply_move, initial=start))[1:]


def write_chain(start: int, moves: Moves) -> str:
    """Write the moves with their totals, e.g. `9+5=14-1=13`."""
    totals = running_totals(start, moves)
    steps = (f"{op}{number}={total}" for (op, number), total in zip(moves, totals))
    return f"{start}{''.join(steps)}"


def write_attempt(start: int, moves: Moves, target: int) -> tuple[str, bool]:
    """Write an attempt up to its verdict, e.g. `9+5=14-1=13:13`; also return whether it hits."""
    return f"{write_chain(start, moves)}:{target}", running_totals(start, moves)[-1] == target


def chain_expression(start: int, moves: Moves) -> str:
    """Write left-to-right moves as an expression of ordinary precedence."""
    text, has_sum = str(start), False
    for op, number in moves:
        if op == "*" and has_sum:
            text, has_sum = f"({text})", False
        has_sum = has_sum or op != "*"
        text += f"{op}{number}"
    return text


def signs_candidates(numbers: Sequence[int]) -> list[Moves]:
    """List all sign patterns in order: all plus first, the last sign changing fastest."""
    return [tuple(zip(signs, numbers[1:])) for signs in itertools.product("+-", repeat=len(numbers) - 1)]


def write_search(rng, problem, chains: Sequence[tuple[int, Moves]], *, solved: bool) -> str:
    """Write these attempts, each with its verdict and a reflective word, up to the first that hits.

    The one that hits is written if the search may be `solved`, and left out else.
    """
    parts = []
    for start, moves in chains:
        text, hit = write_attempt(start, moves, problem.meta["target"])
        if hit and not solved:
            break
        verdict = (OK if hit else NO)[problem.lang]
        parts.append(f"{text} {verdict} {choose(rng, REFLECTIVE_SHARES[problem.lang])}")
        if hit:
            break
    return "<think> " + " ".join(parts)


class Search(Family):
    """What both search families share.

    `ordered`: the numbers stay in order, and so do the chains of moves that can be tried.
    `chains(numbers)` lists all that can be tried, as a start and moves; `solves(expression, meta)` tells
    whether an expression is right.
    """

    def asked(self, numbers: list[int], start: int, moves: Moves) -> Puzzle:
        """Make the puzzle whose solution are these moves."""
        target = running_totals(start, moves)[-1]
        listed = ",".join(map(str, numbers))
        meta = {"numbers": numbers, "target": target}
        slots = meta | {"numbers": listed}
        return Puzzle(f"{listed}->{target}", slots, chain_expression(start, moves), meta)

    def check(self, answer: str, meta: dict) -> bool:
        """Is the answer right? It may state the target: `9+5-1` and `9+5-1=13` are both right."""
        expression, equals, stated = answer.partition("=")
        return (not equals or stated.strip() == str(meta["target"])) and self.solves(expression, meta)

    def summary(self, problem, answer):
        """Give the full equation, `9+5-1=13`."""
        return f"{answer.partition('=')[0].replace(' ', '')}={problem.meta['target']}"

    def write(self, rng, config, problem):
        """Write attempts with verdicts until one hits or patience ends; the answer copies the last."""
        chains, target = self.chains(problem.meta["numbers"]), problem.meta["target"]
        if not self.ordered or choose(rng, config.search_order) == "at random":
            rng.shuffle(chains)
        patience = choose(rng, config.patience)
        if patience == 0:
            return "", chain_expression(*chains[0])
        voice, parts = Voice(rng, config, problem.lang), []
        for start, moves in chains[:patience]:
            text, hit = write_attempt(start, moves, target)
            if not config.restate_target:
                text = write_chain(start, moves)
            parts.append(f"{text} {voice.verdict(hit)}")
            if hit:
                break
        return voice.join(parts), chain_expression(start, moves)


class Signs(Search):
    name = "signs"
    levels = (1, 2, 3, 4, 5)
    ordered = True

    def chains(self, numbers):
        return [(numbers[0], moves) for moves in signs_candidates(numbers)]

    def puzzle(self, rng, level):
        """Draw `level`+1 digits with exactly one solution."""
        while True:
            numbers = [rng.randint(1, 9) for _ in range(level + 1)]
            chains = self.chains(numbers)
            chosen = rng.choice(chains)
            totals = [running_totals(*chain)[-1] for chain in chains]
            if totals.count(running_totals(*chosen)[-1]) == 1:
                return self.asked(numbers, *chosen)

    def solves(self, expression, meta):
        """Does it use the numbers in order, one sign each, and hit the target?"""
        compact = expression.replace(" ", "")
        if not re.fullmatch(r"\d+(?:[-+]\d+)*", compact):
            return False
        terms = [int(term) for term in re.findall(r"[-+]?\d+", compact)]
        return list(map(abs, terms)) == list(meta["numbers"]) and sum(terms) == meta["target"]


class Countdown(Search):
    name = "countdown"
    levels = (1, 2)
    ordered = False

    def chains(self, numbers):
        return [
            (order[0], tuple(zip(ops, order[1:])))
            for order in itertools.permutations(numbers)
            for ops in itertools.product(OPERATORS, repeat=len(numbers) - 1)
        ]

    def puzzle(self, rng, level):
        """Draw `level`+1 digits; the target is what a random chain of them gives."""
        numbers = [rng.randint(1, 9) for _ in range(level + 1)]
        start, *rest = rng.sample(numbers, len(numbers))
        moves = tuple((rng.choice("+-*"), number) for number in rest)
        return self.asked(numbers, start, moves)

    def solves(self, expression, meta):
        """Does it use each number exactly once and have the target's value?

        `operators` in `meta` can allow division.
        """
        operators = re.escape(meta.get("operators", "+-*"))
        if not re.fullmatch(rf"[\d{operators}() ]{{1,100}}", expression):
            return False
        try:
            value, used = _evaluate(ast.parse(expression.strip(), mode="eval").body)
        except (SyntaxError, ValueError, ZeroDivisionError):
            return False
        return value == meta["target"] and sorted(used) == sorted(meta["numbers"])


NODES = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: Fraction}


def _evaluate(node):
    """Compute a parsed expression of + - * /, and list the numbers it uses. Nothing is executed."""
    match node:
        case ast.Constant(int(number)):
            return number, [number]
        case ast.BinOp(left, sign, right) if type(sign) in NODES:
            (value, used), (other, others) = _evaluate(left), _evaluate(right)
            return NODES[type(sign)](value, other), used + others
    raise ValueError("only + - * / of whole numbers")


SIGNS, COUNTDOWN = Signs(), Countdown()
