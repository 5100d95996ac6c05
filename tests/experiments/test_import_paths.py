"""Code comes from installed modules, and from the current folder only where a task is named."""

import functools
import importlib.metadata
import os
import pathlib
import pickle
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from envs_mjx import EnvError, make, render, task_class
from experiments.bench import train
from experiments.cli import main
from experiments.errors import UserError
from experiments.sweep import fleet
from tests.experiments.finished_runs import result, write_run
from tests.farl_jax.data.test_dataset import Bomb

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = "import sys\nfrom experiments.__main__ import main\nsys.exit(main())\n"
POOL = """
from experiments.search_path import leave_current_folder_out
if __name__ == "__main__":
    leave_current_folder_out()
    import multiprocessing, os
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(os.getpid).result()
"""


def set_traps(folder, but=()):
    """A module of every name there is, in turn a file and a package, that leaves a note if run."""
    names = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions()}
    names |= {name.partition(".")[0] for name in sys.modules}
    names |= {"sitecustomize", "usercustomize", "conftest", "jax_plugins", "submitit", "yaml"}
    names -= {"envs_mjx", "farl_jax", "experiments", "tests", "examples", "__main__", *but}
    note = f"open({str(folder / 'EXECUTED')!r}, 'a').write(__name__ + ' ')\n"
    for i, name in enumerate(sorted(filter(str.isidentifier, names))):
        path = folder / f"{name}.py" if i % 2 else folder / name / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(note)
    assert len(list(folder.iterdir())) > 300
    return folder


def executed(folder):
    path = folder / "EXECUTED"
    return path.read_text().split() if path.exists() else []


@pytest.fixture(scope="module")
def traps(tmp_path_factory):
    """A folder in which every module is a trap, and that Python is not pointed to."""
    return set_traps(tmp_path_factory.mktemp("traps"))


@functools.cache
def before_us(folder):
    """Modules that Python itself loads before a module's first line, wherever it finds them."""
    (folder / "probe.py").write_text("import sys; print(*sys.modules)")
    words = [sys.executable, "-m", "probe"]
    probe = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    names = {name.partition(".")[0] for name in probe.stdout.split()}
    return frozenset(names | {"sitecustomize", "usercustomize"})


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Such a folder, for where Python is told to look there first."""
    names = before_us(tmp_path_factory.mktemp("probe"))
    return set_traps(tmp_path_factory.mktemp("first"), names)


@pytest.fixture
def run(tmp_path):
    """A finished run of both methods."""
    for method, failures in (("uni_o4", 4), ("farl", 1)):
        row = result("bounded_push", method, 0, failures, 9.0)
        folder = write_run(tmp_path / "run" / "seed0", row)
    return folder.parent


def python(folder, *words, path=str(ROOT), code=0):
    """Run Python in a folder, whose traps must all be quiet; `path` is PYTHONPATH."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=variables | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert executed(folder) == []
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def script(tmp_path):
    """What installing makes of the console script."""
    path = tmp_path / "bin" / "farl"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    return path


def test_the_traps_are_live(traps, tmp_path):
    live = set_traps(tmp_path / "live")
    subprocess.run([sys.executable, "-c", "import matplotlib"], cwd=live, check=True)
    assert executed(live) == ["matplotlib"] and executed(traps) == []


def test_the_console_script_starts_where_the_path_is_cleaned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"farl": "experiments.__main__:main"}


def test_no_command_runs_code_of_the_current_folder(traps, script, run, tmp_path):
    assert "farl COMMAND --help" in python(traps, script, "--help")
    assert "failure episodes" in python(traps, script, "evaluate", run)
    assert "2 runs" in python(traps, script, "report", run, "-o", tmp_path / "report")


@pytest.mark.parametrize("start", ["script", "experiments"])
def test_nor_where_python_looks_there_first(first, script, run, start):
    """An empty entry of PYTHONPATH, and `python -m`: both put the current folder first."""
    words = [script] if start == "script" else ["-m", start]
    path = f"{os.pathsep}{ROOT}" if start == "script" else str(ROOT)
    assert "figure:" in python(first, *words, "evaluate", run, path=path)


@pytest.mark.slow  # half a minute, most of it compiling
def test_nor_does_a_simulation(traps, script):
    words = ("tasks", "--task", "bounded_push", "--episodes", "4")
    assert "expert success" in python(traps, script, *words)


def test_nor_do_the_processes_that_a_command_starts(traps, tmp_path, monkeypatch):
    (tmp_path / "pool.py").write_text(POOL)
    python(traps, tmp_path / "pool.py")
    monkeypatch.chdir(traps)
    with pytest.raises(UserError, match="unknown task"):
        train._worker({"task": "none", "backend": "native", "num_envs": 1, "seconds": 0})
    words = [*fleet._setup(), f"{sys.executable} -m calendar 2026"]
    subprocess.run(["bash", "-c", "\n".join(words)], check=True, capture_output=True)
    assert executed(traps) == []


def test_nor_does_the_search_for_opengl(traps, monkeypatch):
    monkeypatch.chdir(traps)
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    render.find_gl.__wrapped__()
    assert executed(traps) == []


def test_a_checkout_that_one_stands_in_works_and_is_not_mixed_with_another(tmp_path):
    for name in ("envs_mjx", "farl_jax"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    code = (
        "from experiments.search_path import leave_current_folder_out\n"
        "leave_current_folder_out()\n"
        "import multiprocessing\n"
        "where = \"__import__('farl_jax').__file__\"\n"
        "with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "    print(eval(where) == pool.apply(eval, (where,)), eval(where))"
    )
    for path in ("", str(tmp_path)):
        assert f"True {ROOT / 'farl_jax'}" in python(ROOT, "-c", code, path=path)


def test_a_folder_that_somebody_sent_runs_no_code(script, run, tmp_path):
    """Modules, plugins, settings, pickles and Git's hooks, and one stands in it."""
    set_traps(run)
    bomb = Bomb(run / "EXECUTED")
    (run / "demos").mkdir()
    for kind in ("task", "failure", "recovery"):
        np.savez(run / "demos" / f"{kind}.npz", metadata=np.array(bomb, object))
    for path in ("offline/0/metadata.json", "farl/checkpoints/1/metadata.json"):
        (run / path).parent.mkdir(parents=True)
        (run / path).write_bytes(pickle.dumps(bomb))
    (run / "matplotlibrc").write_text("backend: module://conftest\n")
    (run / "trap-1.0.dist-info").mkdir()
    entries = "[jax_plugins]\ntrap = conftest\n[console_scripts]\nfarl = conftest\n"
    (run / "trap-1.0.dist-info" / "entry_points.txt").write_text(entries)
    (run / "trap.pth").write_text("import conftest\n")
    (run / ".git").mkdir()
    (run / ".git" / "config").write_text("[core]\n\tfsmonitor = touch EXECUTED\n")
    assert "failure episodes" in python(run, script, "evaluate", ".")
    assert "2 runs" in python(run, script, "report", ".", "-o", tmp_path / "report")
    assert "damaged" in python(run, script, "online", ".", "--method", "mppi", code=2)
    assert "damaged" in python(run, script, "offline", ".", "--overwrite", code=2)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, and what modules it gets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    before = set(sys.modules)
    yield lambda name, text: (tmp_path / f"{name}.py").write_text(text)
    assert str(tmp_path) not in sys.path
    for name in set(sys.modules) - before:
        del sys.modules[name]


OWN = "from envs_mjx.bounded_push import BoundedPush\nclass Own(BoundedPush):\n    name = 'own'\n"


def test_an_import_path_reaches_the_current_folder_and_what_its_module_imports(folder):
    folder("beside", "name = 'own'")
    folder(
        "own_task",
        OWN.replace("'own'", "beside.name") + "import beside\n",
    )
    with pytest.raises(EnvError, match=r"own_task.py, line 2: NameError"):
        task_class("own_task:Own")
    folder("own_task", "import beside\n" + OWN.replace("'own'", "beside.name"))
    assert make("own_task:Own", "native").name == "own"


def test_it_never_shadows_an_installed_module(folder, tmp_path):
    sys.modules.pop("sched", None)
    folder("sched", "raise SystemError('shadowed')")
    folder("own_task", "import sched\n" + OWN)
    assert task_class("own_task:Own").name == "own"
    folder("this_is_mine", OWN)
    with pytest.raises(EnvError, match=r"is installed and hides .*sched\.py here: rename yours"):
        task_class("sched:Own")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (", r"broken.py, line 1: SyntaxError"),
        ("\n1 / 0", r"broken.py, line 2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", r"broken.py, line 1: SystemExit: 0"),
        (
            "import none_such",
            r"line 1: ModuleNotFoundError: No module named 'none_such'",
        ),
        ("import jax.numpy\njax.numpy.zeros(-1)", r"broken.py, line 2: TypeError"),
        ("def f():\n    f()\nf()", r"broken.py, line 3: RecursionError"),
        ("raise ValueError('two\\nlines')", r"broken.py, line 1: ValueError: two lines"),
        ("x = 1", "has no such class"),
        ("Own = 3", "has something else of that name"),
        ("class Own: ...", "is not a task: it has no 'careless'"),
        (OWN + "    def __init__(self, x): ...", "does not work: TypeError: .*argument: 'x'"),
        (OWN + "    def edit_physics(self, spec):\n        1 / 0", "line 5: ZeroDivisionError"),
    ],
)
def test_code_that_does_not_work_is_one_line_and_says_where(folder, capsys, text, said):
    folder("broken", text)
    with pytest.raises(EnvError, match=said):
        make("broken:Own", "native")
    for words in (["tasks"], ["demos"], ["bench"], ["bench", "train"]):
        assert main([*words, "--task", "broken:Own"]) == 2 or words == ["bench", "train"]
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_who_interrupts_an_import_is_not_refused(folder):
    folder("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        task_class("slow:Own")


NAMES = """../x:Y a-b:Y :Y x: : x:Y:Z x.:Y os:path sys:exit none.such:T builtins:int envs_mjx:Task
__main__:main json:Own é:é 1:1"""
ODD = ("x\0:Y", "\0", "", "x\ny", "x" * 10_000, "x:" + "y" * 10_000, "x" * 10_000 + ":Y")


@pytest.mark.parametrize("name", [*NAMES.split(), *ODD])
def test_a_name_of_no_task_is_one_short_line(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert main(["tasks", "--task", name, "--episodes", "4"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("farl: ") and said.count("\n") == 1 and len(said) < 500
    assert "\0" not in said and list(tmp_path.iterdir()) == []
