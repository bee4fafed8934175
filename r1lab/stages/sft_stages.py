"""The stages of fine-tuning: sample one model, teach another.

The samples go through filters, become examples, and are stored as a data set with its provenance;
then a base is fine-tuned on it. Each part is found again when a stopped stage goes on. Three stages
are made so: the cold start (`ColdStart`, gives Dev1), rejection sampling (`Rejection`, gives Dev3)
and distillation (`Distill`, gives the student).
"""

import itertools
import math
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

from r1lab.errors import InputError
from r1lab.models.places import local_model
from r1lab.models.policy import load_model
from r1lab.stages.rl_stages import SETTINGS, RLStage, cannot_run_programs, runnable
from r1lab.stages.samples import Example, HarvestConfig, harvest, make_data, read_harvest
from r1lab.task import Task
from r1lab.training.config import SAMPLING_FLOPS
from r1lab.training.estimate import open_model
from r1lab.training.processes import compute
from r1lab.training.rl import described
from r1lab.run import Run, from_json
from r1lab.training.sft import SFTConfig, fine_tune
from r1lab.world.corpus import readable, written_examples

SMALL_WORLD_ONLY = ("one language", "no repetition")  # filters that read its words and attempts


@dataclass(frozen=True)
class SampledStage:
    """A stage that fine-tunes `base` on samples of `source`.

    Attributes:
        source, base: folders of models, or of runs (their last checkpoint is meant).
        processes: 0 for one per core.
    """

    source: str
    base: str
    sampling: HarvestConfig
    sft: SFTConfig
    processes: int = 0

    def examples(self, selected: list[Example], rng: random.Random) -> list[Example]:
        """What is learned from the samples that were selected: here, just these."""
        return selected

    def run(self, name: str, runs: Path = Path("runs"), task: Task | None = None) -> Run:
        """Go through the stage in `runs/name`, or go on there; returns the run.

        It holds the samples (`samples/`), the data set (`data/`), the fine-tuned model
        (`checkpoints/`) and `summary.json`.

        Args:
            task: asked in place of the small world; its samples are filtered, and not rewritten.
        Raises:
            InputError: a model is missing, or no sample is left after filtering; nothing is lost.
            KeyboardInterrupt: the user stopped it; the same call goes on.
        """
        for model in (self.source, self.base):
            model_folder(model, name)
        return compute(
            Run(runs / name), self, stage_work, self.processes, self, task,
            about={"task": described(task)} if task else {},
        )  # fmt: skip

    def with_sampling(self, **changes):
        return replace(self, sampling=replace(self.sampling, **changes))


def model_folder(path: str, stage: str) -> Path:
    """The model that a stage starts from: a model's folder, or the last checkpoint of a run's.

    Raises:
        InputError: the stage before has left no model there.
    """
    model = local_model(path)
    if model is None:
        raise InputError(
            f"{stage} needs the model in {path}, and there is none; finish the stage that makes it "
            "first, or name another folder."
        )
    return model


def stage_work(world, stop, run: Run, stage: SampledStage, task: Task | None) -> bool:
    """One process's share of the stage. False: stopped on the way."""
    started = time.monotonic()
    source, base = (model_folder(path, run.name) for path in (stage.source, stage.base))
    sampler, tokenizer, _ = open_model(source)
    parameters = sampler.model.num_parameters()
    samples, data = run.folder / "samples", run.folder / "data"
    before = read_harvest(samples)[1]
    if task:
        names = tuple(name for name in stage.sampling.filters if name not in SMALL_WORLD_ONLY)
        stage = stage.with_sampling(filters=names)
    mixture = runnable(stage.sampling.mixture)
    left_out = cannot_run_programs() if mixture != stage.sampling.mixture else ""
    stage = stage.with_sampling(mixture=mixture)
    asked = task or stage.sampling.task()
    if not harvest(world, stop, stage.sampling, asked, samples, sampler, tokenizer):
        return False
    del sampler  # its model makes room for the one that is trained
    if not world.any((data / "provenance.json").exists()) and world.is_main:
        make_data(stage, run, str(source), tokenizer, task is None, programs_left_out=left_out)
    world.gather(None)  # nobody reads the data before they are written
    provenance = run.read("data/provenance.json")
    about = {"data": provenance, "sampling_flops": SAMPLING_FLOPS * parameters * provenance["tokens"]}
    return fine_tune(world, stop, run, stage.sft, base, data, about, started - before)


@dataclass(frozen=True)
class ColdStart(SampledStage):
    """Cold start: R1-Zero's own samples, made readable, teach the base to begin well (Dev1; v2 B.3.2).

    The paper drew several samples per prompt from R1-Zero at temperature 1.0, kept what was correct
    and readable, and had annotators and then DeepSeek-V3 rewrite it: first person, thinking in the
    language of the question, a summary at the end. It speaks of "thousands" of examples. Here rules
    do the rewriting (`world.corpus.readable`), which only a world of so few words allows. Mixed languages are
    no reason to drop a sample: they are translated.
    """

    source: str = "data/zero"
    base: str = "data/base"
    sampling: HarvestConfig = from_json(HarvestConfig(), SETTINGS["cold_start"])
    sft: SFTConfig = SFTConfig()

    def examples(self, selected, rng):
        """Each sample in the question's language, with both tags and a summary."""
        return [(problem, readable(problem, completion)) for problem, completion in selected]


BEST_SAMPLES = from_json(HarvestConfig(), SETTINGS["best_samples"])


@dataclass(frozen=True)
class Rejection(SampledStage):
    """Rejection sampling: Dev2's best samples and written examples teach the base (Dev3; v2 B.3.3).

    About 600,000 reasoning samples of the paper's 800,000 came from the checkpoint after reasoning
    RL, several per prompt, of which only correct ones were kept, without mixed languages, long
    paragraphs or code blocks; some 200,000 others came from DeepSeek-V3's supervised data. V3-Base,
    not Dev2, was then trained for two epochs. The paper has a model judge what rules cannot; here
    rules grade all. `sampling.select="random"` is the control arm.

    Attributes:
        written_share: of all examples, the written ones (the paper: 200,000 of 800,000).
    """

    source: str = "runs/r1/dev2"
    base: str = "data/base"
    sampling: HarvestConfig = BEST_SAMPLES
    sft: SFTConfig = SFTConfig(epochs=2)
    written_share: float = 0.25

    def examples(self, selected, rng):
        """The samples, and the written examples."""
        count = round(len(selected) * self.written_share / (1 - self.written_share))
        return selected + list(itertools.islice(written_examples(self.sampling.seed), count))


@dataclass(frozen=True)
class Distill(Rejection):
    """Distillation: a small student learns from R1's samples (v2 B.4.3, F.1).

    The paper fine-tunes its students on the 800,000 samples of the third stage, curated with R1, and
    without any RL. Here samples are drawn from R1 again, through the same filters. The student reads
    more epochs at a higher rate, as the paper's smaller ones do (1e-4 at 1.5B, 2e-5 at 70B).
    """

    source: str = "runs/r1/r1"
    base: str = "data/small"
    sampling: HarvestConfig = replace(BEST_SAMPLES, chunks=12)
    sft: SFTConfig = SFTConfig(epochs=3, learning_rate=3e-3)


# Of prompt and completion, in RL on the student: no mean is lower, so that its compute is spent
# before its rollouts are.
FEWEST_TOKENS = 20


def student_rl_stage(distilled: dict, student: str, stage: RLStage) -> RLStage:
    """RL on the student, on the same kinds of questions, until it has spent what distilling took.

    The paper trains one 32B base by RL alone for over 10,000 steps, which its distilled twin beats
    for less compute. Counted is what the student's own learning cost (`flops` of the summaries).
    R1's sampling (`sampling_flops`) is beside it: it is paid once for all students, as R1's own
    training is.

    Args:
        distilled: the `summary.json` of the student's fine-tuning.
        stage: the other settings of the RL.
    """
    rl = stage.rl
    parameters = load_model(student)[0].num_parameters()
    flops = rl.flops(parameters, rl.questions * rl.group_size * FEWEST_TOKENS)
    rollouts = math.ceil(distilled["flops"] / flops)
    sampling = distilled["data"]["settings"]["sampling"]
    stage = stage.with_world(mixture=sampling["mixture"], lang_weights=sampling["lang_weights"])
    return stage.with_rl(
        rollouts=rollouts, flops_limit=distilled["flops"],
        eval_every=max(rl.eval_every, rollouts // 16),
    )  # fmt: skip


TRACES = from_json(SFTConfig(), SETTINGS["traces"])
SFT_RECIPES = {name: about | {"config": TRACES} for name, about in SETTINGS["recipes"].items()}
SFT_PRESETS = {"small": {}} | SFT_RECIPES
