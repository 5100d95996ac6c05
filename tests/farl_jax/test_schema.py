"""Declared types and ranges: what `check` lets through, what it refuses, and in which words."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from farl_jax.schema import (
    Checked,
    Count,
    Discount,
    Length,
    NonNegative,
    Range,
    SchemaError,
    check,
    check_bounds,
)
from farl_jax.storage import json_files


class Row(TypedDict):
    seed: Count
    score: float | None
    causes: NotRequired[dict[str, int] | None]
    names: NotRequired[list[str]]


@dataclass(frozen=True)
class Plan(Checked):
    samples: Count = 16
    elites: Annotated[int, Range(1, "plan.samples")] = 8
    discount: Discount = 0.5
    limit: NonNegative | None = None
    kind: Literal["short", "long"] = "short"
    steps: Annotated[tuple[Count, ...], Length(1, distinct=True)] = (1, 2)


@dataclass(frozen=True)
class Tree(Checked):
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self)


ROW = {"seed": 1, "score": 0.5}


@pytest.mark.parametrize(
    ("hint", "value", "said"),
    [
        (Row, None, "it must be a group of fields; got null"),
        (Row, [], "it must be a group of fields; got []"),
        (Row, {"seed": 1}, "field 'score' in it is missing"),
        (Row, ROW | {"extra": 1}, "unknown field 'extra' in it. Known fields: seed, score, causes"),
        (Row, ROW | {"seed": 0}, "it.seed must be at least 1; got 0"),
        (Row, ROW | {"seed": 1.0}, "it.seed must be a whole number; got 1.0"),
        (Row, ROW | {"seed": True}, "it.seed must be a whole number; got true"),
        (Row, ROW | {"seed": 2**63}, "it.seed must be at most 9223372036854775807 in size"),
        (Row, ROW | {"score": "high"}, "it.score must be a finite number or none; got 'high'"),
        (Row, ROW | {"score": float("nan")}, "it.score must be a finite number or none; got nan"),
        (Row, ROW | {"score": 10**400}, "it.score must be a finite number or none; got 1000"),
        (Row, ROW | {"causes": {"late": 0.5}}, "it.causes.late must be a whole number; got 0.5"),
        (Row, ROW | {"names": "a"}, "it.names must be a list; got 'a'"),
        (Row, ROW | {"names": ["a", 2]}, "it.names[1] must be text; got 2"),
        (tuple[int, str], [1], "it must have 2 entries; got 1"),
        (Plan, {"discount": 1}, "it.discount must be at least 0 and below 1; got 1"),
        (Plan, {"limit": -1}, "it.limit must be at least 0; got -1"),
        (Plan, {"kind": "longer"}, "it.kind must be short or long; got 'longer'"),
        (Plan, {"steps": []}, "it.steps must have at least 1 entries; got 0"),
        (Plan, {"steps": [2, 2]}, "it.steps must not have an entry twice; got (2, 2)"),
        (Tree, {"plan": 3}, "it.plan must be a group of fields; got 3"),
        (Tree, {"plan": {"elites": 17}}, "plan.elites must be between 1 and plan.samples (16)"),
    ],
)
def test_what_is_not_as_declared_is_refused_by_name(hint: Any, value: Any, said: str):
    with pytest.raises(SchemaError) as refused:
        check(hint, value, "it")
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


def test_what_is_as_declared_comes_back():
    full = ROW | {"causes": {"late": 3}, "names": []}
    assert check(Row, full, "it") == full
    assert check(Row, ROW | {"causes": None, "score": None}, "it")["score"] is None
    plan = {"elites": 16, "limit": None, "steps": [3, 1], "discount": 0}
    assert check(Tree, {"plan": plan}, "it") == Tree(Plan(elites=16, steps=(3, 1), discount=0))
    assert check(Tree, Tree(), "it") == Tree()


def test_python_callers_are_checked_like_files():
    for wrong in ({"discount": 1.0}, {"samples": 2.5}, {"limit": float("inf")}, {"steps": ()}):
        with pytest.raises(SchemaError, match=r"^Plan\."):
            Plan(**wrong)
    with pytest.raises(SchemaError, match=r"plan.elites must be .* plan.samples \(4\); got 8"):
        Tree(Plan(samples=4))


@pytest.mark.parametrize(
    ("rule", "text", "words"),
    [
        (Range(0, 1), "[0, 1]", "between 0 and 1"),
        (Range(0, 1, high_open=True), "[0, 1)", "at least 0 and below 1"),
        (Range(0, low_open=True), "(0, inf)", "above 0"),
        (Range(None, 2.5), "(-inf, 2.5]", "at most 2.5"),
    ],
)
def test_a_range_tells_itself(rule: Range, text: str, words: str):
    assert str(rule) == text
    assert rule.in_words(str(rule.low), str(rule.high)) == words


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty or cut off"),
        (b'{"seed": 1', "empty or cut off"),
        (b'{"seed": 1,}', "not JSON: "),
        (b"\xff\xfe", "not a text file"),
        (b'{"seed": 1, "score": NaN}', "NaN is no JSON"),
        (b'{"seed": 1, "score": -Infinity}', "-Infinity is no JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"seed": ' + b"9" * 6000 + b"}", "not JSON"),
        (b'{"seed": 0, "score": 1}', "seed must be at least 1; got 0"),
        (b"3", "it must be a group of fields; got 3"),
    ],
)
def test_a_file_that_is_not_ours_is_one_line_with_its_name(tmp_path, content: bytes, said: str):
    path = tmp_path / "row.json"
    path.write_bytes(content)
    with pytest.raises(SchemaError) as refused:
        json_files.read(path, Row)
    line = str(refused.value)
    assert line.startswith(str(path)) and said in line and "\n" not in line and len(line) < 400


def test_only_plain_files_of_a_bounded_size_are_read(tmp_path):
    path = tmp_path / "row.json"
    with pytest.raises(SchemaError, match="no such file"):
        json_files.read(path, Row)
    path.mkdir()
    with pytest.raises(SchemaError, match="not a plain file"):
        json_files.read(path, Row)
    path.rmdir()
    with path.open("wb") as file:
        file.truncate(json_files.MAX_BYTES + 1)
    with pytest.raises(SchemaError, match="bytes are too many"):
        json_files.read(path, Row)
