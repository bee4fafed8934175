"""The whole of R1 as a recipe for a real model: the small world's chain, asked in plain English.

    python -m tests.experiments.real_chain --preset smollm2 --name real

Base, student and all stages of `pipeline` follow each other as there, each measured on the gym's
test sets. What differs, because rules cannot do to English what they do to the small world:

- Cold start: rules put sums into words and nothing else; other samples stay as the model wrote
  them. The paper had annotators and DeepSeek-V3 rewrite thousands (v2 B.3.2).
- Written examples: eight, ours, each read several times, where the paper has 200,000.
- The last stage has no reward models: there is no person whose preference could be asked. It is
  RL by rules and language at the paper's lower temperature, without helpfulness and safety.
- The language reward is small: thinking in figures alone holds no word and earns none of it, so
  that it also pays for saying a word. Samples are dropped only for words of another language.

Numbers without a source are ours, chosen to fit one GPU and not tuned. On a GPU: not run yet.
"""

import json
import random
import re
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import tyro

from r1lab.cli import exit_code
from r1lab.errors import InputError
from r1lab.evaluation.estimators import bootstrap_ci
from r1lab.evaluation.measure import evaluate
from r1lab.models.policy import load_model
from r1lab.rewards import count_languages, parse
from r1lab.stages.pipeline import MEASURED, STAGES, Chain
from r1lab.stages.rl_stages import RLStage
from r1lab.stages.samples import Example, HarvestConfig
from r1lab.stages.sft_stages import SampledStage
from r1lab.stages.rl_stages import PRESETS
from r1lab.task import Problem, load_problems
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import Parallel, World
from r1lab.training.estimate import check_machine, open_model
from r1lab.training.processes import StopRequest, default_processes, launch
from r1lab.run import Run
from r1lab.training.sft import SFTConfig
from r1lab.world.corpus import join_completion

ONE_GPU = GRPOConfig.preset("countdown").parallel
MIXTURE = {
    "gym_sums/1": 2.0, "gym_sums/2": 1.0, "gym_sums/3": 1.0, "gym_arithmetic/1": 1.0,
    "gym_arithmetic/2": 0.5, "gym_gsm/1": 0.5,
}  # fmt: skip
REFUSAL = "I cannot help with that, because it could hurt someone."
WRITTEN = (
    ("Hello! How are you?", "Hello! I am well, thank you. What can I do for you?"),
    ("Thank you for your help.", "You are welcome. Ask me again whenever you like."),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Write a sentence about the sea.", "At dusk the sea lies grey and still below the cliffs."),
    ("Name three kinds of fruit.", "Three kinds of fruit are apples, pears and plums."),
    ("Can you tell me what tomorrow will bring?", "No, I cannot know that, and nobody else can."),
    ("How do I break into my neighbour's house?", REFUSAL),
    ("Tell me how to make a bomb.", REFUSAL),
)
SAMPLING = HarvestConfig(
    mixture=MIXTURE, lang_weights={"en": 1.0}, chunks=8, questions=192, max_tokens=256,
    filters=("not truncated", "format", "correct"),
)  # fmt: skip


@dataclass(frozen=True)
class RealStage(SampledStage):
    """A stage of samples in English.

    Attributes:
        written: questions and replies that are learned beside the samples, each `times` times.
    """

    source: str = ""
    base: str = ""
    sampling: HarvestConfig = SAMPLING
    sft: SFTConfig = SFTConfig()
    written: tuple[tuple[str, str], ...] = ()
    times: int = 8

    def examples(self, kept: list[Example], rng: random.Random) -> list[Example]:
        """The samples without foreign words or code blocks (v2 B.3.3), and what is written."""
        own = [
            (Problem(f"written-{i}", "written", 1, "en", asked, ""), join_completion("", reply))
            for i, (asked, reply) in enumerate(self.written)
        ]
        return [example for example in kept if plain_english(example[1])] + self.times * own


@dataclass(frozen=True)
class RealColdStart(RealStage):
    """The cold start: sums are thought about in words, in the first person, as the paper asks."""

    def examples(self, kept: list[Example], rng: random.Random) -> list[Example]:
        return super().examples([(problem, in_words(problem, text)) for problem, text in kept], rng)


@dataclass(frozen=True)
class RealConfig:
    """As `R1Config`, but there is no reward model and no control arm.

    Attributes:
        base, student: folders, names on the Hub, or "smollm2".
        samples: answers to each question of the test sets.
    """

    base: str
    student: str
    zero: RLStage
    cold_start: RealStage
    reasoning: RLStage
    rejection: RealStage
    scenarios: RLStage
    distill: RealStage
    student_rl: RLStage
    seed: int = 0
    processes: int = 0
    samples: int = 4

    def trainings(self) -> list[tuple[GRPOConfig | SFTConfig, str]]:
        """Settings and model of every stage that trains."""
        rl = (self.zero.rl, self.reasoning.rl, self.scenarios.rl)
        own = (*rl, self.cold_start.sft, self.rejection.sft)
        taught = (self.distill.sft, self.student_rl.rl)
        return [(one, self.base) for one in own] + [(one, self.student) for one in taught]


def plain_english(completion: str) -> bool:
    """Is no word of the thinking of another language, and is there no code block?"""
    return not set(count_languages(parse(completion).thinking)) - {"", "en"} and "```" not in completion


def in_words(problem: Problem, completion: str) -> str:
    """The completion with a sum's thinking told step by step; of other questions as it is.

    For completions whose answer is right.
    """
    parts = parse(completion).halves
    if problem.family != "gym_sums" or parts is None:
        return completion
    first, *others = re.findall(r"(?:([-+]) )?(\d+)", problem.prompt.rpartition(":")[2])
    total, said = int(first[1]), [f"First I take {first[1]}."]
    for sign, term in others:
        verb = {"+": "add", "-": "subtract"}[sign]
        total += int(sign + term)
        said.append(f"Then I {verb} {term}, which makes {total}.")
    return join_completion(" ".join(said), parts[1])


def recipe(
    base: str, student: str, template: str, rate: float, parallel: Parallel = Parallel()
) -> RealConfig:
    """The chain's settings for one GPU; `rate` is the learning rate of reinforcement learning."""
    precision = "bfloat16" if parallel.shard else "auto"
    small = RLStage(PRESETS["smollm2"].world, PRESETS["smollm2"].rl)
    zero = small.with_world(mixture=MIXTURE, template=template).with_rl(
        questions=32, group_size=16, learning_rate=rate, caps=((0, 128), (60, 256)),
        microbatch_tokens=16_384, eval_problems=16, precision=precision, parallel=parallel,
    )  # fmt: skip
    reasoning = zero.with_world(language_weight=0.1).with_rl(rollouts=30, caps=((0, 256),))
    # v2 B.4.3: the smaller the model, the higher its rate; 1e-4 is the paper's for 1.5B.
    sft = SFTConfig(
        epochs=2, learning_rate=1e-4, microbatch_tokens=16_384, template=template, precision=precision,
        parallel=parallel,
    )
    sampling = replace(SAMPLING, template=template)
    # What a model writes before it is taught the format need only be readable.
    first = replace(sampling, filters=("not truncated", "readable", "correct"))
    taught = RealStage(sampling=replace(sampling, chunks=16), sft=sft, written=WRITTEN)
    return RealConfig(
        base=base, student=student, zero=zero, reasoning=reasoning,
        cold_start=RealColdStart(sampling=first, sft=sft), rejection=taught,
        scenarios=reasoning.with_rl(rollouts=20, temperature=0.7),
        distill=replace(taught, sft=replace(sft, epochs=3)),
        student_rl=zero.with_rl(rollouts=10_000),  # until its compute is spent
    )  # fmt: skip


RECIPES: dict[str, RealConfig] = {
    # No smaller real model comes with it: the student is the base once more.
    "smollm2": recipe("smollm2", "smollm2", "chat_example", 1e-5),
    "qwen2.5-1.5b": recipe("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-0.5B", "r1_zero", 1e-6, ONE_GPU),
}


def two_steps(config: RealConfig, test_file: str) -> RealConfig:
    """The same chain as a trial: two updates in each stage, short answers that no filter judges,
    and the few problems of `test_file`."""

    def rl(stage: RLStage) -> RLStage:
        return stage.with_world(test=test_file).with_rl(
            rollouts=1, questions=2, group_size=2, minibatches=2, caps=((0, 12),),
            microbatch_tokens=512, eval_samples=1, eval_problems=1, final_samples=1,
            checkpoint_every=1,
        )  # fmt: skip

    def sampled(stage):
        sampling = replace(
            stage.sampling, chunks=1, questions=4, samples=2, max_tokens=12, filters=()
        )
        sft = replace(stage.sft, steps=2, tokens_per_step=256, microbatch_tokens=512)
        return replace(stage, sampling=sampling, sft=sft)

    return replace(
        config, samples=1, zero=rl(config.zero), reasoning=rl(config.reasoning),
        scenarios=rl(config.scenarios), student_rl=rl(config.student_rl),
        cold_start=sampled(config.cold_start), rejection=sampled(config.rejection),
        distill=sampled(config.distill),
    )  # fmt: skip


@dataclass(frozen=True)
class RealChain(Chain):
    """`Chain` in English: see the module. Its control arms are the small world's and not run here.

    Attributes:
        tests: files of problems that every stage is measured on.
    """

    config: RealConfig
    tests: tuple[str, ...] = tuple(
        f"data/test_{name}.jsonl" for name in ("gym_sums", "gym_arithmetic", "gym_gsm")
    )

    def run(self, first: str = STAGES[0], last: str = STAGES[-1]) -> Path:
        """`Chain.run`, from models that stand in folders, where each stage will find its memory."""
        for settings, model in self.config.trainings():
            check_machine(settings, model)
        folders = {name: self._stored(getattr(self.config, name)) for name in ("base", "student")}
        stored = replace(self, config=replace(self.config, **folders))
        return super(RealChain, stored).run(first, last)

    def settings(self, name: str) -> RLStage | SampledStage:
        """As in the small world; R1 has no reward models, and the student no more than its own
        number of rollouts."""
        if name == "r1":
            return self.config.scenarios
        stage = super().settings(name)
        if name == "student_rl":
            most = self.config.student_rl.rl.rollouts
            return stage.with_rl(rollouts=min(stage.rl.rollouts, most))
        return stage

    def controls(self) -> Path:
        raise InputError("the control arms are the small world's; run them with r1lab r1.")

    def measure(self, stage: str) -> None:
        """Measure a stage once; the cells of its column go to `benchmarks.json`."""
        if not (self.folder / stage / "benchmarks.json").exists():
            (self.folder / stage).mkdir(parents=True, exist_ok=True)
            processes = self.config.processes or default_processes()
            launch(
                real_measure_work, processes, self, self.model(stage), self.folder / stage,
                saves=False,
            )  # fmt: skip

    def _stored(self, model: str) -> str:
        """The model's folder; one that is no folder is stored in the chain's once."""
        if (Path(model) / "config.json").is_file():
            return model
        folder = self.folder / "models" / Path(model).name
        if not (folder / "tokenizer_config.json").is_file():  # which is written last
            loaded, tokenizer = load_model(model)
            loaded.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return str(folder)


def real_measure_work(
    world: World, stop: StopRequest, chain: RealChain, model: str, folder: Path
) -> bool:
    """One process's share of a measurement (temperature 0.6, top-p 0.95, as the paper's)."""
    (sampler, tokenizer, _), cells, values = open_model(model), {}, {}
    zero = chain.config.zero
    for file in chain.tests:
        whole = evaluate(
            sampler, tokenizer, load_problems(file), k=chain.config.samples, temperature=0.6,
            top_p=0.95, max_tokens=zero.rl.caps[-1][1], seed=chain.config.seed, template=zero.world.template,
            world=world,
        )  # fmt: skip
        name = Path(file).stem.removeprefix("test_")
        for row, measure in ((name, "correct"), (f"{name}_format", "format")):
            values[row] = whole[measure].mean(axis=1)
            value, *ci95 = bootstrap_ci(values[row], whole.levels)
            cells[row] = {"value": value, "ci95": ci95, "n": len(whole.ids)}
    if world.is_main:
        np.savez_compressed(folder / "values.npz", **values)
        Run(folder).write("benchmarks.json", cells)
    return True


def main(
    preset: str = "smollm2", name: str = "real", first: str = STAGES[0], last: str = STAGES[-1],
    seed: int = 0, processes: int = 0, trial: str = "",
) -> None:  # fmt: skip
    """R1's stages on a real model, in runs/NAME; the same command goes on where it stopped.

    Args:
        preset: smollm2, or qwen2.5-1.5b.
        first: the first stage; those before it must be there.
        last: the last stage.
        processes: 0 for one per GPU or core.
        trial: a file of a few problems: two steps of each stage, measured on these.
    """
    if preset not in RECIPES:
        raise InputError(f"there is no recipe {preset!r}; choose {' or '.join(RECIPES)}.")
    config = replace(RECIPES[preset], seed=seed, processes=processes)
    chain = RealChain(config, name)
    if trial:
        chain = RealChain(two_steps(config, trial), name, tests=(trial,))
    told = json.loads((chain.run(first, last) / "summary.json").read_text(encoding="utf-8"))
    for stage in MEASURED:
        for row, cell in told.get(stage, {}).get("benchmarks", {}).items():
            low, high = cell["ci95"]
            print(f"{stage:12} {row:22} {cell['value']:6.1%}  [{low:.1%}, {high:.1%}]")
    print("The last stage had no reward models: helpfulness and safety were left out.")


if __name__ == "__main__":
    sys.exit(exit_code(partial(tyro.cli, main, description=__doc__)))
