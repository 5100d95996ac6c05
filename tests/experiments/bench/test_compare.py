"""`farl bench compare`: its arithmetic, the other checkout, and what it refuses."""

import subprocess

import pytest

from experiments.bench.compare import commit_of, compare, worktree
from experiments.cli import main
from experiments.errors import UserError


def test_the_ratio_is_of_medians_and_the_spread_of_turns():
    row = compare([1.0, 2.0, 4.0], [3.0, 3.0, 8.0])
    assert row["ratio"] == 1.5  # medians 3 and 2
    assert (row["lowest"], row["highest"]) == (1.5, 3.0)
    assert (row["here_seconds"], row["rev_seconds"]) == (2.0, 3.0)


@pytest.fixture
def repository(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    for text in ("one", "two"):
        (tmp_path / "file").write_text(text)
        subprocess.run([*git, "add", "file"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", text], check=True)
    return tmp_path


def test_the_other_checkout_is_that_commit_and_goes_away(repository):
    with worktree(repository, commit_of(repository, "HEAD~1")) as path:
        assert (path / "file").read_text() == "one"
    assert not path.exists() and (repository / "file").read_text() == "two"
    listed = ["git", "-C", str(repository), "worktree", "list"]
    assert len(subprocess.check_output(listed, text=True).splitlines()) == 1


@pytest.mark.parametrize("rev", ["nothing", "--all", "HEAD~5", ""])
def test_what_names_no_commit_is_refused(repository, rev):
    with pytest.raises(UserError, match="names no commit"):
        commit_of(repository, rev)


@pytest.mark.parametrize(
    "words",
    [["no_such_rev"], ["HEAD", "--task", "bounded_pusch"], ["HEAD", "--rounds", "0"], []],
)
def test_bad_words_are_one_line(words, capsys):
    assert main(["bench", "compare", *words]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
