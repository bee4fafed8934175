"""The whole of R1 in one command: every stage after the other, each measured on every benchmark.

Base → R1-Zero (RL) → Dev1 (cold start) → Dev2 (reasoning RL) → Dev3 (rejection sampling) → R1 (RL for
all scenarios), and a small student that learns from R1's samples, against RL on that student.
Dev1 and Dev3 are fine-tuned from the base, as in the paper (v2 Fig. 2).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from r1lab.errors import InputError
from r1lab.stages.benchmarks import SETS, run_benchmarks, run_task
from r1lab.stages.cold_start import ColdStart
from r1lab.stages.distill import Distill, student_rl_stage
from r1lab.stages.from_samples import SampledStage, model_folder, open_sampler, run_sampled
from r1lab.stages.hacking import HACKING, run_hacking
from r1lab.stages.preferences import PreferenceConfig, train_reward_models
from r1lab.stages.reasoning import REASONING
from r1lab.stages.rejection import Rejection, random_arm
from r1lab.stages.rl_stage import RLStage
from r1lab.stages.scenarios import SCENARIOS
from r1lab.task import Task
from r1lab.training.distributed import World
from r1lab.training.processes import StopRequest, default_processes, launch
from r1lab.run import Run

STAGES = ("zero", "dev1", "dev2", "dev3", "r1", "student_sft", "student_rl")
# Stages done again with one thing left out, each beside the stage that it controls.
CONTROLS = ("dev2_no_language", "dev3_random")
MEASURED = ("base", "student", *STAGES, *CONTROLS)


@dataclass(frozen=True)
class R1Config:
    """The chain: where it begins, and the settings of each stage.

    A stage's own fields for its start (`model`, `source`, `base`) are filled in by the chain.

    Attributes:
        base, student: folders of the model that becomes R1, and of the smaller one it teaches: one
            that has the skills (`data/tiny` slips in one step of ten, notebook 08).
        seed: of every stage.
        processes: 0 for one per core.
        samples: answers to each benchmark question, at least.
        preferences: of the two reward models, which are trained before the last RL stage.
        student_rl: how the student is trained by RL; what is asked, and for how long, are worked
            out from the student's distillation.
        hacking: too many steps on the helpfulness model, from Dev3; one of the control arms.
    """

    base: str = "data/base"
    student: str = "data/small"
    seed: int = 0
    processes: int = 0
    samples: int = 4
    zero: RLStage = RLStage()
    cold_start: ColdStart = field(default_factory=ColdStart)
    reasoning: RLStage = REASONING
    rejection: Rejection = field(default_factory=Rejection)
    preferences: PreferenceConfig = field(default_factory=PreferenceConfig)
    scenarios: RLStage = SCENARIOS
    distill: Distill = field(default_factory=Distill)
    student_rl: RLStage = RLStage().with_rl(final_samples=4)
    hacking: RLStage = HACKING


@dataclass(frozen=True)
class Chain:
    """A chain in its folder: `runs/name/STAGE` for each stage, as the run folders of the stages.

    Attributes:
        task: asked at every stage in place of the small world. Its samples are filtered by its own
            check, and nothing is rewritten; the last RL stage has no reward models.
    """

    config: R1Config
    name: str = "r1"
    runs: Path = Path("runs")
    task: Task | None = None

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    def stage(self, name: str) -> Run:
        """The run of a stage, started or not."""
        return Run(self.folder / name)

    def run(self, first: str = STAGES[0], last: str = STAGES[-1]) -> Path:
        """Go through the stages from `first` to `last`; what is finished is left as it is.

        Raises:
            InputError: no such stages in that order, or the one before `first` has left no model.
            KeyboardInterrupt: the user stopped it; the same call goes on.
        """
        wanted = STAGES[_place(first) : _place(last) + 1]
        if not wanted:
            raise InputError(f"{last} comes before {first}; give them in the order of the stages.")
        for name in ("base", "student"):
            self.measure(name, Path(getattr(self.config, name)))
        for name in wanted:
            self._go_through(name)
        return self.folder

    def controls(self) -> Path:
        """Go through the control arms, which need the stages up to Dev3."""
        for name in CONTROLS:
            self._go_through(name)
        self.hack()
        self._write_summary()
        return self.folder

    def _go_through(self, name: str) -> None:
        getattr(self, name)()
        self.measure(name, self.stage(name).model)
        self._write_summary()

    def zero(self) -> None:
        """R1-Zero: RL on the base and nothing else."""
        self._rl("zero", self.config.zero, self.config.base)

    def dev1(self) -> None:
        """Dev1: the base, fine-tuned on R1-Zero's readable samples."""
        self._sampled("dev1", self.config.cold_start, "zero", self.config.base)

    def dev2(self) -> None:
        """Dev2: Dev1 after RL for reasoning in one language."""
        self._rl("dev2", self.config.reasoning, self._model("dev1", "dev2"))

    def dev3(self) -> None:
        """Dev3: the base, fine-tuned on Dev2's best samples and on written examples."""
        self._sampled("dev3", self.config.rejection, "dev2", self.config.base)

    def r1(self) -> None:
        """R1: Dev3 after RL for all scenarios."""
        start, stage = self._model("dev3", "r1"), self.config.scenarios
        if self.task is None:
            stage = stage.with_world(reward_models=self.reward_models(start))
        self._rl("r1", stage, start)

    def reward_models(self, start: str) -> str:
        """The folder of the two reward models, trained on what the base and Dev3 write.

        Raises InputError where those that are there were trained with other settings."""
        preferences = replace(
            self.config.preferences, writers=(self.config.base, start), backbone=self.config.base,
            seed=self.config.seed,
        )  # fmt: skip
        return str(train_reward_models(preferences, self.folder / "reward_models"))

    def student_sft(self) -> None:
        """The student, fine-tuned on R1's samples: distillation."""
        self._sampled("student_sft", self.config.distill, "r1", self.config.student)

    def student_rl(self) -> None:
        """The student after RL of its own, with no less compute than distilling took."""
        distilled = self.stage("student_sft").summary
        stage = student_rl_stage(distilled, self.config.student, self.config.student_rl)
        self._rl("student_rl", stage, self.config.student)

    def dev2_no_language(self) -> None:
        """Dev2 without the language reward, which is only logged (the paper's ablation, v2 B.6)."""
        stage = self.config.reasoning.with_world(language_weight=0.0)
        self._rl("dev2_no_language", stage, self._model("dev1", "dev2_no_language"))

    def dev3_random(self) -> None:
        """Dev3 from the same number of Dev2's samples, which no filter has seen."""
        config = random_arm(self.config.rejection)
        self._sampled("dev3_random", config, "dev2", self.config.base)

    def hack(self) -> dict:
        """Dev3 trained far too long on the helpfulness model alone, and on the person it was trained
        to imitate (v2 B.5, Fig. 6); the summary of `hacking.run_hacking`."""
        start = self._model("dev3", "hacking")
        stage = self.config.hacking.with_world(reward_models=self.reward_models(start))
        return run_hacking(
            stage.with_rl(seed=self.config.seed), start, self.folder / "hacking"
        )

    def measure(self, stage: str, model: Path) -> None:
        """The stage's column of the table, measured once: the cells in its `benchmarks.json`, the
        values of every problem in its `values.npz`, written first."""
        folder, config = self.folder / stage, self.config
        if not ((folder / "benchmarks.json").exists() and (folder / "values.npz").exists()):
            folder.mkdir(parents=True, exist_ok=True)
            processes = config.processes or default_processes()
            launch(
                measure_work, processes, Run(folder), model, config.samples, config.seed, self.task,
                saves=False,
            )  # fmt: skip

    def values(self, stage: str, row: str) -> np.ndarray:
        """A row of a measured stage: one value for each of its problems, NaN where it has none."""
        with np.load(self.folder / stage / "values.npz") as rows:
            return rows[row]

    def summary(self) -> dict[str, dict]:
        """Stage -> its summary with `benchmarks`, `tokens` and `cpu_hours`, of all that is there."""
        stages = {}
        for name in MEASURED:
            stage = self.stage(name)
            if not (stage.folder / "benchmarks.json").exists():
                continue
            about = {}
            if stage.finished:
                about = {"tokens": sampled_tokens(stage), **stage.summary}
                processes = stage.config["processes"] or about["machine"]["cores"]
                about["cpu_hours"] = round(about["wall_seconds"] * processes / 3600, 5)
            stages[name] = {**about, "benchmarks": stage.read("benchmarks.json")}
        return stages

    def _write_summary(self) -> None:
        Run(self.folder).write("summary.json", self.summary())

    def _model(self, before: str, stage: str) -> str:
        return str(model_folder(str(self.folder / before), stage))

    def _rl(self, name: str, stage: RLStage, model: str) -> None:
        stage = stage.with_rl(seed=self.config.seed, processes=self.config.processes)
        stage.run(model, f"{self.name}/{name}", self.runs, self.task)

    def _sampled(self, name: str, config: SampledStage, source: str, base: str) -> None:
        seed = self.config.seed
        config = replace(
            config, source=self._model(source, name), base=base, processes=self.config.processes,
            sampling=replace(config.sampling, seed=seed), sft=replace(config.sft, seed=seed),
        )  # fmt: skip
        run_sampled(config, f"{self.name}/{name}", runs=self.runs, task=self.task)


def measure_work(
    world: World, stop: StopRequest, run: Run, model: Path, samples: int, seed: int,
    task: Task | None, sets: Sequence[str] = SETS,
) -> bool:  # fmt: skip
    """One process's share of a measurement; the first writes the column to the run's folder."""
    sampler, tokenizer = open_sampler(world, model)
    shared = {"gather": world.gather, "shard": (world.rank, world.size), "seed": seed}
    if task is None:
        column = run_benchmarks(sampler, tokenizer, samples, sets=sets, **shared)
    else:
        column = run_task(sampler, tokenizer, task, samples, **shared)
    if world.is_main:
        np.savez_compressed(run.folder / "values.npz", **column.values)
        run.write("benchmarks.json", column.cells)
    return True


def sampled_tokens(run: Run) -> int | None:
    """Tokens of all completions that a run of reinforcement learning sampled for its training."""
    config = run.config
    if "group_size" not in config:
        return None
    means = [row["tokens_mean"] for row in run.metrics if row["kind"] == "train"]
    return round(sum(means) * config["questions"] * config["group_size"])


def _place(stage: str) -> int:
    if stage not in STAGES:
        raise InputError(f"there is no stage {stage!r}; choose one of {', '.join(STAGES)}.")
    return STAGES.index(stage)
