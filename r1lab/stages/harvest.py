"""Samples for supervised learning: drawn from a model, graded, filtered, and counted.

Rejection sampling (v2 B.3.3): several samples a prompt; what is wrong, mixes languages, repeats
itself or cannot be read is left out. Samples are drawn in chunks that are stored one by one, so
that a killed run goes on where it was.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from r1lab.errors import InputError
from r1lab.evaluation.measure import measure
from r1lab.world.bases import UNKNOWN
from r1lab.rewards import language, parse
from r1lab.sampling import Sampler, SamplingParams
from r1lab.sources.templates import prompt_of
from r1lab.files import write_text
from r1lab.task import Check, Problem, Task
from r1lab.world import FAMILIES
from r1lab.training.batching import balanced_share
from r1lab.training.distributed import World
from r1lab.training.processes import StopRequest
from r1lab.training.progress import Progress
from r1lab.world.small_world import SmallWorld


@dataclass(frozen=True)
class HarvestConfig:
    """What is asked of the model that is sampled, and what is kept.

    Attributes:
        mixture, lang_weights: of the questions, as in reinforcement learning.
        chunks, questions, samples: so many chunks of so many questions, each sampled so often.
        temperature: the paper's for the cold start (v2 B.3.2).
        filters: names of FILTERS, in the order in which the table counts them.
        per_question: at most so many different samples of a question are kept.
        select: "random" is a control arm: the same number of samples as the filters keep, but any.
    """

    mixture: dict[str, float]
    lang_weights: dict[str, float]
    filters: tuple[str, ...]
    chunks: int
    questions: int
    samples: int = 4
    per_question: int = 2
    temperature: float = 1.0
    max_tokens: int = 448
    template: str = "small"
    select: Literal["filtered", "random"] = "filtered"
    seed: int = 0

    def task(self) -> Task:
        """What the small world asks with these settings."""
        world = SmallWorld(self.mixture, self.lang_weights, template=self.template)
        return world.task()


@dataclass(frozen=True)
class Samples:
    """What filters judge: each sample's problem, its text, and how it ended (stop or length)."""

    problems: list[Problem]
    texts: list[str]
    ends: list[str]
    check: Check | None = None


def finished(samples: Samples) -> list[bool]:
    """Was it ended by the model, not cut off?"""
    return [end == "stop" for end in samples.ends]


def readable(samples: Samples) -> list[bool]:
    """Can thinking and answer be separated, and is there some of both, in words?"""
    return [parse(text).halves is not None and UNKNOWN not in text for text in samples.texts]


def formatted(samples: Samples) -> list[bool]:
    """Has it R1-Zero's format exactly, in words?"""
    return [parse(text).well_formed and UNKNOWN not in text for text in samples.texts]


def answered_right(samples: Samples) -> list[bool]:
    """Is the answer right, wherever it is? Programs are run on their tests in the sandbox."""
    rows = measure(samples.problems, samples.texts, check=samples.check)
    return [row["correct"] >= 1 for row in rows]


def one_language(samples: Samples) -> list[bool]:
    """Is every word of the thinking of the question's language?"""
    langs, families = zip(*((problem.lang, problem.family) for problem in samples.problems))
    shares = language(
        [""] * len(langs), samples.texts, lang=list(langs), family=list(families)
    )
    return [share is None or share == 1 for share in shares]


def no_repetition(samples: Samples) -> list[bool]:
    """Is no attempt made twice?"""
    kept = []
    for problem, text in zip(samples.problems, samples.texts, strict=True):
        family = FAMILIES.get(problem.family)  # a user's own task has none
        keys = [attempt.key for attempt in family.attempts(text)] if family else []
        kept.append(len(set(keys)) == len(keys))
    return kept


FILTERS: dict[str, Callable[[Samples], list[bool]]] = {
    "not truncated": finished,
    "readable": readable,
    "format": formatted,
    "correct": answered_right,
    "one language": one_language,
    "no repetition": no_repetition,
}


def harvest(
    world: World, stop: StopRequest, config: HarvestConfig, task: Task, folder: Path,
    sampler: Sampler, tokenizer,
) -> bool:  # fmt: skip
    """Draw every chunk that is not in the folder yet. True when all are there."""
    folder.mkdir(parents=True, exist_ok=True)
    done = len(list(folder.glob("chunk-*.json")))
    with Progress(config.chunks, "samples", done, enabled=world.is_main) as progress:
        for number in range(config.chunks):
            file = folder / f"chunk-{number:04d}.json"
            if world.any(file.exists()):
                continue
            started = time.monotonic()
            rows = draw_chunk(world, config, task, number, sampler, tokenizer)
            if world.is_main:
                chunk = {"seconds": time.monotonic() - started, "rows": rows}
                write_text(file, json.dumps(chunk, ensure_ascii=False))
            right = sum(not row["failed"] for row in rows) / len(rows)
            progress.update(number + 1, kept=f"{right:.0%}")
            if world.any(stop.is_set()) and number + 1 < config.chunks:
                return False
    return True


def draw_chunk(
    world: World, config: HarvestConfig, task: Task, number: int, sampler: Sampler, tokenizer
) -> list[dict]:
    """Sample and judge a chunk's questions; each process does its share, all return the whole.

    A row is the problem's fields and `completion`, `finish`, `tokens` (prompt and completion) and
    `failed`: the names of the filters that it does not pass.
    """
    problems = task.draw(config.seed, number, config.questions)
    prompt_ids = [tokenizer(prompt_of(task, p, tokenizer)).input_ids for p in problems]
    mine = balanced_share([len(ids) for ids in prompt_ids], world.rank, world.size)
    params = SamplingParams(
        n=config.samples, temperature=config.temperature, max_tokens=config.max_tokens,
        seed=config.seed * 1_000_003 + number,
    )  # fmt: skip
    drawn = sampler.generate([prompt_ids[i] for i in mine], params, stream_ids=mine)
    owners = [problems[i] for i in mine for _ in range(config.samples)]
    texts = drawn.texts(tokenizer)
    samples = Samples(owners, texts, drawn.finish, task.check)
    passed = {name: FILTERS[name](samples) for name in config.filters}
    rows = [
        {
            **asdict(problem),
            "completion": texts[row],
            "finish": drawn.finish[row],
            "tokens": len(drawn.prompt_ids[row]) + len(drawn.completion_ids[row]),
            "failed": [name for name in config.filters if not passed[name][row]],
        }
        for row, problem in enumerate(owners)
    ]
    groups = {
        question: share[place * config.samples : (place + 1) * config.samples]
        for questions, share in world.gather((mine, rows))
        for place, question in enumerate(questions)
    }
    return [row for question in sorted(groups) for row in groups[question]]


def read_harvest(folder: Path) -> tuple[list[dict], float]:
    """All rows in the order drawn, and the seconds that drawing them took."""
    files = sorted(folder.glob("chunk-*.json"))
    chunks = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    rows = [row for chunk in chunks for row in chunk["rows"]]
    return rows, sum((chunk["seconds"] for chunk in chunks), 0.0)


def select(config: HarvestConfig, rows: list[dict]) -> tuple[list[dict], dict]:
    """The rows to learn from, and the counts behind them.

    The counts: `sampled`, `kept`, `tokens` (sampled); for each filter how many rows fail it
    (`fails`) and how many it takes from those that the filters before left (`taken`); and sampled
    and kept rows by family and level.

    Raises:
        InputError: nothing is left; it says what took how many.
    """
    seen: Counter[tuple[str, str]] = Counter()
    texts: set[tuple[str, str, str]] = set()
    kept = []
    for row in rows:
        question = (row["id"], row["lang"])
        if row["failed"] or seen[question] == config.per_question:
            continue
        if (*question, row["completion"]) not in texts:
            texts.add((*question, row["completion"]))
            seen[question] += 1
            kept.append(row)
    passing = sum(not row["failed"] for row in rows)
    fails = Counter(name for row in rows for name in row["failed"])
    first = Counter(row["failed"][0] for row in rows if row["failed"])
    filters = [{"filter": f, "fails": fails[f], "taken": first[f]} for f in config.filters]
    filters.append({"filter": "few per question", "taken": passing - len(kept)})
    if not kept:
        taken = ", ".join(f"{one['filter']} {one['taken']}" for one in filters)
        raise InputError(
            f"none of {len(rows)} samples is left after filtering (taken by: {taken})."
        )
    if config.select == "random":
        kept = random.Random(config.seed).sample(rows, len(kept))
    groups = {"sampled": rows, "kept": kept}
    kinds = {name: Counter(f"{r['family']}/{r['level']}" for r in g) for name, g in groups.items()}
    return kept, {
        "sampled": len(rows),
        "kept": len(kept),
        "tokens": sum(row["tokens"] for row in rows),
        "select": config.select,
        "filters": filters,
        "by_level": {
            kind: {"sampled": count, "kept": kinds["kept"][kind]}
            for kind, count in sorted(kinds["sampled"].items())
        },
    }
