"""How a completion is read. Every reward, check and measure reads it here."""

import re
from dataclasses import dataclass

# Text without any of the four tags; without an answer tag.
UNTAGGED = r"(?:(?!</?(?:think|answer)>).)*"
UNANSWERED = r"(?:(?!</?answer>).)*"
FORMAT = re.compile(rf"\s*<think>{UNTAGGED}</think>\s*<answer>{UNTAGGED}</answer>\s*", re.DOTALL)
ONE_ANSWER = re.compile(rf"{UNANSWERED}<answer>({UNANSWERED})</answer>\s*", re.DOTALL)
HALVES = re.compile(r"(?:<think>)?([^<]*)(?:</think>\s*<answer>|</think>|<answer>)([^<]*)(?:</answer>)?")
EXPRESSION = r"(?:[-+*/^().,\d\s{}]|\\[a-z]+|(?<![A-Za-z])[b-zB-HJ-Z](?![A-Za-z]))+"
DOUBT = re.compile(
    r"\b(?:not|never|maybe|perhaps|probably|possibly|likely|approximately|about|roughly|nearly|"
    r"almost|guess|might|could|either|or|wrong|incorrect)\b|n['’]t", re.IGNORECASE
)  # fmt: skip


@dataclass(frozen=True)
class Parsed:
    r"""What a completion says.

    Attributes:
        thinking: what comes before the first `</think>` or `<answer>`; all of it where neither is.
        answer: the strict reading, which rewards pay for: the text of the one final `<answer>`;
            where there is no answer tag, of the one `\boxed{}` that ends the completion without a
            word of doubt in its sentence. None: there is no single final answer.
        boxed: what each `\boxed{}` holds, in the order in which they close.
        finished: does the thinking end?
        well_formed: is this `<think>…</think> <answer>…</answer>`: each tag once, in this order,
            nothing but white space outside, the answer not empty?
        text: all of it.
        final: what comes after the last `</think>`; all of it where there is none.
        has_answer_tag: is there an answer tag, opening or closing?
    """

    thinking: str
    answer: str | None
    boxed: tuple[str, ...]
    finished: bool
    well_formed: bool
    text: str
    final: str
    has_answer_tag: bool

    @property
    def lenient_answer(self) -> str:
        r"""The answer, however it is marked: the last `<answer>`, closed or not; else the last
        `\boxed{}`; else, of the last line after `</think>`, the last formula, or the last expression
        with a digit, or all of it."""
        _, opened, rest = self.text.rpartition("<answer>")
        if opened and (answer := rest.partition("</answer>")[0].strip()):
            return answer
        if self.boxed:
            return self.boxed[-1].strip()
        final = next((part for part in self.text.split("</think>")[::-1] if part.strip()), "")
        line = (re.sub(r"</?\w+>", "\n", final).strip().splitlines() or [""])[-1].strip()
        formulas = re.findall(r"\$([^$]+)\$", line)
        runs = re.findall(EXPRESSION, line)
        runs = [run.strip(" .,") for run in runs if re.search(r"\d", run)]
        return (formulas or runs or [line])[-1]

    @property
    def halves(self) -> tuple[str, str] | None:
        """(thinking, answer), none of them empty; None where no tag divides them, or too many do."""
        match = HALVES.fullmatch(self.text.strip())
        thinking, answer = (half.strip() for half in match.groups()) if match else ("", "")
        return (thinking, answer) if thinking and answer else None


def text_of(message: str | list[dict[str, str]]) -> str:
    """Return the text of a prompt or completion, also in TRL's conversational form (its last message)."""
    return message if isinstance(message, str) else message[-1]["content"]


def parse(completion: str | list[dict[str, str]], prompt: str = "") -> Parsed:
    """Read a completion, a text or TRL's messages. `prompt` is what it continues."""
    text = text_of(completion)
    thinking, *rest = re.split("</think>|<answer>", text.replace("<think>", " "), maxsplit=1)
    final = text.rpartition("</think>")[2]
    has_answer_tag = re.search("</?answer>", text) is not None
    tagged = ONE_ANSWER.fullmatch(text)
    answer = tagged[1] if tagged else None if has_answer_tag else _boxed_answer(final)
    return Parsed(
        thinking=thinking.strip(),
        answer=answer and answer.strip() or None,
        boxed=tuple(text[start:end] for start, end in _boxes(text)),
        finished=bool(rest),
        well_formed=bool(tagged and tagged[1].strip() and FORMAT.fullmatch(text)),
        text=text,
        final=final,
        has_answer_tag=has_answer_tag,
    )


def _boxed_answer(final: str) -> str | None:
    """Return what is in the one box that ends the text without doubt."""
    spans = _boxes(final)
    if "<think>" in final or len({final[start:end] for start, end in spans}) != 1:
        return None
    start, end = spans[-1]
    sentence = re.split(r"[.!?]\s|\n\n", final[:start])[-1]
    closed = re.fullmatch(r"(?:(?i:i hope it is correct)|[\s.$)}\]\\*])*", final[end:])
    return final[start:end] if closed and not DOUBT.search(sentence) else None


def _boxes(text: str) -> list[tuple[int, int]]:
    r"""Find where the contents of each `\boxed{...}` start and end, unclosed ones at the text's end."""
    spans, opened = [], []
    for match in re.finditer(r"\\boxed\s*\{|[{}]", text):
        if match[0] != "}":
            opened.append(match)
        elif opened and (start := opened.pop())[0] != "{":
            spans.append((start.end(), match.start()))
    return spans + [(start.end(), len(text)) for start in opened if start[0] != "{"]
