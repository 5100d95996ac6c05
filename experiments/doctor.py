"""`farl doctor`: what works on this machine, and what to install for what."""

import importlib.util
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
from rich.console import Console
from rich.text import Text

import envs_mjx
from envs_mjx.errors import RenderError
from experiments.process.machine import free_memory, version_text

TASK = "bounded_push"
EXTRAS = {
    "cuda12": ("jax_cuda12_plugin", "training on an NVIDIA GPU with CUDA 12"),
    "cuda13": ("jax_cuda13_plugin", "training on an NVIDIA GPU with CUDA 13"),
    "warp": ("mujoco_warp", "the physics backend warp"),
    "onnx": ("jax2onnx", "farl export for ONNX Runtime"),
    "slurm": ("submitit", "farl sweep --executor slurm"),
    "gymnasium": ("gymnasium_robotics", "the example of an environment of your own"),
    "minari": ("minari", "Minari datasets in farl demos import and export"),
    "h5py": ("h5py", "HDF5 files in farl demos import"),
    "wandb": ("wandb", "--track wandb"),
    "trackio": ("trackio", "--track trackio"),
    "docs": ("mkdocs", "the documentation's site"),
}
"""Extra of the package -> (a module that it installs, what it is for)."""
_COLORS = {"ok": "green", "missing": "yellow", "broken": "red", "": "dim"}


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    name: str
    state: str
    """ok, missing (something optional is not there), broken (training needs it), or empty."""
    text: str


def examine(*, step: bool) -> Iterator[Finding]:
    """Examine this machine, one finding after the other; `step` compiles every backend."""
    yield from _hardware()
    for backend in envs_mjx.BACKENDS:
        yield _backend(backend, step=step or backend == "native")
    yield _opengl()
    yield _compile_cache()
    for extra, (module, purpose) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        way = purpose if there else f"{purpose}: pip install 'farl-jax[{extra}]'"
        yield Finding(f"extra {extra}", "ok" if there else "missing", way)


def doctor(console: Console, *, step: bool) -> int:
    """Print versions and findings, and return 1 if something that training needs is broken."""
    for line in version_text().splitlines():
        console.print(line, soft_wrap=True)
    console.print("")
    broken = []
    for finding in examine(step=step):
        mark = (f"{finding.state:<8}", _COLORS[finding.state])
        line = Text.assemble(f"{finding.name:<17}", mark, finding.text)
        console.print(line, soft_wrap=True)
        broken += [finding.name] if finding.state == "broken" else []
    console.print("")
    told = f"broken: {', '.join(broken)}" if broken else "training works here: farl run"
    console.print(told, soft_wrap=True)
    return 1 if broken else 0


def _hardware() -> Iterator[Finding]:
    cores, memory = len(os.sched_getaffinity(0)), free_memory()
    yield Finding("cores", "", f"{cores} usable of {os.cpu_count()}")
    text = "unknown" if memory is None else f"{memory / 1e9:.1f} GB free"
    yield Finding("memory", "", f"{text}; farl run --preset quick needs 2 GB")
    if jax.default_backend() == "cpu":
        text = "no accelerator; training uses C MuJoCo on the cores"
        yield Finding("accelerator", "missing", text)
    else:
        device = jax.devices()[0]
        yield Finding("accelerator", "ok", f"{jax.device_count()} x {device.device_kind}")


def _backend(backend: str, *, step: bool) -> Finding:
    """Build an environment, and with `step` compile and make one step."""
    name, started = f"backend {backend}", time.perf_counter()
    default = "mjx" if jax.default_backend() != "cpu" else "native"
    role = "; the default here" if backend == default else ""
    try:
        env = envs_mjx.make(TASK, backend)
        if not step:
            return Finding(name, "ok", f"built; farl doctor --step also compiles it{role}")
        options = dict(env.compiler_options)
        state = jax.jit(env.reset, compiler_options=options)(jax.random.key(0))
        action = jax.numpy.zeros(env.action_size)
        state = jax.jit(env.step, compiler_options=options)(state, action)
        finite = bool(jax.numpy.isfinite(state.obs).all())
    except envs_mjx.EnvError as error:
        return Finding(name, "broken" if backend == default else "missing", str(error))
    except Exception as error:  # a driver or compiler may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return Finding(name, "broken" if backend == default else "missing", reason)
    spent = f"compiled and stepped in {time.perf_counter() - started:.1f} s{role}"
    return Finding(name, "ok" if finite else "broken", spent if finite else "a step is not finite")


def _opengl() -> Finding:
    from envs_mjx import render

    try:
        return Finding("films", "ok", f"OpenGL by {render.find_gl()}")
    except RenderError as error:
        return Finding("films", "missing", " ".join(str(error).split()))


def _compile_cache() -> Finding:
    folder = jax.config.jax_compilation_cache_dir
    if not folder:
        return Finding("compile cache", "missing", "none; set FARL_CACHE_DIR to a writable folder")
    sizes = [path.stat().st_size for path in Path(folder).glob("*") if path.is_file()]
    text = f"{folder}: {len(sizes):,} files, {sum(sizes) / 1e6:,.0f} MB"
    return Finding("compile cache", "ok", text)
