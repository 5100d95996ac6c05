"""Where modules are looked for: never in the folder that one stands in.

Python looks for modules in the current folder first, under `python -m` and where PYTHONPATH has an
empty entry. There a file `json.py`, from whomever, would run in place of the real one. So that
folder leaves the path before anything is imported that it could shadow: until then only modules
count that Python itself has loaded. `envs_mjx.import_path` alone looks there, for a task's name.
"""

import os
import site
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder that this package lies in: a checkout, or where packages are installed."""
_PACKAGES = ("envs_gym", "envs_mjx", "farl_jax")


def leave_current_folder_out() -> None:
    """Import nothing from the current folder, in this process and in those that it starts.

    A checkout that one stands in is looked in last, so that its own packages are found.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # for `python -c` and `python -m`, as multiprocessing's
    if words := os.environ.get("PYTHONPATH"):
        kept = (folder for folder in words.split(os.pathsep) if not _is_here(folder))
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    installed = site.getsitepackages(), [site.getusersitepackages(), os.path.dirname(os.__file__)]
    if any(_is_here(folder) for folders in installed for folder in folders):
        return  # here are the installed modules themselves
    sys.path[:] = [folder for folder in sys.path if not _is_here(folder)]
    if _is_here(ROOT):
        from importlib.machinery import PathFinder

        sys.path.append(ROOT)
        found = [PathFinder.find_spec(name) for name in _PACKAGES]
        if any(os.path.dirname(os.path.dirname(spec.origin)) != ROOT for spec in found):
            sys.path.insert(0, ROOT)  # another copy is installed: two must not mix


def _is_here(folder: str) -> bool:
    try:
        return not folder or os.path.samefile(folder, os.curdir)
    except OSError:
        return False
