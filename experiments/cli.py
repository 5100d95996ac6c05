"""`farl`: one command line for every phase. User errors are one line on stderr and exit code 2."""

import itertools
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments import options
from experiments.arguments import ImportArgs, StartArgs
from experiments.commands import COMMANDS
from experiments.errors import UserError, disk_errors
from experiments.process import signals
from experiments.process.console import one_line, warn
from experiments.runs.presets import preset
from farl_jax.schema import SchemaError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of this process; returns the exit code."""
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
    """What a command line asks for, JAX imported; None where it asked for help, which is given."""
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return None
    if words[0] in ("-V", "--version"):
        _import_jax()
        return _tell_version
    name = next((n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS), words[0])
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}: choose one of {', '.join(COMMANDS)}")
    arguments = _parse(COMMANDS[name][0], name, words[len(name.split()) :])
    if arguments is None:
        return None
    _import_jax()
    return lambda: _work(name, arguments)


def _import_jax() -> None:
    """Import JAX, only where it is needed: it takes longer than all else at the start."""
    try:
        import jax  # noqa: F401  reads its variables of the environment
    except ValueError as error:
        raise UserError(f"JAX does not start: {error}; correct or unset it") from error


def _tell_version() -> int:
    from experiments.process.jax_settings import find_devices
    from experiments.process.machine import prepare_jax, version_text

    prepare_jax()
    find_devices()
    print(version_text())
    return 0


def _work(name: str, arguments: Any) -> int:
    """Exit code of a command."""
    import jax

    from experiments.process.jax_settings import find_devices
    from experiments.process.machine import prepare_jax

    prepare_jax()
    if name != "report":  # which reads files alone
        find_devices()
    if jax.distributed.is_initialized() and name != "online":
        raise UserError(f"several processes share `farl online` only: run farl {name} in one")
    with disk_errors(Path(".")):
        return COMMANDS[name][1](arguments) or 0


def _parse(kind: type, name: str, words: list[str]) -> Any:
    """Arguments of one command, None after --help; a bad word becomes a UserError."""
    default = None
    if issubclass(kind, StartArgs):
        names = ("preset", "env" if kind is ImportArgs else "task")
        given = [_last(words, f"--{name}") for name in names]
        chosen = [getattr(kind, k) if v is None else v for k, v in zip(names, given, strict=True)]
        default = kind(config=preset(*chosen))
    return options.parse(kind, f"farl {name}", words, default)


def _last(words: list[str], option: str) -> str | None:
    """The value of an option that is read before the others, where it stands last."""
    found = None
    for word, after in itertools.pairwise([*words, None]):
        if word == option:
            found = after
        elif word.startswith(option + "="):
            found = word.split("=", 1)[1]
    return found


def _user_line(error: Exception) -> str | None:
    """One line for an error that its user can put right, None for a fault of ours."""
    if isinstance(error, UserError | SchemaError):
        return one_line(error)
    from envs_mjx import EnvError
    from envs_mjx.render import RenderError
    from farl_jax.data.dataset import DatasetError
    from farl_jax.devices import DeviceError
    from farl_jax.storage.checkpoint import CheckpointError

    if isinstance(error, EnvError | RenderError | CheckpointError | DatasetError | DeviceError):
        return one_line(error)
    if "envs_gym" in sys.modules:  # an environment of the user's own is at work
        from envs_gym import message_of

        if (told := message_of(error)) is not None:
            return one_line(told)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)[:200]:
        reason = one_line(error)[:200]
        return f"out of memory ({reason}): lower online.num_envs, batch sizes or network sizes"
    return None


def _usage() -> str:
    lines = [f"  {name:<15}{text}" for name, (_, _, text) in COMMANDS.items()]
    about = ["farl COMMAND --help", "farl --version"]
    return "\n".join(["usage: farl COMMAND [options]", "", *lines, "", *about])
