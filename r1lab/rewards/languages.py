"""The language-consistency reward (paper, v2 section 3.2.1, eq. 7): the one way to count languages.

The paper gives the formula, Num(Words_target) / Num(Words) over the thinking, and neither what a
word is nor how its language is found. Here:

- a Chinese character is a word of Chinese; every other run of two or more letters is a word (a
  single letter is a variable, and a LaTeX command is notation);
- words are judged in stretches of six to eleven. A stretch that consists of the short words in
  `LISTED` is judged word by word; any other as a whole by `py3langid`, a classifier that needs
  numpy and a model of 4.6 MB that comes with it. Fewer than four words tell no language.
"""

import re
from collections import Counter
from functools import cache

from r1lab.errors import require_known
from r1lab.files import read_toml
from r1lab.rewards.parsing import parse
from r1lab.task import Scores

TABLE = read_toml(__file__, "languages")
LANGUAGES = TABLE["languages"]
THOUGHTS, ENGLISH = TABLE["thoughts"], TABLE["english"]
LISTED = {word: lang for lang, words in TABLE["listed"].items() for word in words.split()}
WORDLESS = ("sums", "logic", "chat", "unsafe")  # families whose thinking needs no words
STRETCH, LEAST = 6, 4  # words judged together, and the fewest that tell a language
HAN = "\u3400-\u4dbf\u4e00-\u9fff"
WORD = rf"[{HAN}]|[^\W\d_{HAN}]{{2,}}"


def count_languages(text: str) -> Counter[str]:
    """Count the words of each language; "" for words that tell none. Case does not matter."""
    words = re.findall(WORD, re.sub(r"\\[a-z]+", " ", text.lower()))
    others = [word for word in words if not re.match(f"[{HAN}]", word)]
    counts = Counter({"zh": len(words) - len(others)})
    stretches = max(1, len(others) // STRETCH)
    for i in range(stretches):
        part = others[len(others) * i // stretches : len(others) * (i + 1) // stretches]
        if LISTED.keys() >= set(part):
            counts.update(LISTED[word] for word in part)
        else:
            counts[_classifier()(" ".join(part))[0] if len(part) >= LEAST else ""] += len(part)
    return +counts


@cache
def _classifier():
    # Imported here: the model takes a second to load, and the small world never needs it.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(LANGUAGES)
    return identifier.classify


def language(
    prompts: list, completions: list, lang: list[str | None], family: list[str] | None = None,
    **columns: object,
) -> Scores:  # fmt: skip
    """The share of the thinking's words that are of the target language (v2 eq. 7). TRL's signature.

    Args:
        lang: the target of each row, one of LANGUAGES; None where there is none to keep to, which
            gives the score None.
    Thinking without a word scores 0.0: a share of nothing must not be a way to earn the reward. So
    rows of the small world's families whose thinking needs no words (column `family`) score None:
    there the reward would pay for words as such.
    Raises InputError for a language that is not one of LANGUAGES.
    """
    for target in {*lang} - {None}:
        require_known(target, LANGUAGES, "language (column `lang`)")
    scores, families = [], family or [""] * len(completions)
    for prompt, completion, target, kind in zip(prompts, completions, lang, families):
        counts = count_languages(parse(completion, prompt).thinking)
        share = counts[target] / max(1, counts.total())
        scores.append(None if target is None or kind in WORDLESS else share)
    return scores
