"""The command line `farl`. A user error is one line on stderr and exit code 2."""

import itertools
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments import options
from experiments.arguments import StartArgs
from experiments.commands import COMMANDS, PARENTS
from experiments.errors import UserError, disk_errors
from experiments.process import signals
from experiments.process.console import one_line, warn
from experiments.runs.presets import preset
from farl_jax.schema import SchemaError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default this process's, and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = lambda message, *_: warn(message)
    try:
        work = _understood(words)
        return 0 if work is None else signals.guarded(words, work)
    except Exception as error:
        line = _user_line(error)
        if line is None:
            raise
        print(f"farl: {line}", file=sys.stderr)
        return 2


def _understood(words: list[str]) -> Callable[[], int] | None:
    """Return the work of a command line, with JAX imported, or None after printing help."""
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return None
    if words[0] in ("-V", "--version"):
        _import_jax()
        return _tell_version
    name = next((n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS), words[0])
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}. Choose one of {', '.join(COMMANDS)}")
    arguments = _parse(COMMANDS[name][0], name, words[len(name.split()) :])
    if arguments is None:
        return None
    _import_jax()
    return lambda: _work(name, arguments)


def _import_jax() -> None:
    """Import JAX only where it is needed, because the import is slow."""
    try:
        import jax  # noqa: F401  reads its environment variables
    except ValueError as error:
        raise UserError(f"JAX does not start: {error}. Correct or unset this variable") from error


def _tell_version() -> int:
    from experiments.process.jax_settings import find_devices
    from experiments.process.machine import prepare_jax, version_text

    prepare_jax()
    find_devices()
    print(version_text())
    return 0


def _work(name: str, arguments: Any) -> int:
    """Run a command and return its exit code."""
    import jax

    from experiments.process.jax_settings import find_devices
    from experiments.process.machine import prepare_jax

    prepare_jax()
    if name != "report":  # it only reads files
        find_devices(hold_memory=name not in PARENTS)
    if jax.distributed.is_initialized() and name != "online":
        raise UserError(f"farl {name} runs in one process only; unset JAX_COORDINATOR_ADDRESS")
    with disk_errors(Path(".")):
        return COMMANDS[name][1](arguments) or 0


def _parse(kind: type, name: str, words: list[str]) -> Any:
    """Return the arguments of one command, or None after --help."""
    default = None
    if issubclass(kind, StartArgs):
        given = _last(words, "--preset")
        default = kind(config=preset(kind.preset if given is None else given))
    return options.parse(kind, f"farl {name}", words, default)


def _last(words: list[str], option: str) -> str | None:
    """The last value of an option, read before the others."""
    found = None
    for word, after in itertools.pairwise([*words, None]):
        if word == option:
            found = after
        elif word.startswith(option + "="):
            found = word.split("=", 1)[1]
    return found


def _user_line(error: Exception) -> str | None:
    """One line for an error that the user can fix, None for a fault of ours."""
    if isinstance(error, UserError | SchemaError):
        return one_line(error)
    from envs_mjx import EnvError
    from envs_mjx.errors import RenderError
    from farl_jax.data.dataset import DatasetError
    from farl_jax.deploy import DeployError
    from farl_jax.devices import DeviceError
    from farl_jax.storage.checkpoint import CheckpointError
    from farl_jax.storage.trackers import TrackerError

    learner = CheckpointError | DatasetError | DeployError | DeviceError | TrackerError
    if isinstance(error, EnvError | RenderError | learner):
        return one_line(error)
    if "envs_gym" in sys.modules:  # an environment of the user's own is at work
        from envs_gym import message_of

        if (told := message_of(error)) is not None:
            return one_line(told)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)[:200]:
        reason = one_line(error)[:200]
        return f"out of memory ({reason}). Lower online.num_envs, batch sizes or network sizes"
    return None


def _usage() -> str:
    lines = [f"  {name:<15}{text}" for name, (_, _, text) in COMMANDS.items()]
    about = ["farl COMMAND --help", "farl --version"]
    return "\n".join(["usage: farl COMMAND [options]", "", *lines, "", *about])
