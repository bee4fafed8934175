"""A family: one kind of problem, with all that anybody may ask about it."""

import re
from dataclasses import dataclass, field, replace
from random import Random

from r1lab.task import Problem, problem_id
from r1lab.world.words import SAID


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
    """One kind of problem: how it is drawn, asked, and solved in the corpus.

    Attributes:
        levels: of difficulty, from 1.
    """

    name: str
    levels: tuple[int, ...] = (1,)

    @property
    def questions(self) -> dict[str, str]:
        """Give, by language, the templates with the puzzle's slots."""
        return SAID["questions"].get(self.name, {"en": "{prompt}"})

    @property
    def rephrased(self) -> dict[str, dict[str, str]]:
        """Give other ways to ask, which the corpus never uses: language -> name -> template."""
        return SAID["rephrased"].get(self.name, {})

    def puzzle(self, rng: Random, level: int) -> Puzzle:
        raise NotImplementedError

    def draw(self, rng: Random, level: int, lang: str) -> Problem:
        """Draw a problem in the language, or in English where the family has no other."""
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
        """Ask the problem by another template, which may also hold the whole `{prompt}`."""
        usual = re.escape(self.questions[problem.lang])
        slots = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", usual)
        values = re.fullmatch(slots, problem.prompt).groupdict()
        return template.format(**values | {"prompt": problem.prompt})

    def ask_in(self, problem: Problem, lang: str) -> Problem:
        """Ask the problem in another language; leave it where the family has it in English only."""
        if lang not in self.questions:
            return problem
        return replace(problem, lang=lang, prompt=self.ask(problem, self.questions[lang]))

    def attempts(self, completion: str) -> list:
        """Read the attempts of a completion; there are none in most families."""
        return []

    def summary(self, problem: Problem, answer: str) -> str:
        """Give what a reader is shown in place of the bare answer."""
        return answer

    def write(self, rng: Random, config, problem: Problem) -> tuple[str, str]:
        """Write (thinking, answer), as a writer of the corpus does; `config` is a `CorpusConfig`."""
        raise NotImplementedError
