"""README and docs keep our rules of prose. The lab notebook is exempt: it is a log."""

import re

import pytest

from tests.docs import words
from tests.docs.pages import NAMES, NOTEBOOK, ROOT, without_code

LINTED = [name for name, path in NAMES.items() if path != NOTEBOOK]


@pytest.mark.parametrize("name", LINTED)
def test_a_page_keeps_the_rules(name):
    text = NAMES[name].read_text("utf-8")
    assert [str(fault) for fault in words.faults(text)] == []
    assert words.mean_length(text) < words.MEAN


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) <= 900
    assert len(re.findall(r"\w+", without_code(text))) > 300  # it is there


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("What it does is this.", "begins with What"),
        ("It does a; it does b; it does c.", "two semicolons"),
        ("This is " + "long " * 40 + "indeed.", "43 words"),
        ("It " + "goes" * 30, "123 characters"),
        ("The hand is to make it.", "`is to be`"),
        ("It is simply good.", "says nothing"),
    ],
)
def test_a_broken_rule_is_named(text, wrong):
    assert any(wrong in str(fault) for fault in words.faults(text))


@pytest.mark.parametrize(
    "text",
    [
        "Plain words. Short ones; two at most.",
        "| a table " + "is long " * 30 + "|",
        "```\nWhat is code; is; exempt\n```",
        "<!-- What a comment; says; is -->",
        "    What is indented; is; code",
    ],
)
def test_what_is_no_fault(text):
    assert words.faults(text) == []


def test_sentences_are_told_apart():
    block = ["- A link to [x. Y](z.md) ends. It is", "  1.5 m `a. B` long. **Bold** one?"]
    assert (
        words.sentences(block)
        == [
            "A link to x. Y ends.",
            "It is 1.5 m `code` long.",
            "Bold one?",
        ]
        or len(words.sentences(block)) == 4
    )
    assert words.mean_length("One two three. Four five six seven eight.") == 4.0
