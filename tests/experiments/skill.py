"""No skill, no gain: RL on a base that cannot judge, and on one whose steps slip.

RL amplifies what a base does now and then (arXiv 2503.01307). Three bases are made of `data/small`, which
has both skills. Each goes on with pre-training on puzzles of signs, the same ones, tried by the same
writers in the same order. "sound" reads what the lab's corpus says. In "verdicts" a coin decides what
follows an attempt, ok or no, while every step is right. In "steps" one total in four is off by one,
while each verdict fits the total that stands before it. All three then get the same RL. The two that
lack a skill get it once more after a short fine-tuning on sound writers.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from r1lab.evaluation.measure import Evaluation
from r1lab.files import write_text
from r1lab.models.policy import load_model
from r1lab.run import Run
from r1lab.task import Problem, Task
from r1lab.training.estimate import open_model
from r1lab.training.recorder import first_of_each_level
from r1lab.training.rl import grpo
from r1lab.training.sft import sft
from r1lab.world import sample_problem
from r1lab.world.corpus import CORPUS, FORMATS
from r1lab.world.puzzles import SIGNS, Moves, apply_move, chain_expression
from r1lab.world.skills import Skills, measure_skills
from r1lab.world.words import Voice, choose
from tests.experiments.next_steps import Kept, RLTrial, start, tabulate
from tests.experiments.settings import SFT, sft_config

FAULTS = ("verdicts", "steps")
ROWS = ("accuracy", "gain")
JUDGED = ("steps_right", "ok_right", "no_right")
SLIPS = 0.25  # of the totals, in "steps"
DOCUMENTS = {"going on": 14_000, "remedy": 14_000}
GOING_ON = {**SFT, "epochs": 1, "learning_rate": 3e-3, "learn_prompts": True}
RL = {"rollouts": 22, "caps": [[0, 320]], "eval_every": 1_000, "final_samples": 8}


@dataclass(frozen=True)
class Skill(RLTrial):
    """What the arms have in common.

    Attributes:
        documents: so many are read where a base goes on, and as the remedy.
        going_on, remedy: how they are learned.
        problems: so many of each of `levels` are asked.
    """

    base: str = "data/small"
    rl: dict[str, Any] = field(default_factory=lambda: RL)
    documents: dict[str, int] = field(default_factory=lambda: DOCUMENTS)
    going_on: dict[str, Any] = field(default_factory=lambda: GOING_ON)
    remedy: dict[str, Any] = field(default_factory=lambda: {**SFT, "epochs": 1, "learning_rate": 3e-3})
    problems: int = 24
    levels: tuple[int, ...] = (2, 3, 4)


def skill(config: Skill = Skill(), folder: Path = Path("runs/skill")) -> Kept:
    """Make the bases, train and measure all arms; each row of the table is against the sound base."""
    load_model(config.base)  # a missing one is reported before the folder is made
    start(config, folder)
    models = {fault: read(config, "going on", fault, config.base, folder) for fault in ("sound", *FAULTS)}
    models |= {f"{fault}_taught": read(config, "remedy", fault, models[fault], folder) for fault in FAULTS}
    task = task_of(config)
    measured, about = {}, {}
    for arm, model in models.items():
        about[arm] = asdict(skills_of(model, task.test))
        run = grpo(model, task, config.stage.rl, arm, runs=folder)
        before, after = (Evaluation.load(run.folder / f"eval_{end}.npz") for end in ("base", "final"))
        measured[arm] = row_values(before, after)
    write_text(folder / "skills.json", json.dumps(about, indent=1))
    values = tabulate(measured, "sound", dict.fromkeys(ROWS, after.levels), folder)
    values |= {
        f"{arm}/{name}": np.array([one[name]], float) for arm, one in about.items() for name in JUDGED
    }
    return values | {f"levels/{name}": np.ones(1) for name in JUDGED}



def task_of(config: Skill) -> Task:
    """What is asked in training, and the first problems of some levels to measure by."""
    task = config.stage.world.task()
    asked = [problem for problem in task.test if problem.level in config.levels]
    return replace(task, test=first_of_each_level(asked, config.problems))


def row_values(before: Evaluation, after: Evaluation) -> dict[str, np.ndarray]:
    """One value for each problem of each row: pass@1 after RL, and what RL changed."""
    accuracy = after["correct"].mean(axis=1)
    return {"accuracy": accuracy, "gain": accuracy - before["correct"].mean(axis=1)}


def skills_of(model: Path, problems: Sequence[Problem]) -> Skills:
    """What the base can do before RL, as `r1lab skills` measures it."""
    sampler, tokenizer, _ = open_model(model)
    return measure_skills(sampler, tokenizer, problems)


def read(config: Skill, phase: str, fault: str, model: str | Path, folder: Path) -> Path:
    """The model after the documents of a phase. Those of the remedy are sound, whatever the fault was;
    their writers give up as early as before."""
    written, settings = (fault, config.going_on) if phase == "going on" else ("sound", config.remedy)
    data = folder / f"{written} {phase}.jsonl"
    if not data.exists():
        rows = islice(documents(f"{phase}/{config.seed}", written), config.documents[phase])
        write_text(data, "".join(json.dumps(row) + "\n" for row in rows))
    tuning = sft_config(settings, seed=config.seed, processes=config.processes)
    return sft(model, data, tuning, f"{fault} {phase}", runs=folder).model


def documents(seed: str, fault: str) -> Iterator[dict[str, str]]:
    """Write an endless stream of puzzles with what somebody thought and answered."""
    rng, faults = Random(f"skill/{seed}"), Random(f"{fault}/{seed}")
    while True:
        level, lang = choose(rng, CORPUS.signs_levels), choose(rng, {"en": 0.6, "zh": 0.4})
        problem = sample_problem(rng, "signs", level, lang)
        thinking, answer = search(rng, faults, problem, fault)
        text = FORMATS[choose(rng, CORPUS.formats)].format(thinking=thinking, answer=answer)
        yield {"prompt": problem.prompt, "completion": text}


def search(rng: Random, faults: Random, problem: Problem, fault: str) -> tuple[str, str]:
    """Write attempts as `Search.write` does, with a fault: thinking and answer."""
    chains, target = SIGNS.chains(problem.meta["numbers"]), problem.meta["target"]
    if choose(rng, CORPUS.search_order) == "at random":
        rng.shuffle(chains)
    patience = choose(rng, CORPUS.patience)
    if patience == 0:
        return "", chain_expression(*chains[0])
    voice, parts = Voice(rng, CORPUS, problem.lang), []
    for first, moves in chains[:patience]:
        totals = written_totals(faults, first, moves, SLIPS if fault == "steps" else 0.0)
        chain = "".join(f"{sign}{number}={total}" for (sign, number), total in zip(moves, totals))
        hit = faults.random() < 0.5 if fault == "verdicts" else totals[-1] == target
        parts.append(f"{first}{chain}:{target} {voice.verdict(hit)}")
        if hit:
            break
    return voice.join(parts), chain_expression(first, moves)


def written_totals(rng: Random, first: int, moves: Moves, slips: float) -> list[int]:
    """The running totals, a share of which is off by one; what follows goes on from what is written."""
    totals, total = [], first
    for move in moves:
        slip = rng.choice((-1, 1)) if rng.random() < slips else 0
        total = apply_move(total, move) + slip
        totals.append(total)
    return totals
