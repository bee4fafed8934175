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
from r1lab.stages.benchmarks import SETS, run_benchmarks
from r1lab.evaluation.rows import read_rows
from r1lab.stages.cold_start import ColdStart
from r1lab.stages.distill import Distill, student_rl_config
from r1lab.stages.from_samples import SampledStage, model_folder, open_sampler, run_sampled
from r1lab.stages.hacking import HACKING, run_hacking
from r1lab.stages.reasoning import REASONING
from r1lab.stages.rejection import Rejection, random_arm
from r1lab.stages.scenarios import SCENARIOS
from r1lab.stages.zero import PRESETS
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import default_processes, join_world
from r1lab.training.reward_model import RewardModelConfig, train_reward_models
from r1lab.training.run import launch, run_grpo
from r1lab.training.runs import write_atomically

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
    zero: GRPOConfig = PRESETS["cpu"]
    cold_start: ColdStart = field(default_factory=ColdStart)
    reasoning: GRPOConfig = REASONING
    rejection: Rejection = field(default_factory=Rejection)
    preferences: RewardModelConfig = field(default_factory=RewardModelConfig)
    scenarios: GRPOConfig = SCENARIOS
    distill: Distill = field(default_factory=Distill)
    student_rl: GRPOConfig = replace(PRESETS["cpu"], final_samples=4)
    hacking: GRPOConfig = HACKING


@dataclass(frozen=True)
class Chain:
    """A chain in its folder: `runs/name/STAGE` for each stage, as the run folders of the stages."""

    config: R1Config
    name: str = "r1"
    runs: Path = Path("runs")

    @property
    def folder(self) -> Path:
        return self.runs / self.name

    def run(self, first: str = STAGES[0], last: str = STAGES[-1]) -> Path:
        """Go through the stages from `first` to `last`; what is finished is left as it is.

        Raises:
            InputError: no such stages in that order, or the one before `first` has left no model.
            KeyboardInterrupt: the user stopped it; the same call goes on.
        """
        wanted = range(_place(first), _place(last) + 1)
        if not wanted:
            raise InputError(f"{last} comes before {first}; give them in the order of the stages.")
        for name in ("base", "student"):
            self.measure(name, Path(getattr(self.config, name)))
        for place in wanted:
            stage = STAGES[place]
            getattr(self, stage)()
            self.measure(stage, model_folder(str(self.folder / stage), stage))
            write_atomically(self.folder / "summary.json", json.dumps(self.summary(), indent=1))
        return self.folder

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
        start = self._model("dev3", "r1")
        scenarios = replace(self.config.scenarios, reward_models=self.reward_models(start))
        self._rl("r1", scenarios, start)

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
        summary = json.loads((self.folder / "student_sft/summary.json").read_text(encoding="utf-8"))
        config = student_rl_config(summary, self.config.student, self.config.student_rl)
        self._rl("student_rl", config, self.config.student)

    def controls(self) -> Path:
        """Go through the control arms, which need the stages up to Dev3."""
        for stage in CONTROLS:
            getattr(self, stage)()
            self.measure(stage, model_folder(str(self.folder / stage), stage))
        self.hack()
        write_atomically(self.folder / "summary.json", json.dumps(self.summary(), indent=1))
        return self.folder

    def dev2_no_language(self) -> None:
        """Dev2 without the language reward, which is only logged (the paper's ablation, v2 B.6)."""
        config = replace(self.config.reasoning, language_weight=0.0)
        self._rl("dev2_no_language", config, self._model("dev1", "dev2_no_language"))

    def dev3_random(self) -> None:
        """Dev3 from as many of Dev2's samples, which no filter has seen."""
        config = random_arm(self.config.rejection)
        self._sampled("dev3_random", config, "dev2", self.config.base)

    def hack(self) -> dict:
        """Dev3 trained far too long on the helpfulness model alone, and on the person it stands for
        (v2 B.5, Fig. 6); the summary of `hacking.run_hacking`."""
        start = self._model("dev3", "hacking")
        config = replace(
            self.config.hacking, model=start, reward_models=self.reward_models(start),
            seed=self.config.seed,
        )  # fmt: skip
        return run_hacking(config, self.folder / "hacking")

    def measure(self, stage: str, model: Path) -> None:
        """The stage's column of the table, measured once: the cells in its `benchmarks.json`, the
        values of every problem in its `values.npz`, written first."""
        folder = self.folder / stage
        if not ((folder / "benchmarks.json").exists() and (folder / "values.npz").exists()):
            folder.mkdir(parents=True, exist_ok=True)
            processes = self.config.processes or default_processes()
            launch(
                benchmark_worker, processes, model, self.config.samples, self.config.seed, folder
            )

    def values(self, stage: str, row: str) -> np.ndarray:
        """A row of a measured stage: one value for each of its problems, NaN where it has none."""
        with np.load(self.folder / stage / "values.npz") as rows:
            return rows[row]

    def summary(self) -> dict[str, dict]:
        """Stage -> its summary with `benchmarks`, `tokens` and `cpu_hours`, of all that is there."""
        stages = {}
        for stage in MEASURED:
            folder = self.folder / stage
            if not (folder / "benchmarks.json").exists():
                continue
            told = {}
            if (folder / "summary.json").exists():
                told = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
                told = {"tokens": sampled_tokens(folder), **told}
                config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
                processes = config["processes"] or told["machine"]["cores"]
                told["cpu_hours"] = round(told["wall_seconds"] * processes / 3600, 5)
            benchmarks = json.loads((folder / "benchmarks.json").read_text(encoding="utf-8"))
            stages[stage] = {**told, "benchmarks": benchmarks}
        return stages

    def _model(self, before: str, stage: str) -> str:
        return str(model_folder(str(self.folder / before), stage))

    def _rl(self, stage: str, config: GRPOConfig, model: str) -> None:
        config = replace(
            config, model=model, seed=self.config.seed, processes=self.config.processes
        )
        run_grpo(config, f"{self.name}/{stage}", runs=self.runs, resume=self._begun(stage))

    def _sampled(self, stage: str, config: SampledStage, source: str, base: str) -> None:
        seed = self.config.seed
        config = replace(
            config, source=self._model(source, stage), base=base, processes=self.config.processes,
            sampling=replace(config.sampling, seed=seed), sft=replace(config.sft, seed=seed),
        )  # fmt: skip
        run_sampled(config, f"{self.name}/{stage}", runs=self.runs, resume=self._begun(stage))

    def _begun(self, stage: str) -> bool:
        return (self.folder / stage / "config.json").exists()


def benchmark_worker(
    model: Path, samples: int, seed: int, folder: Path, sets: Sequence[str] = SETS
) -> int:
    """One process of a measurement; the first writes the column to `folder`. Exit code 0."""
    world, (sampler, tokenizer) = join_world(), open_sampler(model)
    column = run_benchmarks(
        sampler, tokenizer, samples, gather=world.gather, shard=(world.rank, world.size), seed=seed,
        sets=sets,
    )  # fmt: skip
    if world.is_main:
        np.savez_compressed(folder / "values.npz", **column.values)
        write_atomically(folder / "benchmarks.json", json.dumps(column.cells, indent=1))
    return 0


def sampled_tokens(folder: Path) -> int | None:
    """Tokens of all completions that a run of reinforcement learning sampled for its training."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "group_size" not in config:
        return None
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row["kind"] == "train"]
    return round(sum(row["tokens_mean"] for row in rows) * config["questions"] * config["group_size"])


def _place(stage: str) -> int:
    if stage not in STAGES:
        raise InputError(f"there is no stage {stage!r}; choose one of {', '.join(STAGES)}.")
    return STAGES.index(stage)
