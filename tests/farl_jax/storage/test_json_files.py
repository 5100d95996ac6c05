"""One reader of JSON: strict, bounded, and one line that names file and field."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import pytest

from experiments.figures.paper import read_paper
from experiments.reproduce import _settings_in
from experiments.runs import records
from farl_jax.schema import (
    Alike,
    Amount,
    Length,
    Name,
    Natural,
    Others,
    SchemaError,
    Share,
    Single,
    check,
)
from farl_jax.storage import json_files
from farl_jax.storage.json_files import read, read_rows

RESULTS = Path(__file__).parents[3] / "results"


class Inner(TypedDict):
    share: Share


class Columns(TypedDict):
    x: list[Single]
    y: list[Single | None]


class Table(TypedDict):
    name: Name
    count: Natural
    value: NotRequired[Single | None]
    inner: NotRequired[Inner]
    rows: NotRequired[Annotated[list[Inner], Length(1)]]
    columns: NotRequired[Annotated[Columns, Alike(("x", "y"))]]
    limits: NotRequired[tuple[Amount, Amount]]


GOOD = {"name": "a", "count": 3}


def refusal(path, content, kind=Table):
    """The one line that tells why a file is refused."""
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(SchemaError) as error:
        read(path, kind)
    (line,) = str(error.value).splitlines()
    assert line.startswith(str(path)) and len(line) < len(str(path)) + 200
    return line.removeprefix(str(path))


def test_what_is_declared_is_returned_as_it_stands(tmp_path):
    path = tmp_path / "a.json"
    full = GOOD | {"value": None, "inner": {"share": 1}, "rows": [{"share": 0.5}]}
    full |= {"columns": {"x": [1, 2.5], "y": [None, -3e38]}, "limits": [0, 1]}
    for content in (GOOD, full):
        path.write_text(json.dumps(content))
        assert json.loads(json.dumps(read(path, Table))) == content


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": 2.5}, ": count must be a whole number; got 2.5"),
        ({"count": True}, ": count must be a whole number; got true"),
        ({"count": "3"}, ": count must be a whole number; got '3'"),
        ({"count": None}, ": count must be a whole number; got null"),
        ({"count": -1}, ": count must be at least 0; got -1"),
        ({"count": 2**63}, ": count must be at most 9223372036854775807 in size; got 92"),
        ({"value": "x" * 90}, f": value must be a finite number or none; got '{'x' * 56}..."),
        ({"value": 1e39}, ": value must be between -3.40282e+38 and 3.40282e+38; got 1e+39"),
        ({"value": 10**400}, ": value must be a finite number or none; got 1000000000"),
        ({"name": ""}, ": name must have at least 1 characters; got 0"),
        ({"name": "x" * 201}, ": name must have at most 200 characters; got 201"),
        ({"name": []}, ": name must be text; got []"),
        ({"inner": 3}, ": inner must be a group of fields; got 3"),
        ({"inner": {}}, ": field 'share' in inner is missing"),
        ({"inner": {"share": 2}}, ": inner.share must be between 0 and 1; got 2"),
        ({"inner": {"share": 1, "b\n": 1}}, r": unknown field 'b\n' in inner. Known fields: share"),
        ({"rows": []}, ": rows must have at least 1 entries; got 0"),
        ({"rows": [{"share": 1}, {"share": []}]}, ": rows[1].share must be a finite number"),
        ({"rows": {"0": {"share": 1}}}, ": rows must be a list; got {'0': {'share': 1}}"),
        ({"columns": {"x": [1], "y": []}}, ": columns must have lists of one length; x has 1"),
        ({"limits": [1]}, ": limits must have 2 entries; got 1"),
        ({"answer": 42}, ": unknown field 'answer'. Known fields: name, count, value"),
    ],
)
def test_a_field_that_is_not_as_declared_is_named(tmp_path, change, said):
    assert refusal(tmp_path / "a.json", GOOD | change).startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"null", ": it must be a group of fields; got null"),
        (b"[]", ": it must be a group of fields; got []"),
        (b'"a"', ": it must be a group of fields; got 'a'"),
        (b"{}", ": field 'count' is missing"),
        (b"", ": empty or cut off; write it again"),
        (b'{"name": "a", ', ": empty or cut off"),
        (b'{"name": 1,\n y}', ", line 2: not JSON"),
        (b'{"name": NaN}', ": not JSON: NaN is no JSON"),
        (b'{"name": -Infinity}', ": not JSON: -Infinity is no JSON"),
        (b'{"name": "a", "count": 3, "value": 1e999}', ": value must be a finite number or none"),
        (b'{"count": ' + b"9" * 6000 + b"}", ": not JSON: Exceeds the limit"),
        (b"[" * 100_000 + b"]" * 100_000, ": not ours: it is nested too deeply"),
        (b"[" * 30 + b"]" * 30, ": not ours: it is nested too deeply"),
        (b'{"a":' * 30 + b"1" + b"}" * 30, ": not ours: it is nested too deeply"),
        (b"\xff\xfe\x00", ": not a text file"),
        (rb'{"name": "\ud800", "count": 3}', ": not a text file"),
    ],
)
def test_a_file_that_is_none_of_ours_is_named(tmp_path, content, said):
    assert refusal(tmp_path / "a.json", content).startswith(said)


def test_a_character_in_two_halves_is_a_character(tmp_path):
    (tmp_path / "a.json").write_text(r'{"name": "\ud83d\ude00 \\ud800", "count": 3}')
    assert read(tmp_path / "a.json", Table)["name"] == "\U0001f600 \\ud800"


def test_what_is_no_plain_file_of_a_bounded_size_is_not_opened(tmp_path):
    path = tmp_path / "a.json"
    told = lambda: pytest.raises(SchemaError, match=f"^{path}: ")
    with told() as error:
        read(path, Any)
    assert "no such file" in str(error.value)
    path.mkdir()
    with told() as error:
        read(path, Any)
    assert "not a plain file" in str(error.value)
    path.rmdir()
    os.mkfifo(path)  # to open it would wait for ever
    with told():
        read(path, Any)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with told() as error:
        read(path, Any)
    assert "1,073,741,824 bytes are too many" in str(error.value)


def test_rows_are_refused_by_line_or_left_out_by_name(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(GOOD), "", "3", json.dumps(GOOD | {"count": "x"}), '{"na', "  "]
    path.write_text("\n".join(lines))
    with pytest.raises(SchemaError, match="line 3: it must be a group of fields; got 3"):
        read_rows(path, Table)
    told = []
    assert read_rows(path, Table, lambda line, why: told.append((line, why))) == [GOOD]
    assert told == [
        (f"{path}, line 3", "it must be a group of fields; got 3"),
        (f"{path}, line 4", "count must be a whole number; got 'x'"),
        (f"{path}, line 5", "not JSON: Unterminated string starting at"),
    ]


def test_other_fields_are_of_one_kind_and_have_the_mark():
    kind = Annotated[Inner, Others(Natural, mark=".")]
    assert check(kind, {"share": 1, "a.b": 3}, "") == {"share": 1, "a.b": 3}
    with pytest.raises(SchemaError, match=r"^a\.b must be a whole number; got 'x'$"):
        check(kind, {"share": 1, "a.b": "x"}, "")
    with pytest.raises(SchemaError, match=r"^unknown field 'ab'"):
        check(kind, {"share": 1, "ab": 3}, "")


def test_every_stored_file_is_as_declared():
    read_all = lambda pattern, kind: [read(path, kind) for path in RESULTS.glob(pattern)]
    assert len(read_all("*/diagnosis.json", records.Diagnosis)) == 4
    assert len(read_all("*/horizon.json", records.Study)) == 1
    main = [RESULTS / name / "main.jsonl" for name in ("", "earlier", "quick")]
    assert [len(read_rows(path, records.MainRow)) for path in main] == [24, 72, 32]
    sweeps = [path for path in RESULTS.glob("*/*.jsonl") if path not in main]
    assert sum(len(read_rows(path, records.SweepRow)) for path in sweeps) == 75
    assert [len(_settings_in(path.with_name("settings.json"))) for path in main] == [4, 8, 4]
    assert read_paper()["failure_episodes"]["bounded_push"]["uni_o4"] == 1518.3


def test_a_report_of_rows_says_where_they_stand(tmp_path):
    with pytest.raises(SchemaError, match=r"^x, line 2: it must be text; got 3$"):
        json_files.rows(b'"a"\n3\n', str, Path("x"))


def test_a_text_that_could_fill_the_memory_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "MAX_TEXT", 1000)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n' * 200 + f"[{'[],' * 400}[]]\n")
    with pytest.raises(SchemaError, match=r"rows.jsonl, line 201: not ours: .* are too many"):
        json_files.read_rows(path, Any)
    with pytest.raises(SchemaError, match=r"rows.jsonl: not ours: .* are too many"):
        json_files.read(path, Any)
