"""The current folder is not searched for modules.

Python searches it first under `python -m`, and when PYTHONPATH has an empty entry. A foreign file
`json.py` there would run instead of the real one. So the folder leaves the path before any import
that it could shadow. Only `envs_mjx.import_path` searches it, for a task's name.
"""

import os
import site
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder of this package: a checkout, or the folder of installed packages."""
_PACKAGES = ("envs_mjx", "farl_jax")


def leave_current_folder_out() -> None:
    """Import nothing from the current folder, in this process and its children.

    If the current folder is the checkout itself, it is searched last.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # for children, such as multiprocessing's
    if words := os.environ.get("PYTHONPATH"):
        kept = (folder for folder in words.split(os.pathsep) if not _is_here(folder))
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    installed = site.getsitepackages(), [site.getusersitepackages(), os.path.dirname(os.__file__)]
    if any(_is_here(folder) for folders in installed for folder in folders):
        return  # the installed modules are here
    sys.path[:] = [folder for folder in sys.path if not _is_here(folder)]
    if _is_here(ROOT):
        from importlib.machinery import PathFinder

        sys.path.append(ROOT)
        found = [PathFinder.find_spec(name) for name in _PACKAGES]
        if any(os.path.dirname(os.path.dirname(spec.origin)) != ROOT for spec in found):
            sys.path.insert(0, ROOT)  # another copy is installed, and must not mix with this one


def _is_here(folder: str) -> bool:
    try:
        return not folder or os.path.samefile(folder, os.curdir)
    except OSError:
        return False
