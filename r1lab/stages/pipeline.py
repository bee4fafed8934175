"""The whole of R1 in one command: every stage after the other, each measured on every benchmark.

Base → R1-Zero (RL) → Dev1 (cold start) → Dev2 (reasoning RL) → Dev3 (rejection sampling) → R1 (RL for
all scenarios), and a small student that learns from R1's samples, against RL on that student.
Dev1 and Dev3 are fine-tuned from the base, as in the paper (v2 Fig. 2).
"""

from dataclasses import dataclass, replace
from pathlib import Path

from r1lab.errors import InputError, require_known
from r1lab.files import read_toml
from r1lab.stages.benchmarks import measure_work
from r1lab.stages.hacking import HACKING, run_hacking
from r1lab.stages.preferences import PreferenceConfig, train_reward_models
from r1lab.stages.rl_stages import REASONING, SCENARIOS, RLStage
from r1lab.stages.sft_stages import ColdStart, Distill, Rejection, SampledStage, student_rl_stage
from r1lab.task import Task
from r1lab.training.processes import default_processes, launch
from r1lab.run import Run, from_json


PLACES = read_toml(__file__, "places")  # of the stages in the chain
STAGES = tuple(PLACES)[:-2]
CONTROLS = tuple(PLACES)[-2:]
MEASURED = ("base", "student", *PLACES)


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
    cold_start: ColdStart = ColdStart()
    reasoning: RLStage = REASONING
    rejection: Rejection = Rejection()
    preferences: PreferenceConfig = PreferenceConfig()
    scenarios: RLStage = SCENARIOS
    distill: Distill = Distill()
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
            InputError: no such stages in that order, the stage before `first` is not finished, or a
                stage cannot train with its settings; before any work.
            KeyboardInterrupt: the user stopped it; the same call goes on.
        """
        for name in (first, last):
            require_known(name, STAGES, "stage")
        start = STAGES.index(first)
        end = STAGES.index(last)
        if end < start:
            raise InputError(f"{last} comes before {first}; give them in the order of the stages.")
        if start:
            self.check_finished(STAGES[start - 1], first)
        learning = (place for place in PLACES.values() if "source" not in place)
        for stage in (getattr(self.config, place["settings"]) for place in learning):
            stage.rl.check(self.config.processes or default_processes(stage.rl.questions))
        for name in ("base", "student"):
            self.measure(name)
        for name in STAGES[start : end + 1]:
            self.go_through(name)
        return self.folder

    def controls(self) -> Path:
        """Go through the control arms. Raises InputError where Dev3 is not finished."""
        self.check_finished("dev3", "the control arms")
        for name in CONTROLS:
            self.go_through(name)
        self.hack()
        return self.folder

    def hack(self) -> dict:
        """Dev3 trained far too long on the helpfulness model alone, and on the person it was trained
        to imitate (v2 B.5, Fig. 6); the summary of `hacking.run_hacking`."""
        self.check_finished("dev3", "hacking")
        stage = self.config.hacking.with_world(reward_models=self.reward_models())
        stage = stage.with_rl(seed=self.config.seed)
        return run_hacking(stage, self.model("dev3"), self.folder / "hacking")

    def check_finished(self, before: str, wanted: str):
        """Refuse what is wanted where the stage before it is not finished."""
        run = self.stage(before)
        if not run.finished:
            state = "stopped on the way" if run.started else "was not started"
            raise InputError(
                f"before {wanted} comes {before}, which in {self.folder} {state}; finish it with "
                f"r1lab r1 --name {self.name} --to {before}, and the options that the chain was given."
            )

    def go_through(self, name: str):
        """Train and measure a stage, or what is left of it."""
        place = PLACES[name]
        config = self.config
        stage = self.settings(name)
        start = self.model(place["start"])
        where = f"{self.name}/{name}"
        if "source" in place:
            stage = replace(
                stage.with_sampling(seed=config.seed), source=self.model(place["source"]), base=start,
                processes=config.processes, sft=replace(stage.sft, seed=config.seed),
            )  # fmt: skip
            stage.run(where, self.runs, self.task)
        else:
            stage = stage.with_rl(seed=config.seed, processes=config.processes)
            stage.run(start, where, self.runs, self.task)
        self.measure(name)
        Run(self.folder).write("summary.json", self.summary())

    def settings(self, name: str) -> RLStage | SampledStage:
        """The settings of a stage, with what the stages before it decide."""
        place = PLACES[name]
        stage = from_json(getattr(self.config, place["settings"]), place.get("change", {}))
        if name == "r1" and self.task is None:
            return stage.with_world(reward_models=self.reward_models())
        if name == "student_rl":  # no less compute than distilling took
            return student_rl_stage(self.stage("student_sft").summary, self.config.student, stage)
        return stage

    def reward_models(self) -> str:
        """The folder of the two reward models, trained on what the base and Dev3 write.

        Raises InputError where those that are there were trained with other settings."""
        preferences = replace(
            self.config.preferences, writers=(self.config.base, self.model("dev3")),
            backbone=self.config.base, seed=self.config.seed,
        )  # fmt: skip
        return str(train_reward_models(preferences, self.folder / "reward_models"))

    def model(self, name: str) -> str:
        """The folder of the model that a stage has made, or of the base or the student."""
        if name in ("base", "student"):
            return getattr(self.config, name)
        return str(self.stage(name).model)

    def measure(self, stage: str):
        """Measure a stage's column of the table, once: see `measure_work`."""
        run = self.stage(stage)
        config = self.config
        if not (run.folder / "benchmarks.json").exists():
            run.folder.mkdir(parents=True, exist_ok=True)
            launch(
                measure_work, config.processes, run, Path(self.model(stage)),
                config.samples, config.seed, self.task, saves=False,
            )  # fmt: skip

    def summary(self) -> dict[str, dict]:
        """Stage -> its summary with `benchmarks`, `tokens` and `cpu_hours`, of all that is there."""
        stages = {}
        for run in map(self.stage, MEASURED):
            if not (run.folder / "benchmarks.json").exists():
                continue
            about = {}
            if run.finished:
                about = {"tokens": sampled_tokens(run), **run.summary}
                processes = run.config["processes"] or about["machine"]["cores"]
                about["cpu_hours"] = round(about["wall_seconds"] * processes / 3600, 5)
            stages[run.name] = {**about, "benchmarks": run.read("benchmarks.json")}
        return stages


def sampled_tokens(run: Run) -> int | None:
    """Tokens of all completions that a run of reinforcement learning sampled for its training."""
    config = run.config
    if "group_size" not in config:
        return None
    means = [row["tokens_mean"] for row in run.metrics if row["kind"] == "train"]
    return round(sum(means) * config["questions"] * config["group_size"])
