"""How a completion is read. Every reward, check and measure reads it here.

The page `notebooks/reading.md` shows by examples what counts as an answer, in both readings.
"""

import re
from dataclasses import dataclass

from r1lab.rewards.spelling import TABLE, number, rewrite, settle

Message = str | list[dict[str, str]]  # a text, or TRL's conversational form
# Text without any of the four tags; without an answer tag.
UNTAGGED = r"(?:(?!</?(?:think|answer)>).)*"
UNANSWERED = r"(?:(?!</?answer>).)*"
FORMAT = rf"(?s)\s*<think>{UNTAGGED}</think>\s*<answer>{UNTAGGED}</answer>\s*"
ONE_ANSWER = rf"(?s){UNANSWERED}<answer>({UNANSWERED})</answer>\s*"
HALVES = r"(?:<think>)?([^<]*)(?:</think>\s*<answer>|</think>|<answer>)([^<]*)(?:</answer>)?"

# Words with which the sentence of a box, or of any number, does not say what the answer is.
DOUBT = (r"(?:\b(?:not|never|maybe|perhaps|probably|possibly|likely|approximately|about|roughly|nearly|"
         r"almost|guess|might|could|either|or|wrong|incorrect)\b|n['’]t)")
DENIAL = rf"(?i)\b(?:{TABLE['words']['doubt']})\b|{TABLE['words']['signs']}"
DISPLAY = r"(?s)\\\[(.*?)\\\]|\$\$(.*?)\$\$"
# Dollar signs enclose a formula unless it has a word, or a digit follows: then they are money.
FORMULA = r"\$((?:\\(?:text|mathrm|mbox)\s*\{[^{}]*\}|\\.|(?![A-Za-z]{4})[^$\\])+)\$(?!\d)"
EXPRESSION = r"((?:[-+*/^().,\d\s{}!%°_]|\\[a-z!,;: ]+|(?<![A-Za-z])[b-zB-HJ-Z](?![A-Za-z]))+)"
VALUE = rf"{FORMULA}|{EXPRESSION}(?:(?:thousand|million|billion|dozen|hundred|percent)\b)?"
EDGES = r"^(?:[\s,]|\.(?!\d))+|[\s,.]+$"
# What joins the items of a list; what ends a stated answer; what denies a box.
JOINT = r"[\s$\\(),;|]*(?:\\text\{\s*)?(?:and|or)?(?:\s*\})?[\s$\\(),;|]*"
BETWEEN_BOXES = rf"\}}{JOINT}\\boxed\s*\{{"
SENTENCE = r"\s*\n|[.。](?=[\s*\"')]*(?:$|\n)|\s+[^a-z\d])|(?<!\\)[!;](?=\s)"
LEAD = r"(?i)\W*(?:(?:so|thus|therefore|hence|finally|then|ok|and|clearly|overall)\W*)*"
TAKEN_BACK = rf"(?i)\b(?:{TABLE['words']['taken back']})\b"
DENIED_BEFORE = rf"(?i)(?:{DOUBT}|\\ne|≠)(?:[^\w.!?\n]*\w+){{0,2}}[^\w.!?\n]*\\boxed\s*\{{$"
DENIED_AFTER = r"(?i)[^\w\n]*\?|[^\w\n.]*(?:is|was)(?:n['’]t|\s+(?:not|wrong|incorrect))"


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
        text: all of it, with the `<think>` that the prompt ended in.
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
    def unfinished(self) -> bool:
        """Was thinking opened, and neither closed nor followed by an answer?"""
        return "<think>" in re.split("</think>|<answer>", self.text)[-1]

    @property
    def place(self) -> tuple[str, bool]:
        r"""What stands where the answer is expected, and is it marked: the last `<answer>`, closed or
        not; else, after the thinking, what is stated behind the last `\boxed{}`, or the boxes that are
        one list, or what is stated; else the last line, unmarked. Unfinished thinking has none."""
        _, opened, rest = self.text.rpartition("<answer>")
        if opened and (answer := rest.partition("</answer>")[0].strip()):
            return answer, True
        if self.unfinished:
            return "", True
        final = next((part for part in self.text.split("</think>")[::-1] if part.strip()), "")
        spans = _boxes(final)
        if spans:
            return stated(plain(final[spans[-1][1] :])) or _joined(final, spans), True
        text = plain(final)
        said = stated(text)
        return said or rewrite((text.splitlines() or [""])[-1].strip(), "rejected"), bool(said)

    @property
    def lenient_answer(self) -> str:
        """What is marked as the answer; else the value at the end of the last line, or the line."""
        text, marked = self.place
        return text if marked else value_in(text) or text

    def readings(self, lenient: bool, sentence: bool) -> list[str]:
        """Return what the answer may say: itself, what its words state it to be and, in the lenient
        reading and if `sentence` allows it, the value in its sentence."""
        text, marked = self.place if lenient else (self.answer or "", True)
        if text.startswith("def "):  # a program, which is no sentence
            return [self.lenient_answer]
        phrase = plain(text)
        phrase = stated(phrase, whole=not lenient) or rewrite(phrase, "rejected")
        value = value_in(phrase, alone=marked) if lenient and sentence else ""
        return list(dict.fromkeys(filter(None, (text, phrase, value))))

    @property
    def halves(self) -> tuple[str, str] | None:
        """(thinking, answer), none of them empty; None where no tag divides them, or too many do."""
        match = re.fullmatch(HALVES, self.text.strip())
        thinking, answer = (half.strip() for half in match.groups()) if match else ("", "")
        return (thinking, answer) if thinking and answer else None


def text_of(message: Message) -> str:
    """Return the text of a prompt or completion, also in TRL's conversational form (its last message)."""
    return message if isinstance(message, str) else message[-1]["content"]


def with_opening(completion: Message, prompt: Message) -> str:
    """Return the completion's text, behind the `<think>` that its prompt may have ended in."""
    text = text_of(completion)
    opened = text_of(prompt).rstrip().endswith("<think>") and not text.lstrip().startswith("<think>")
    return "<think>" * opened + text


def parse(completion: Message, prompt: Message = "") -> Parsed:
    """Read a completion, a text or TRL's messages. `prompt` is what it continues: one that ends in
    `<think>` has opened the thinking."""
    text = rewrite(with_opening(completion, prompt), "boxes")
    thinking, *rest = re.split("</think>|<answer>", text.replace("<think>", " "), maxsplit=1)
    final = text.rpartition("</think>")[2]
    has_answer_tag = re.search("</?answer>", text) is not None
    tagged = re.fullmatch(ONE_ANSWER, text)
    answer = tagged[1] if tagged else None
    if "<answer>" not in text:
        answer = _boxed_answer(re.sub(r"</answer>\s*$", "", final))
    return Parsed(
        thinking=thinking.strip(),
        answer=answer and answer.strip() or None,
        boxed=tuple(text[start:end] for start, end in _boxes(text)),
        finished=bool(rest),
        well_formed=bool(tagged and tagged[1].strip() and re.fullmatch(FORMAT, text)),
        text=text,
        final=final,
        has_answer_tag=has_answer_tag,
    )


def plain(text: str) -> str:
    """Return a text without emphasis, HTML and closing words; a displayed formula has a line of its own."""
    text = re.sub(DISPLAY, lambda match: "\n$" + " ".join((match[1] or match[2]).split()) + "$\n", text)
    return settle(rewrite(re.sub(r"</?\w+>", "\n", text), "markup").strip(), "closing")


def stated(text: str, whole: bool = False) -> str:
    """Return the last thing that is stated to be the answer and not taken back; "" if there is none.
    With `whole` there must be no other words before it, and no sentence behind it."""
    before, mark, rest = rewrite(text, "statement").rpartition("␞")
    sentence, *others = re.split(SENTENCE, rest.strip(), maxsplit=1)
    lead = re.split(r"[.!?:\n]\s", before)[-1]
    if re.search(DENIAL, lead) or whole and not re.fullmatch(LEAD, lead):
        return ""
    if not mark or re.search(TAKEN_BACK, "".join(others)) or whole and "".join(others).strip(".*\"')$ "):
        return ""
    return rewrite(rewrite(sentence, "rejected"), "after").strip()


def value_in(line: str, alone: bool = False) -> str:
    """Return the last formula or expression with a digit, and the list that it ends, without the words
    around it. "": there is none, there is a word of doubt, or it is all but a unit of another's.

    `alone`: there must be no other value, unless it leads to this one by "="."""
    *sides, end = line.split("=") if alone else [line]
    values = [match for match in re.finditer(VALUE, end) if match[1] or re.search(r"\d", match[0])]
    if not values or re.search(DENIAL, line) or alone and re.search("[<>]", line):
        return ""
    first = len(values) - 1
    while first and re.fullmatch(JOINT, end[values[first - 1].end() : values[first].start()]):
        first -= 1
    before, after = "=".join([*sides, end[: values[first].start()]]), end[values[-1].end() :]
    short = re.search(r"[^\W\d_]", after) and len(after.split()) < 4
    if short and not before.strip(" $") or re.match("[²³^_]", after) or before.endswith(("[", "{", "|")):
        return ""  # a number and its unit, which are judged together
    items = ", ".join(re.sub(EDGES, "", match[1] or match[0]) for match in values[first:])
    if alone:
        results = {number(side.strip(" $")) for side in sides} - {None, number(items)}
        several = first or any(re.search(r"\d\s*[,;]|\d\.\s", side) for side in sides)
        if results or several or not re.search(r"[^\W\d_]|=", before):
            return ""
    return items


def _joined(text, spans):
    """Return what the last box holds, with the boxes that are a list with it; "" if it is denied."""
    first = len(spans) - 1
    while first and re.fullmatch(BETWEEN_BOXES, text[spans[first - 1][1] : spans[first][0]]):
        first -= 1
    if re.search(DENIED_BEFORE, text[: spans[first][0]]) or re.match(DENIED_AFTER, text[spans[-1][1] :]):
        return ""
    return ", ".join(dict.fromkeys(text[start:end].strip() for start, end in spans[first:]))


def _boxed_answer(final):
    """Return what is in the one box that ends the text without doubt."""
    spans = _boxes(final)
    if "<think>" in final or len({final[start:end] for start, end in spans}) != 1:
        return None
    start, end = spans[-1]
    sentence = re.split(r"[.!?]\s|\n\n", final[:start])[-1]
    closed = re.fullmatch(r"[\s.$)}\]\\*]*", settle(final[end:], "closing"))
    return final[start:end] if closed and not re.search(f"(?i){DOUBT}", sentence) else None


def _boxes(text):
    r"""Find where the contents of each `\boxed{...}` start and end, unclosed ones at the text's end."""
    spans, opened = [], []
    for match in re.finditer(r"\\boxed\s*\{|[{}]", text):
        if match[0] != "}":
            opened.append(match)
        elif opened and (start := opened.pop())[0] != "{":
            spans.append((start.end(), match.start()))
    return spans + [(start.end(), len(text)) for start in opened if start[0] != "{"]
