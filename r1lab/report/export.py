"""A run's model for others: a plain Hugging Face folder with a model card, and its upload to the Hub."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from r1lab.errors import InputError, reason
from r1lab.evaluation.table import summary_table
from r1lab.files import whole, write_text
from r1lab.models.policy import load_model, save_model
from r1lab.report.answers import PAGES
from r1lab.run import Run


def export(run: Run, folder: str | Path, best: bool = False) -> Path:
    """Write a run's model, an adapter merged into its base, with the tokenizer and a model card.

    Args:
        folder: it is made, or empty.
        best: the checkpoint with the best held-out accuracy, not the last one.
    Raises:
        InputError: the folder holds something, or the run has no checkpoint.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder; export to another one, or empty it first.")
    checkpoint = run.best if best else run.model
    model, tokenizer = load_model(checkpoint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole(folder) as partial:
        save_model(model, tokenizer, partial)
        write_text(partial / "README.md", card(run, checkpoint, model))
    return folder


def push(run: Run, repository: str, best: bool = False, private: bool = True) -> str:
    """Upload what `export` writes to a repository of the Hub, which is made if need be; its address.

    Raises:
        InputError: nobody is logged in, or the Hub refuses.
    """
    if get_token() is None:
        raise InputError(
            "to push to the Hub you need its token: run `hf auth login`, or set HF_TOKEN to one that may "
            "write."
        )
    with TemporaryDirectory() as place:
        folder = export(run, Path(place) / "model", best)
        try:
            address = HfApi().create_repo(repository, private=private, exist_ok=True)
            HfApi().upload_folder(repo_id=repository, folder_path=folder)
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise InputError(
                f"the Hub did not take {repository} ({reason(error)}); give it as user/name."
            ) from error
    return str(address)


def card(run: Run, checkpoint: Path, model) -> str:
    """Write the model card of a checkpoint: data, rewards, numbers before and after, command."""
    step, summary = int(checkpoint.name.removeprefix("step-")), run.summary if run.finished else {}
    names = {name for row in run.metrics for name in row if name.startswith("reward/")}
    evals = run.evals
    after = next((row for row in evals if row["step"] == step), run.evaluation("final"))
    compared = {"Before": run.evaluation("base"), f"Step {step}": after}
    text = PAGES.get_template("card.md").render(
        run=run, config=run.config, summary=summary, step=step, model=model,
        rewards=[name.removeprefix("reward/") for name in sorted(names)],
        numbers=summary_table(compared) if evals else f"Loss: {summary.get('loss', 'unknown')}.",
        settings=json.dumps(run.config, indent=1, ensure_ascii=False),
    )  # fmt: skip
    return f"{text}\n"
