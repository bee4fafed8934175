"""Written documents to learn from: how a stored data set is read.

A data set is a folder in the format of `datasets`, with the columns `prompt` (the bare question)
and `completion`; what else it holds is provenance.
"""

from pathlib import Path

from r1lab.errors import InputError
from r1lab.sources.templates import apply_template
from r1lab.training.supervised import Document


def load_documents(data: str | Path, tokenizer, template: str) -> list[Document]:
    """Ids of each row's prompt and of its completion with the end token.

    Raises:
        InputError: there is no data set, it is empty or lacks a column, or it holds words that this
            tokenizer does not know.
    """
    from datasets import load_from_disk  # takes seconds to import

    try:
        rows = load_from_disk(str(data))
    except IndexError:  # what `datasets` 5 says of a stored set without rows
        rows = ()
    except Exception as error:  # a missing folder, a damaged file and a wrong format differ in kind
        raise InputError(
            f"{data}: no data set can be read there ({type(error).__name__}); give a folder that "
            "`datasets` has saved (`save_to_disk`)."
        ) from error
    if len(rows) == 0:
        raise InputError(f"{data}: the data set holds no rows; there is nothing to learn from.")
    if missing := {"prompt", "completion"} - set(getattr(rows, "column_names", ())):
        raise InputError(f"{data}: the column {' and '.join(sorted(missing))} is missing.")
    prompts = [apply_template(template, prompt, tokenizer) for prompt in rows["prompt"]]
    prompt_ids = tokenizer(prompts).input_ids
    completion_ids = tokenizer(list(rows["completion"]), add_special_tokens=False).input_ids
    documents = [
        (prompt, [*completion, tokenizer.eos_token_id])
        for prompt, completion in zip(prompt_ids, completion_ids, strict=True)
    ]
    texts = map("".join, zip(prompts, rows["completion"], strict=True))
    foreign = [
        number
        for number, ((prompt, completion), text) in enumerate(zip(documents, texts, strict=True))
        # A model may write the token itself: of words that are not known there are more.
        if tokenizer.unk_token
        and [*prompt, *completion].count(tokenizer.unk_token_id) > text.count(tokenizer.unk_token)
    ]
    if foreign:
        raise InputError(
            f"{data}: {len(foreign)} of {len(rows)} rows hold words that the model's tokenizer "
            f"does not know, as row {foreign[0]} ({prompts[foreign[0]]!r}); make the data for this "
            "model."
        )
    return documents


def fitting(documents: list[Document], longest: int, data: str | Path) -> list[Document]:
    """The documents that fit into the model's positions.

    Raises:
        InputError: none does.
    """
    kept = [(prompt, completion) for prompt, completion in documents
            if len(prompt) + len(completion) <= longest]  # fmt: skip
    if not kept:
        raise InputError(f"{data}: each row is longer than the model's {longest} positions.")
    return kept
