"""Samples for supervised learning: drawn from a model, graded, filtered, and counted.

Rejection sampling (v2 B.3.3): several samples a prompt; what is wrong, mixes languages, repeats
itself or cannot be read is left out. Samples are drawn in chunks that are stored one by one, so
that a killed run goes on where it was.
"""

import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from r1lab.errors import InputError
from r1lab.evaluation.measure import evaluate
from r1lab.files import whole, write_json, write_text
from r1lab.rewards import language, parse
from r1lab.sampling import Sampler
from r1lab.sources.templates import prompt_of
from r1lab.task import Problem, Task, problem_of
from r1lab.training.processes import Progress
from r1lab.machine import commit
from r1lab.run import Run
from r1lab.world.small_world import LANG_WEIGHTS, SmallWorld
from r1lab.world.bases import UNKNOWN

COLUMNS = ("id", "family", "level", "lang", "prompt")  # of a data set, besides the completion
Example = tuple[Problem, str]  # with its completion


@dataclass(frozen=True)
class HarvestConfig:
    """What is asked of the model that is sampled, and what is kept.

    Attributes:
        mixture, lang_weights: of the questions, as in reinforcement learning.
        chunks, questions, samples: `chunks` chunks of `questions` questions, each with `samples` answers.
        temperature: the paper's for the cold start (v2 B.3.2).
        filters: names of FILTERS, in the order in which the table counts them.
        per_question: at most this many different samples of a question are kept.
        select: "random" is a control arm: the same number of samples as the filters keep, but any.
    """

    mixture: dict[str, float] = field(default_factory=dict)
    filters: tuple[str, ...] = ()
    chunks: int = 1
    lang_weights: dict[str, float] = field(default_factory=LANG_WEIGHTS.copy)
    questions: int = 192
    samples: int = 4
    per_question: int = 2
    temperature: float = 1.0
    max_tokens: int = 448
    template: str = "small"
    select: Literal["filtered", "random"] = "filtered"
    seed: int = 0

    def task(self) -> Task:
        """What the small world asks with these settings."""
        return SmallWorld(self.mixture, self.lang_weights, template=self.template).task()


def in_words(row: Mapping) -> bool:
    return UNKNOWN not in row["completion"]


def one_language(row: Mapping) -> bool:
    """Is every word of the thinking of the question's language?"""
    [share] = language([""], [row["completion"]], lang=[row["lang"]], family=[row["family"]])
    return share is None or share == 1


# A row is the fields of a problem, a `completion`, and its measures (see `evaluation.measure`).
FILTERS: dict[str, Callable[[Mapping], bool]] = {
    # Ended by the model, not cut off.
    "not truncated": lambda row: not row["truncated"],
    # Thinking and answer can be separated, and there is some of both, in words.
    "readable": lambda row: in_words(row) and parse(row["completion"]).halves is not None,
    # R1-Zero's format exactly, in words.
    "format": lambda row: row["format"] and in_words(row),
    # The answer is right, wherever it is. Programs are run on their tests in the sandbox.
    "correct": lambda row: row["correct"] >= 1,
    "one language": one_language,
    # No attempt is made twice.
    "no repetition": lambda row: not row["repeats"],
}


def harvest(
    world, stop, config: HarvestConfig, task: Task, folder: Path, sampler: Sampler, tokenizer
) -> bool:  # fmt: skip
    """Draw every chunk that is not in the folder yet. True when all are there."""
    folder.mkdir(parents=True, exist_ok=True)
    done = max(world.gather(len(list(folder.glob("chunk-*.json")))))
    with Progress(config.chunks, "samples", done) as progress:
        for number in range(done, config.chunks):
            started = time.monotonic()
            rows = draw_chunk(world, config, task, number, sampler, tokenizer)
            if world.is_main:
                chunk = {"seconds": time.monotonic() - started, "rows": rows}
                write_text(folder / f"chunk-{number:04d}.json", json.dumps(chunk, ensure_ascii=False, default=str))
            right = sum(not row["failed"] for row in rows) / len(rows)
            progress.show(number + 1, kept=f"{right:.0%}")
            if world.any(stop.is_set()) and number + 1 < config.chunks:
                return False
    return True


def draw_chunk(
    world, config: HarvestConfig, task: Task, number: int, sampler: Sampler, tokenizer
) -> list[dict]:
    """Sample and judge a chunk's questions; each process does its share, all return the whole.

    A row is the problem's fields and `completion`, `finish`, `tokens` (prompt and completion) and
    `failed`: the names of the filters that it does not pass.
    """
    problems = task.draw(config.seed, number, config.questions)
    evaluation = evaluate(
        sampler, tokenizer, replace(task, test=problems), k=config.samples,
        temperature=config.temperature, max_tokens=config.max_tokens,
        seed=config.seed * 1_000_003 + number, world=world,
    )  # fmt: skip
    rows = []
    for place, number in enumerate(evaluation.index):
        problem = problems[number]
        prompt = len(tokenizer(prompt_of(task, problem, tokenizer)).input_ids)
        for sample, text in enumerate(evaluation.completions[place]):
            measures = {name: values[place, sample] for name, values in evaluation.measures.items()}
            row = asdict(problem) | {"completion": text}
            rows.append(row | {
                "finish": "length" if measures["truncated"] else "stop",
                "tokens": prompt + int(measures["tokens"]),
                "failed": [name for name in config.filters if not FILTERS[name](row | measures)],
            })  # fmt: skip
    return rows


def read_harvest(folder: Path) -> tuple[list[dict], float]:
    """All rows in the order drawn, and the seconds that drawing them took."""
    chunks = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("chunk-*.json"))]
    rows = [row for chunk in chunks for row in chunk["rows"]]
    return rows, sum((chunk["seconds"] for chunk in chunks), 0.0)


def select(config: HarvestConfig, rows: list[dict]) -> tuple[list[dict], dict]:
    """The rows to learn from, and the counts behind them.

    The counts: `sampled`, `kept`, `tokens` (sampled); for each filter how many rows fail it
    (`fails`) and how many it removes that no filter before it had removed (`taken`); and sampled
    and kept rows by family and level.
    """
    texts, selected = defaultdict(list), []  # of a question, what is selected
    passing = [row for row in rows if not row["failed"]]
    for row in passing:
        chosen = texts[row["id"], row["lang"]]
        if len(chosen) < config.per_question and row["completion"] not in chosen:
            chosen.append(row["completion"])
            selected.append(row)
    fails = Counter(name for row in rows for name in row["failed"])
    first = Counter(row["failed"][0] for row in rows if row["failed"])
    filters = [{"filter": f, "fails": fails[f], "taken": first[f]} for f in config.filters]
    filters.append({"filter": "few per question", "taken": len(passing) - len(selected)})
    if config.select == "random":
        selected = random.Random(config.seed).sample(rows, len(selected))
    sampled, left = (Counter(f"{row['family']}/{row['level']}" for row in part) for part in (rows, selected))
    return selected, {
        "sampled": len(rows),
        "kept": len(selected),
        "tokens": sum(row["tokens"] for row in rows),
        "select": config.select,
        "filters": filters,
        "by_level": {kind: {"sampled": count, "kept": left[kind]} for kind, count in sorted(sampled.items())},
    }


def make_data(stage, run: Run, source: str, tokenizer, rewritten: bool, **about):
    """Filter the samples, make the examples, and store them.

    Args:
        stage: a `SampledStage`.
        rewritten: do its examples replace the samples? Not those of a user's task.
        about: what the provenance says besides.
    Raises:
        InputError: no sample passes the filters.
    """
    rows, seconds = read_harvest(run.folder / "samples")
    selected, counts = select(stage.sampling, rows)
    if not selected:
        taken = ", ".join(f"{one['filter']} {one['taken']}" for one in counts["filters"])
        raise InputError(
            f"none of {len(rows)} samples is left after filtering (removed by: {taken}); delete the "
            f"folder {run.folder}, and give the same command with more samples (sampling.chunks) or "
            "a source that is further trained."
        )
    examples = [(problem_of(row), row["completion"]) for row in selected]
    if rewritten:
        examples = stage.examples(examples, random.Random(f"examples/{stage.sampling.seed}"))
    data = [
        # As the tokenizer writes it, with spaces where it puts them.
        {name: getattr(problem, name) for name in COLUMNS}
        | {"completion": tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids)}
        for problem, text in examples
    ]
    about |= {"sampling_seconds": round(seconds, 1), "examples": len(data)}
    store_data(data, run.folder / "data", stage, source, **about, **counts)


def store_data(rows: list[dict], folder: Path, config: object, source: str, **about):
    """Store a data set with its provenance, whole or not at all.

    Args:
        config: the settings of the stage that made it.
        source: the folder of what it was made from.
        about: what the provenance says besides.
    """
    from datasets import Dataset, disable_progress_bars  # takes seconds to import

    disable_progress_bars()
    provenance = {
        "source_run": source, "commit": commit(), "stage": type(config).__name__,
        "settings": asdict(config), **about,
    }  # fmt: skip
    with whole(folder) as partial:
        Dataset.from_list(rows).save_to_disk(partial)
        write_json(partial / "provenance.json", provenance)
