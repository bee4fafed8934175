"""A family: one kind of problem, with all that anybody may ask about it."""

import re
from dataclasses import dataclass, field, replace
from random import Random

from r1lab.task import Problem, problem_id


@dataclass(frozen=True)
class Puzzle:
    """What a family draws, before it is asked in a language.

    Attributes:
        key: decides the problem's id; the same in every language.
        slots: what fills the question's template.
        solution, meta, tests: as in `Problem`.
    """

    key: str
    slots: dict[str, object]
    solution: str
    meta: dict = field(default_factory=dict)
    tests: list | None = None


class Family:
    """One kind of problem: how it is drawn, asked, checked, and solved in the corpus.

    Attributes:
        levels: of difficulty, from 1.
        questions: by language, templates with the puzzle's slots.
        rephrased: other ways to ask, which the corpus never uses: language -> name -> template.
        searches: finding is hard and checking easy, so that one tries again and again.
    """

    name: str
    levels: tuple[int, ...] = (1,)
    questions: dict[str, str] = {"en": "{prompt}"}
    rephrased: dict[str, dict[str, str]] = {}
    searches = False

    def puzzle(self, rng: Random, level: int) -> Puzzle:
        raise NotImplementedError

    def draw(self, rng: Random, level: int, lang: str) -> Problem:
        """A problem in the language, or in English where the family has no other."""
        puzzle = self.puzzle(rng, level)
        lang = lang if lang in self.questions else "en"
        return Problem(
            id=problem_id(self.name, puzzle.key),
            family=self.name,
            level=level,
            lang=lang,
            prompt=self.questions[lang].format(**puzzle.slots),
            solution=puzzle.solution,
            tests=puzzle.tests,
            meta=puzzle.meta,
        )

    def ask(self, problem: Problem, template: str) -> str:
        """The problem's question by another template, which may also hold the whole `{prompt}`."""
        usual = re.escape(self.questions[problem.lang])
        slots = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", usual)
        values = re.fullmatch(slots, problem.prompt).groupdict()
        return template.format(**values | {"prompt": problem.prompt})

    def ask_in(self, problem: Problem, lang: str) -> Problem:
        """The same problem in another language; as it is where the family has it in English only."""
        if lang not in self.questions:
            return problem
        return replace(problem, lang=lang, prompt=self.ask(problem, self.questions[lang]))

    def check(self, answer: str, meta: dict) -> bool | None:
        """Is the answer right? None leaves it to the comparison of values in `rewards`."""
        return None

    def attempts(self, completion: str) -> list:
        """The attempts of a completion that can be recognized; none in most families."""
        return []

    def summary(self, problem: Problem, answer: str) -> str:
        """What a reader is shown in place of the bare answer."""
        return answer

    def write(self, rng: Random, config, problem: Problem) -> tuple[str, str]:
        """(thinking, answer), as a writer of the corpus has them; `config` is a `CorpusConfig`."""
        raise NotImplementedError
