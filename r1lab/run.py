"""A run: the folder of everything that computes for long, with its settings, metrics and summary."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from r1lab.errors import InputError
from r1lab.files import Row, read_rows, write_json, write_rows

# Who computes and when, or which of several results: what may differ when a run goes on.
WITHOUT_EFFECT = ("processes", "parallel", "grading", "benchmarks", "track")
# Settings that there were once, with what a run has today.
FORMER = {"lag": 0, "advantage": "group", "gae_lambda": 1.0, "critic_learning_rate": 1e-3,
          "french_share": 0.0}  # fmt: skip
SAMPLE_KEYS = ("id", "step", "level", "prompt", "completion", "rewards")


def first_process() -> bool:
    """True for the process that writes what is written once; also before the processes have met."""
    return os.environ.get("RANK", "0") == "0"


class Run:
    """A folder with `config.json`, and in time metrics, samples, checkpoints and `summary.json`.

    It is finished when it has a summary. Each file is written whole or not at all, and read again
    each time it is asked for.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def started(self) -> bool:
        return (self.folder / "config.json").exists()

    @property
    def finished(self) -> bool:
        return (self.folder / "summary.json").exists()

    @property
    def config(self) -> Row:
        """The settings. Raises InputError where they are missing or damaged."""
        return self.read("config.json")

    @property
    def summary(self) -> Row:
        """What came out. Raises InputError before the run is finished."""
        return self.read("summary.json")

    @property
    def metrics(self) -> list[Row]:
        """Rows of kind "train" after each rollout or step, and "eval", by step; [] before the first.

        A resumed run may have written a step twice: its last account counts.
        """
        latest = {(row["kind"], row["step"]): row for row in self._rows("metrics.jsonl", ("kind", "step"))}
        return sorted(latest.values(), key=lambda row: row["step"])

    @property
    def evals(self) -> list[Row]:
        return [row for row in self.metrics if row["kind"] == "eval"]

    @property
    def measured(self) -> list[Row]:
        """The metrics of a run that has some. Raises InputError where there are none."""
        if rows := self.metrics:
            return rows
        raise InputError(
            f"{self.folder} is not a run folder, or has no metrics yet: wait for its first evaluation."
        )

    @property
    def samples(self) -> list[Row]:
        """The rows of `samples.jsonl`: problem, completion, rewards and advantage."""
        return self._rows("samples.jsonl", SAMPLE_KEYS)

    def evaluation(self, which: str) -> Row:
        """The evaluation "base" or "final"; of an unfinished run, its first or its last so far."""
        if self.finished:
            return self.summary.get(which, {})
        chosen = self.evals[:1] if which == "base" else self.evals[1:]
        return chosen[-1] if chosen else {}

    @property
    def checkpoints(self) -> list[Path]:
        """Folders of the checkpoints that are kept, oldest first."""
        return sorted((self.folder / "checkpoints").glob("step-*"))

    @property
    def model(self) -> Path:
        """The folder of the last checkpoint. Raises InputError where there is none."""
        if not self.checkpoints:
            raise InputError(f"{self.folder} has no checkpoint yet; let the run go on, or start it.")
        return self.checkpoints[-1]

    @property
    def best(self) -> Path:
        """The checkpoint with the best held-out accuracy; the last one if none was evaluated."""
        accuracy = {f"step-{row['step']:06d}": row["pass_at_1"] for row in self.evals}
        return max([self.model, *self.checkpoints], key=lambda path: accuracy.get(path.name, -1.0))

    def read(self, name: str) -> Row:
        """Read one of the folder's JSON files."""
        path = self.folder / name
        try:
            return {} | json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"{path} is missing: {self.folder} is no run, or not finished.") from error
        except (ValueError, TypeError) as error:  # not JSON, or no object
            raise InputError(
                f"{path} is damaged ({error}); restore it, or give --overwrite to start over."
            ) from error

    def write(self, name: str, content: Mapping):
        write_json(self.folder / name, content)

    def _rows(self, name, needed):
        path = self.folder / name
        return read_rows(path, needed) if path.is_file() else []

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from working in the folder meanwhile. Of several processes, the first holds it.

        Raises InputError where another process works here."""
        if not first_process():
            yield
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(self.folder.with_name(f".{self.folder.name}.lock")).acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"another process is working in {self.folder}; wait for it, or give --name for another run."
            ) from error
        with lock:
            yield

    def prepare(self, settings: object, about: Mapping = {}, resume: bool = False, overwrite: bool = False):
        """Make the folder and its config.json; refuse what would lose an earlier run.

        Of several processes under torchrun, the first does it; the others wait to join it.

        Args:
            settings: a dataclass that JSON can hold; stored with `about`.
            resume: accept a run that is finished, which goes on where it is to have more rollouts.
            overwrite: delete an earlier run first.
        Raises:
            InputError: it is finished, has other settings, or may not be deleted.
        """
        alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
        if overwrite and not alone:
            raise InputError(
                f"--overwrite deletes what other processes look for; remove {self.folder} by hand, or "
                "give --name for another run."
            )
        if not first_process():
            return
        wanted = as_json(settings) | as_json(about)
        if overwrite and self.folder.exists():
            self._delete(wanted.get("model", ""))
        if not self.started or list(self.folder.iterdir()) == [self.folder / "config.json"]:
            # New, or nothing has come of it: it was refused after its settings were stored.
            self.folder.mkdir(parents=True, exist_ok=True)
            self.write("config.json", wanted)
            return
        if self.finished and not resume:
            raise InputError(
                f"{self.folder} is finished; give --name for another run, or --overwrite to do it again."
            )
        # A setting that is newer than the run had its default's effect.
        stored, wanted = as_json(type(settings)()) | self.config, FORMER | wanted
        more = alone and self.finished and wanted.get("rollouts", 0) > stored.get("rollouts", 0)
        if more:
            stored["rollouts"] = wanted["rollouts"]
        different = [key for key in stored if key not in WITHOUT_EFFECT and wanted.get(key) != stored[key]]
        if "task" in different:
            raise InputError(
                f"{self.folder} was started with another task: its problems, rewards or check have "
                "changed; restore them, or give --name for another run."
            )
        if different:
            raise InputError(
                f"{self.folder} was started with other settings ({', '.join(different)}); resume it "
                "with the same ones, or give --name for another run."
            )
        if more:
            self._reopen(wanted["rollouts"])

    def _delete(self, model):
        """Raises InputError where the folder is no run, or other runs or the model lie in it."""
        inside = Path(model).resolve().is_relative_to(self.folder.resolve())
        if inside or not self.started or any(self.folder.glob("*/metrics.jsonl")):
            raise InputError(
                f"{self.folder} is no run, or holds other runs or the model to start from, and is not "
                "deleted; give --name for another run."
            )
        shutil.rmtree(self.folder)

    def _reopen(self, rollouts):
        """Let a finished run have more rollouts. Raises InputError where its checkpoints are gone."""
        if not self.checkpoints:
            raise InputError(f"{self.folder} has no checkpoint to go on from; give --name for another run.")
        last = self.folder / "eval_final.npz"
        if last.exists():
            (self.folder / "evals").mkdir(exist_ok=True)
            last.replace(self.folder / "evals" / f"step-{self.summary['steps']:06d}.npz")
        (self.folder / "summary.json").unlink()
        self.write("config.json", self.config | {"rollouts": rollouts})


class MetricsLog:
    """A JSONL file, cut back to the checkpoint's step when a run is resumed; empty again at step 0."""

    def __init__(self, path: Path, resume_at: int = 0):
        self.path = path
        if resume_at and path.exists():
            write_rows(path, [row for row in read_rows(path) if row["step"] <= resume_at])
        else:
            path.unlink(missing_ok=True)

    def write(self, row: dict):
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        except OSError as error:
            raise InputError(
                f"{self.path} could not be written ({error.strerror}); free some space and "
                "continue with --resume."
            ) from error


def as_json(settings: object) -> dict:
    """Settings as a JSON file gives them back."""
    return json.loads(json.dumps(settings, default=asdict))


def from_json(default, stored):
    """Settings out of their JSON, in the shape of `default`; what is missing there is as in it."""
    if is_dataclass(default):
        names = vars(default).keys() & stored.keys()
        read = {name: from_json(getattr(default, name), stored[name]) for name in names}
        return replace(default, **read)
    return tuple(from_json(None, one) for one in stored) if isinstance(stored, list) else stored
