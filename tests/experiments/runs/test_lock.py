"""requirements.lock pins, with hashes, what pyproject.toml asks for."""

import pathlib
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
LOCK = (ROOT / "requirements.lock").read_text()
BLOCKS = re.findall(r"^(\S+)==(\S+)((?:.*\\\n)(?: +--hash=.*\n)+)", LOCK, re.MULTILINE)


@pytest.mark.parametrize("asked", ASKED)
def test_each_dependency_is_pinned_within_its_range(asked):
    wanted = Requirement(asked)
    pinned = [version for name, version, _ in BLOCKS if name == canonicalize_name(wanted.name)]
    assert pinned and all(wanted.specifier.contains(version) for version in pinned)


def test_every_line_is_a_pin_with_hashes_and_names_no_host():
    starts = [line for line in LOCK.splitlines() if line and line[0] not in " #"]
    assert len(starts) == len(BLOCKS) > 50
    assert all(re.fullmatch(r"[\w.-]+==[^\s;]+( ; .+)? \\", line) for line in starts)
    assert "://" not in LOCK
    assert all(len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block)) > 0 for *_, block in BLOCKS)
