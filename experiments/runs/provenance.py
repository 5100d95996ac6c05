"""Provenance of a run's artefacts: stored with each, and checked when it is used.

An artefact has the settings of its run, and the SHA-256 of its source data. Artefacts of older
versions have less, and only that is checked.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from experiments.errors import UserError
from experiments.runs import files as run_files
from experiments.runs.folder import first_difference
from experiments.runs.presets import PRESETS, RunSettings, preset
from farl_jax.agent import Agent
from farl_jax.config import FarlConfig
from farl_jax.data.dataset import KINDS
from farl_jax.methods import METHODS, Method
from farl_jax.schema import SchemaError

CALIBRATION = (
    *("rule", "form", "tail", "horizon", "hold"),
    *("target_recall", "target_trigger_rate", "lead_time"),
)
"""Safety settings of the offline phase, for the calibrated eps_safe (max_risk = None)."""
ONLINE = ("online", "adaptation", "risk_critic", "mppi", "constraint")
"""Groups of settings that the shared offline phase does not read. Methods that need a risk critic
or V_C fit it to the demonstrations when they start."""
_WAY = "restore this run's own, or make it again with --overwrite"


def base_settings(settings: RunSettings) -> RunSettings:
    """Settings of the base run, whose demonstrations and offline checkpoint `settings` may use.

    Settings that the offline phase does not read are the preset's. Calibration settings count only
    if eps_safe is calibrated. The base of a base is itself.
    """
    base = _base_config(settings.preset, settings.config)
    return dataclasses.replace(settings, config=base)


@functools.lru_cache(maxsize=4096)
def _base_config(preset_name: str, config: FarlConfig) -> FarlConfig:
    plain, own = _default(preset_name), config.safety
    default = plain.safety
    read = {name: getattr(own, name) for name in CALIBRATION}
    if own.max_risk is None and dataclasses.replace(default, **read) != default:
        default = dataclasses.replace(default, max_risk=None, **read)
    groups = {name: getattr(plain, name) for name in ONLINE}
    return _with_groups(config, groups | {"safety": default})


def settings_read(settings: RunSettings, method: Method) -> RunSettings:
    """`settings` with the preset's values where `method` does not read them."""
    groups = [f.name for f in dataclasses.fields(settings.config) if not method.reads(f.name)]
    return _as_preset(settings, groups)


def read_by(settings: RunSettings, kind: str) -> RunSettings:
    """`settings` with the preset's values where an artefact does not depend on them.

    `kind` is demos, offline, risk_critic or a method.
    """
    if kind in METHODS:
        return settings_read(settings, METHODS[kind])
    if kind == "offline":
        return base_settings(settings)
    if kind == "risk_critic":
        own = settings.config.risk_critic
        base = base_settings(settings)
        return dataclasses.replace(base, config=dataclasses.replace(base.config, risk_critic=own))
    groups = (f.name for f in dataclasses.fields(settings.config))
    return _as_preset(settings, [name for name in groups if name not in ("demos", "env")])


def check(
    settings: RunSettings,
    about: Any,
    kind: str,
    path: Path,
    sources: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Refuse an artefact of another run, or of other data than the run has now.

    Args:
        settings: of the run that uses it.
        about: the artefact's `settings`, and `sources`, name -> SHA-256. Missing ones are not
            checked.
        kind: see `read_by`.
        path: of the artefact.
        sources: of the run now. Names that are not in `about` are not compared.

    Raises:
        UserError: it names the first setting or source that differs.
    """
    made_from = about.get("sources", {}) if isinstance(about, Mapping) else None
    if not isinstance(made_from, Mapping):
        raise UserError(f"{path}: its sources are not a group of fields; {_WAY}")
    if (saved := about.get("settings")) is not None:
        try:
            theirs = RunSettings.from_json(saved)
        except (UserError, SchemaError) as error:
            raise UserError(f"{path}: its settings: {error}") from error
        made, wanted = (read_by(own, kind).to_json() for own in (theirs, settings))
        if difference := first_difference(made, wanted):
            name, old, new = difference
            raise UserError(f"{path}: made with {name} {old}, but this run has {new}; {_WAY}")
    for name, sha in sources.items():
        if made_from.get(name, sha) != sha:
            raise UserError(f"{path}: made from another {name} than this run's; {_WAY}")


def sha_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def demo_sources(folder: Path) -> dict[str, str]:
    """SHA-256 of the existing demonstrations."""
    files = {f"demos/{kind}.npz": folder / f"{kind}.npz" for kind in KINDS}
    return {name: sha_of(path) for name, path in files.items() if path.is_file()}


def sources_of(start: Agent, method: Method) -> dict[str, str]:
    """SHA-256 of a method's start: the offline result, and the risk critic if it has one.

    A method without a gate does not read the calibrated max_risk, so that may differ.
    """
    from farl_jax.storage.leaves import digest

    offline = start.replace(risk_critic=None)
    offline = offline if method.gated else offline.replace(max_risk=None)
    named = {"offline": offline, "risk_critic": start.risk_critic}
    return {name: digest(tree) for name, tree in named.items() if tree is not None}


def read_result(
    run: Path,
    settings: RunSettings,
    method: str,
    sources: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the row of a finished method, without its provenance.

    `settings` are the run's. For `sources` see `check`.

    Raises:
        SchemaError: it is missing, damaged, or in another run's folder.
        UserError: it was not made from this run.
    """
    row = run_files.read_result(run / method, vars(settings))
    check(settings, row.pop("made_from", {}), method, run / method / run_files.RESULT, sources)
    return row


@functools.cache
def _default(preset_name: str) -> FarlConfig:
    return preset(preset_name) if preset_name in PRESETS else FarlConfig()


def _as_preset(settings: RunSettings, groups: Iterable[str]) -> RunSettings:
    """`settings` with the preset's values in these groups."""
    config = _preset_groups(settings.preset, settings.config, tuple(groups))
    return dataclasses.replace(settings, config=config)


@functools.lru_cache(maxsize=4096)
def _preset_groups(preset_name: str, config: FarlConfig, groups: tuple[str, ...]) -> FarlConfig:
    default = _default(preset_name)
    return _with_groups(config, {name: getattr(default, name) for name in groups})


def _with_groups(config: FarlConfig, groups: Mapping[str, Any]) -> FarlConfig:
    """`config` with other groups, adjusted so that all groups fit together."""
    length, groups = config.world_model.train_horizon, dict(groups)
    online = groups.get("online", config.online)
    if "safety" in groups and groups["safety"].horizon >= length:
        groups["safety"] = dataclasses.replace(groups["safety"], horizon=length - 1)
    if "adaptation" in groups and online.rollout < length:
        groups["adaptation"] = dataclasses.replace(groups["adaptation"], every=0)
    return dataclasses.replace(config, **groups)
