"""Folders of finished runs with known numbers, as the commands leave them."""

import dataclasses
import json
import pathlib
from typing import Any

from PIL import Image

from experiments.runs.presets import RunSettings
from farl_jax.config import HorizonConfig

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GATE = {
    "max_risk": 0.01,
    "trigger_rate": 0.05,
    "precision": 0.1,
    "recall": 0.9,
    "lead": None,
    "onsets": 2.0,
}


def write(path: pathlib.Path, content: Any) -> pathlib.Path:
    """A JSON file; text is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def result(
    task: str, method: str, seed: int, failures: int, final: float, **other: Any
) -> dict[str, Any]:
    """A row as in result.json: 100 episodes of 10,000 steps."""
    return {
        "task": task,
        "method": method,
        "seed": seed,
        "preset": "quick",
        "online_steps": 10_000,
        "episodes": 100,
        "failure_episodes": failures,
        "failing_steps": 3 * failures,
        "successes": 50,
        "recovered_steps": 0 if method == "uni_o4" else 500,
        **dict.fromkeys(("offline_steps", "offline_episodes", "offline_failure_episodes")),
        "causes": None if method == "uni_o4" else {"gate_silent": 1, "recovery_late": failures - 1},
        "initial_return": 10.0,
        "final_return": final,
        "final_return_se": 1.0,
        "initial_success": 0.1,
        "final_success": 0.9,
        "final_failure_rate": 0.0,
        "final_return_without_gate": final,
        "final_success_without_gate": 0.9,
        "max_risk": None if method == "uni_o4" else 0.01,
        "backend": "native",
        "wall_seconds": 60.0,
        **other,
    }


def write_run(
    seed_folder: pathlib.Path,
    row: dict[str, Any],
    settings: dict[str, Any] | None = None,
    env: dict[str, Any] | None = None,
) -> pathlib.Path:
    """The run of one method; `settings` are dotted names of config.json that differ."""
    config = RunSettings(task=row["task"], preset=row["preset"], seed=row["seed"]).to_json()
    for name, value in (settings or {}).items():
        group, field = name.split(".")
        config["config"].setdefault(group, {})[field] = value
    write(seed_folder / "config.json", config)
    known = {
        "command": ["/somewhere/experiments/cli.py", "run", "--task", row["task"]],
        "git": {"commit": COMMIT, "dirty": False},
        "packages": {"jax": "0.10.2"},
        "cpu_count": 2,
    }
    write(seed_folder / "env.json", known | (env or {}))
    write(seed_folder / row["method"] / "result.json", row)
    curve = [
        {
            "phase": "online",
            "step": step,
            "eval_return": row["final_return"] * step / row["online_steps"],
            "failure_episodes": row["failure_episodes"] * step / row["online_steps"],
            "recovered_steps": row["recovered_steps"] * step / row["online_steps"],
            "wall_seconds": row["wall_seconds"] * step / row["online_steps"],
        }
        for step in (0, 5_000, 10_000)
    ]
    lines = "".join(json.dumps(point) + "\n" for point in curve)
    write(seed_folder / row["method"] / "metrics.jsonl", lines)
    return seed_folder / row["method"]


def write_film(folder: pathlib.Path) -> None:
    """A film of two frames and its contact sheet."""
    first, second = (Image.new("RGB", (64, 48), color) for color in ("red", "blue"))
    first.save(folder / "film.gif", save_all=True, append_images=[second])
    first.save(folder / "sheet.png")


def sweep_row(swept: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """A line of sweep.jsonl: a result, the settings that were swept, and its cell."""
    cell = ",".join(f"{name}={value}" for name, value in swept.items())
    where = {"cell": f"{cell}/seed{row['seed']}", "command": "farl sweep", "git": COMMIT}
    return swept | row | where


def write_horizon(folder: pathlib.Path) -> None:
    """A study of two horizons, as `farl sweep horizon` leaves it."""
    measured = {
        "return": (60.0, [55.0, 65.0]),
        "reduction_percent": (80.0, [60.0, 90.0]),
        "trigger_rate": (0.05, [0.04, 0.06]),
        "failure_rate": (0.02, [0.01, 0.03]),
        "success": (0.5, [0.4, 0.6]),
        "recovered_share": (0.1, [0.1, 0.1]),
    }
    acting = {"failure_episodes": 2, "episodes": 100}
    for name, (value, limits) in measured.items():
        acting |= {name: value, f"{name}_interval": limits}
    watched = GATE | {"lead": 6.0, "recall_by_lead": [1.0, 0.9]}
    rows = [
        {
            "horizon": horizon,
            "gamma_risk": 0.95,
            "max_risk": 0.01,
            "beyond_training": False,
            "target_rate": 0.05,
            "watched": watched,
            "acting": acting,
        }
        for horizon in (3, 8)
    ]
    study = {
        "task": "bounded_push",
        "seed": 0,
        "method": "farl",
        "policy_step": 10_000,
        "train_horizon": 13,
        "hold": 3,
        "lead_time": 2,
        "study": dataclasses.asdict(HorizonConfig()),
        "gate_seconds": {"all_gates": 2.0, "one_gate": 1.0},
        "ungated": acting,
        "rows": rows,
        "command": "farl sweep horizon runs/a/seed0",
    }
    write(folder / "horizon.json", study)


def write_diagnosis(folder: pathlib.Path) -> None:
    """A diagnosis in which one measure could not be taken."""
    pair = {
        "episodes": 100,
        "failure_episodes": 2,
        "foresight": {name: [0.9, None] for name in ("auroc", "auprc", "ece", "rate")},
        "gate": GATE,
        "thresholds": [GATE],
        "reliability": {"predicted": [0.1, 0.2], "realised": [0.1, 0.3]},
        "decoder_m": {"hand": [0.01, 0.02], "object": [0.01, None]},
    }
    write(folder / "diagnosis.json", {"max_risk": 0.01, "pairs": {"offline": pair}})
