"""House rules a machine can read: who imports whom, how long files and functions may be."""

import ast
import functools
import graphlib
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("envs_gym", "envs_mjx", "farl_jax", "experiments")
SOURCES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
ORACLE = ROOT / "tests" / "oracle"  # it runs in an environment of its own, with MetaWorld
TESTS = sorted({*(ROOT / "tests").rglob("*.py")} - {*ORACLE.glob("*.py")})


@functools.cache
def parsed(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imported(path: pathlib.Path) -> frozenset[str]:
    """Dotted names of all modules a file imports, anywhere in it, also by importlib."""
    modules = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            modules |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    return frozenset(modules)


def roots(path: pathlib.Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def faults(
    look: Callable[[pathlib.Path], Any], paths: Sequence[pathlib.Path] = SOURCES
) -> dict[str, Any]:
    """File -> what `look` finds wrong in it; files without a fault are left out."""
    found = {str(path.relative_to(ROOT)): look(path) for path in paths}
    return {name: wrong for name, wrong in found.items() if wrong}


def test_the_reader_of_imports_reads_all_kinds(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text(
        "import a.b as c\nfrom d import e\n"
        "def f():\n    import g\n    import importlib\n    importlib.import_module('h.i')\n"
    )
    assert imported(path) == {"a.b", "d", "d.e", "g", "importlib", "h.i"}
    assert len(SOURCES) > 30 and len(TESTS) > 10  # the globs find the packages


def test_a_fault_is_named_with_its_file():
    here = [pathlib.Path(__file__), ROOT / "tests" / "conftest.py"]
    assert faults(lambda path: roots(path) & {"graphlib"}, here) == {
        "tests/test_layout.py": {"graphlib"}
    }


def test_packages_only_import_downwards():
    allowed = {
        "envs_gym": {"envs_gym"},
        "envs_mjx": {"envs_mjx"},
        "farl_jax": {"farl_jax"},
        "experiments": set(PACKAGES),
    }
    ours = {*PACKAGES, "tests"}
    assert faults(lambda path: (roots(path) & ours) - allowed[package_of(path)]) == {}


def test_the_simulator_is_named_in_its_own_package_only():
    outside = [path for path in SOURCES if package_of(path) != "envs_mjx"]
    assert faults(lambda path: roots(path) & {"mujoco", "mujoco_warp", "warp"}, outside) == {}


def test_orbax_is_named_in_one_file_only():
    named = faults(lambda path: roots(path) & {"orbax"})
    assert named.keys() == {"farl_jax/storage/checkpoint.py"}


def test_matplotlib_is_named_in_one_file_only_and_pyplot_nowhere():
    named = faults(lambda path: roots(path) & {"matplotlib"})
    assert named.keys() == {"experiments/figures/drawing.py"}
    text = lambda path: path.read_text(encoding="utf-8").replace("no pyplot.", "")
    assert faults(lambda path: "pyplot" in text(path)) == {}


def test_consoles_are_plain():
    text = lambda path: path.read_text(encoding="utf-8").replace("plain_console(", "")
    made = faults(lambda path: "Console(" in text(path))
    assert made.keys() == {"experiments/process/console.py"}


def test_metaworlds_python_is_imported_nowhere():
    assert faults(lambda path: roots(path) & {"metaworld", "gym"}, SOURCES + TESTS) == {}


def test_gymnasium_is_named_where_its_interface_is_spoken():
    def elsewhere(path):
        if path.name in ("gymnasium_env.py", "minari_sets.py") or "envs_gym" in path.parts:
            return None
        return roots(path) & {"gymnasium", "minari", "h5py"} - {
            "h5py" if path.name == "arrays.py" else ""
        }

    assert faults(elsewhere) == {}


def test_optimisers_are_used_only_where_parameters_are_updated():
    users = {path.stem for path in (ROOT / "farl_jax").rglob("*.py") if "optax" in roots(path)}
    fits = {"bc", "iql", "ope", "improve", "learning", "adaptation", "risk_critic"}
    assert users <= fits | {"training", "ppo", "constrained", "costs", "cpo"}


@functools.cache
def floors(package: str) -> dict[str, int]:
    """Part of a package -> its floor, from the package's table in docs/layout.md."""
    text = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
    table = text.split(f"## Floors of `{package}`")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", table, flags=re.MULTILINE)
    return {part: int(floor) for floor, parts in rows for part in re.findall(r"`(\w+)`", parts)}


def package_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).parts[0]


def part_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[1]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_table_of_floors_names_every_part_of_a_package(package):
    parts = {part_of(path) for path in SOURCES if path.is_relative_to(ROOT / package)}
    assert set(floors(package)) == parts - {"__init__"}


def test_a_part_imports_from_lower_floors_only():
    def too_high(path):
        package, own = package_of(path), part_of(path)
        if own == "__init__":
            return set()
        floor = floors(package)
        parts = {name.split(".")[1] for name in imported(path) if name.startswith(f"{package}.")}
        lower = lambda part: floor[part] < floor[own] or floor[part] == floor[own] == 1
        return {part for part in (parts & set(floor)) - {own} if not lower(part)}

    assert faults(too_high) == {}


def test_no_module_imports_another_in_a_circle():
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in SOURCES}
    graph = {name: imported(path) & names.keys() - {name} for name, path in names.items()}
    order = graphlib.TopologicalSorter(graph)
    order.prepare()  # raises CycleError, which names the circle


def test_files_and_functions_stay_short():
    def long_functions(path):
        functions = [
            node
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
        return {name: n for name, n in lengths.items() if n >= 60}

    assert faults(lambda path: len(path.read_text(encoding="utf-8").splitlines()) >= 400) == {}
    assert faults(long_functions) == {}


def test_every_file_says_what_it_is():
    assert faults(lambda path: not ast.get_docstring(parsed(path))) == {}


CHECKED = ("data", "measure", "nn", "offline", "safety", "updates", "world_model")
"""Parts of farl_jax whose public functions check the shapes of their arrays."""
UNCHECKED = {
    "entropy": "one array of any shape",
    "expectile_loss": "one array of any shape",
    "imagined_failures": "its arrays go to imagine",
    "mish": "one array of any shape",
    "normalized_return": "one array of any shape",
    "num_episodes": "one array of any length",
    "pad_to_power_of_two": "one array of any shape",
    "plain_decision": "one array of any shape",
    "predict_failures": "its arrays go to roll_latents",
    "simnorm": "one array of any shape",
    "symexp": "one array of any shape",
    "symlog": "one array of any shape",
    "two_hot": "one array of any shape",
    "two_hot_mean": "one array of any shape",
}
ARRAYS = ("jax.Array", "np.ndarray", "Margin", "Transition")


def array_functions(path: pathlib.Path) -> dict[str, bool]:
    """Public functions that take arrays, keys aside -> whether they call chex."""
    found = {}
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef) and node.name[0] != "_":
            given = [a for a in (*node.args.args, *node.args.kwonlyargs) if a.arg != "key"]
            kinds = {ast.unparse(a.annotation).removesuffix(" | None") for a in given}
            if kinds & set(ARRAYS):
                calls = [ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)]
                found[node.name] = any(name.startswith("chex.") for name in calls)
    return found


@pytest.mark.parametrize("part", CHECKED)
def test_public_functions_check_the_shapes_of_their_arrays(part):
    paths = sorted((ROOT / "farl_jax" / part).glob("*.py"))
    found = {k: v for path in paths for k, v in array_functions(path).items()}
    assert len(found) >= 3
    assert {name for name, checks in found.items() if not checks} <= UNCHECKED.keys()
