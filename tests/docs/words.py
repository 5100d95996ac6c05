"""Our rules of prose for README and docs, from what a reader stumbled over."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

LINE = 120
"""Characters in a line of prose."""
SENTENCE = 40
"""Words in a sentence."""
MEAN = 18.0
"""Words in a page's mean sentence."""

BANNED = {
    r"^What\b": "a sentence begins with What",
    r";.*;": "two semicolons in a sentence",
    r"\b(?:is|are|was|were) to (?:be|make|have|go|reach)\b": "`is to be`; say who does what",
    r"\b(?:and|or) so on\b|\betc\.": "an open list",
    r"\b(?:obviously|clearly|simply|of course|basically|very)\b": "a word that says nothing",
    r"\bit(?:'s| is) worth noting\b|\bplease note\b|\bnote that\b": "an opening that says nothing",
    r"\b(?:utili[sz]e|leverage|in order to|due to the fact)\b": "a long word for a short one",
    r"\b(?:seamless|robust|powerful|cutting-edge|state-of-the-art)(?:ly)?\b": "praise",
    r"\brows? \d+(?: (?:to|and) \d+)? (?:says?|shows?|explains?)\b": "a row needed to understand",
}
"""Pattern of a sentence -> what is wrong with it."""


@dataclass(frozen=True)
class Fault:
    """One broken rule."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


def paragraphs(text: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines) of each paragraph or list item of prose."""
    block: list[str] = []
    start, fenced, comment = 0, False, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        bare = line.strip()
        fence, was_fenced = bare.startswith("```"), fenced
        fenced ^= fence
        comment = comment or bare.startswith("<!--")
        skipped = fence or was_fenced or comment or not bare or _is_no_prose(line)
        if comment and "-->" in bare:
            comment = False
        begins = re.match(r"\s*(?:[-*]|\d+\.) ", line)
        if (skipped or begins) and block:
            yield start, block
            block = []
        if not skipped:
            start = start if block else number
            block.append(line)


def _is_no_prose(line: str) -> bool:
    """A heading, a table, a picture, an indented block of code, a directive or HTML."""
    return bool(re.match(r"\s*(?:#+ |\||!\[|:::|</?\w)|    +[^\s\-*0-9]", line)) and not re.match(
        r"  +(?:[-*]|\d+\.) ", line
    )


def sentences(lines: list[str]) -> list[str]:
    """The sentences of a paragraph, without links' targets and list marks."""
    text = re.sub(r"\s+", " ", " ".join(lines)).strip()
    text = re.sub(r"^(?:[-*]|\d+\.) ", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "`code`", text)
    text = re.sub(r"\*{1,2}([^*]+)\*{1,2}", r"\1", text)
    parts = re.split(r"(?<=[.!?])[)\"]?\s+(?=[\"(]?[A-Z0-9`-])|(?<=:)\s+(?=[A-Z]\w* \w+ )", text)
    return [part for part in parts if re.search(r"[A-Za-z]", part)]


def words(sentence: str) -> int:
    """Words, numbers among them."""
    return sum(bool(re.search(r"[A-Za-z0-9]", word)) for word in sentence.split())


def mean_length(text: str) -> float:
    """Words of a page's mean sentence."""
    lengths = [words(s) for _, block in paragraphs(text) for s in sentences(block)]
    return sum(lengths) / max(len(lengths), 1)


def faults(text: str) -> list[Fault]:
    """Every broken rule of a page, in order."""
    found = []
    for start, block in paragraphs(text):
        for offset, line in enumerate(block):
            if len(line) > LINE:
                found.append(Fault(start + offset, f"{len(line)} characters"))
        for sentence in sentences(block):
            if (count := words(sentence)) > SENTENCE:
                found.append(Fault(start, f"{count} words: {sentence}"))
            for pattern, wrong in BANNED.items():
                if re.search(pattern, sentence):
                    found.append(Fault(start, f"{wrong}: {sentence}"))
    return found
