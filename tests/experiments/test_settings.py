"""Every setting at and beyond the edges of its range, through every door it can come in by."""

import dataclasses
import json
import math
import pathlib
import re
import shlex
import typing
from typing import Any

import pytest

from experiments import arguments, options
from experiments.cli import COMMANDS, _parse
from experiments.errors import UserError
from experiments.runs import presets
from experiments.runs.files import read_settings
from experiments.runs.presets import RunSettings, parse_setting, preset
from experiments.studies.horizon import plain_gate
from farl_jax import config
from farl_jax.config import FarlConfig
from farl_jax.schema import Checked, Range, SchemaError, hints_of, rules_of

ROOT = pathlib.Path(__file__).parents[2]
FIELDS = [
    (group.name, name, hint)
    for group in dataclasses.fields(FarlConfig)
    for name, hint in hints_of(type(getattr(FarlConfig(), group.name))).items()
]
BY_NAME = pytest.mark.parametrize(
    ("group", "name", "hint"), FIELDS, ids=[f"{group}.{name}" for group, name, _ in FIELDS]
)


def whole(hint: Any) -> bool:
    return int in options._kinds(hint)


def beyond(hint: Any) -> list[Any]:
    """Values that no number of this annotation may have, each just beyond an edge or no number."""
    wrong: list[Any] = [math.nan, math.inf, -math.inf, "much", True]
    for rule in rules_of(hint):
        if not isinstance(rule, Range):
            continue
        for bound, outwards, is_open in (
            (rule.low, -math.inf, rule.low_open),
            (rule.high, math.inf, rule.high_open),
        ):
            if isinstance(bound, int | float):
                step = (1 if outwards > 0 else -1) if whole(hint) else 0
                edge = bound if is_open else (bound + step or math.nextafter(bound, outwards))
                wrong.append(edge if is_open or step else math.nextafter(bound, outwards))
    return [*wrong, 2.5] if whole(hint) else wrong


def within(hint: Any) -> list[Any]:
    """The outermost values that a number of this annotation may have."""
    good: list[Any] = [None] if type(None) in options._kinds(hint) else []
    for rule in rules_of(hint):
        for bound, inwards, is_open in (
            (getattr(rule, "low", None), math.inf, getattr(rule, "low_open", False)),
            (getattr(rule, "high", None), -math.inf, getattr(rule, "high_open", False)),
        ):
            if isinstance(bound, int | float):
                step = 1 if inwards > 0 else -1
                good.append(
                    bound
                    if not is_open
                    else (bound + step if whole(hint) else math.nextafter(bound, inwards))
                )
    return good


def is_number(hint: Any) -> bool:
    return options._is_number(hint)


def text_of(value: Any) -> str:
    return "none" if value is None else repr(value).strip("'")


@BY_NAME
def test_every_number_declares_what_it_may_be(group, name, hint):
    """Only margins and returns, which may be negative, and the floor of a logarithm have none."""
    free = {"danger_margin", "safe_margin", "log_prob_floor", "random_return", "expert_return"}
    assert bool(rules_of(hint)) or not is_number(hint) or name in free


@BY_NAME
def test_no_door_lets_a_value_beyond_its_edge_in(group, name, hint):
    if not is_number(hint):
        return
    default, kind = FarlConfig(), type(getattr(FarlConfig(), group))
    for value in beyond(hint):
        with pytest.raises(SchemaError):
            dataclasses.replace(getattr(default, group), **{name: value})
        with pytest.raises(SchemaError, match=rf"{group}\.{name} must be"):
            saved = RunSettings().to_json()
            saved["config"][group][name] = value
            RunSettings.from_json(saved)
        with pytest.raises(SchemaError, match=rf"{group}\.{name} must be"):
            parse_setting(f"{group}.{name}", text_of(value))
        with pytest.raises(UserError, match=rf"^--{name.replace('_', '-')} must be"):
            options.parse(kind, "farl", [f"--{name.replace('_', '-')}={text_of(value)}"])


@BY_NAME
def test_every_door_lets_the_edge_itself_in(group, name, hint):
    kind = type(getattr(FarlConfig(), group))
    for value in within(hint):
        made = kind(**{name: value})
        assert getattr(made, name) == value
        assert parse_setting(f"{group}.{name}", text_of(value)) == value
        words = [f"--{name.replace('_', '-')}={text_of(value)}"]
        assert options.parse(kind, "farl", words) == made


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"safety": {"horizon": 5}}, "safety.horizon must be"),
        ({"world_model": {"train_horizon": 1}}, "below world_model.train_horizon (1); got 1"),
        ({"mppi": {"samples": 4}}, "mppi.elites must be between 1 and mppi.samples (4); got 8"),
        ({"mppi": {"max_std": 0.01}}, "mppi.max_std must be at least mppi.min_std (0.05)"),
        ({"safety": {"min_recovery_steps": 61}}, "safety.max_recovery_steps must be at least"),
        ({"online": {"minibatches": 5000}}, "(4096); got 5000"),
        ({"online": {"rollout": 4}}, "online.rollout must be at least"),
        (
            {"world_model": {"encoder": "mlp", "latent": 60}},
            "a multiple of world_model.simnorm_group (8); got 60",
        ),
        ({"adaptation": {"failing_windows": 10}}, "adaptation.failing_windows (10); got 160"),
        ({"safety": {"form": "sum"}}, "safety.form sum has no tail"),
        ({"safety": {"trigger_rate": 0.1, "min_risk": 0.5}}, "at least safety.min_risk (0.5)"),
    ],
)
def test_settings_that_do_not_go_together_are_named(changes, said):
    with pytest.raises(SchemaError) as refused:
        config.replace(FarlConfig(), changes)
    assert said in str(refused.value)
    words = [
        f"--{group.replace('_', '-')}.{name.replace('_', '-')}={value}"
        for group, fields in changes.items()
        for name, value in fields.items()
    ]
    with pytest.raises((UserError, SchemaError)) as refused:
        _parse(arguments.StartArgs, "run", ["--preset", "paper", *words])
    assert said in str(refused.value)


OLDER = {  # what a version before this one had, with other values than its defaults
    "safety": {
        "horizon": 4,
        "max_risk": 1.5,
        "gamma_risk": 0.9,
        "failure_limit": 0.01,
        "limit_rate": 0.1,
        "limit_memory": 500,
        "patience": 9,
    },
    "online": {"success_bonus": 1000.0, "reward_scale": 0.01, "rollout": 64},
    "world_model": {"failure_window": 250, "train_horizon": 5},
}


def test_settings_of_an_older_version_are_read_in_this_ones_terms():
    saved = {"protocol": presets.PROTOCOL, "task": "bounded_push", "config": OLDER}
    assert set(presets.retired(saved)) == presets.RETIRED.keys()
    before = json.dumps(saved)
    read = RunSettings.from_json(saved).config
    assert json.dumps(saved) == before  # the file's content is not changed
    safety = {
        "form": "sum",
        "tail": False,
        "release": 1.0,
        "control_share": 0.0,
        "trigger_rate": None,
    }
    changes = {
        "safety": safety | {"rule": "paper", "horizon": 4, "patience": 9, "max_risk": 1.5},
        "online": {"rollout": 64},
        "world_model": {"gamma_risk": 0.9, "train_horizon": 5},
    }
    assert read == config.replace(FarlConfig(), changes)


def test_settings_of_this_version_have_nothing_retired():
    saved = RunSettings().to_json()
    assert presets.retired(saved) == () and presets.without_retired(saved) == saved
    for name in presets.RETIRED:
        group, field = name.split(".")
        assert field not in saved["config"][group]


def test_a_run_of_an_older_version_is_read_with_one_line(tmp_path):
    saved = RunSettings().to_json() | {"config": OLDER}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.warns(UserWarning) as told:
        settings, kept = read_settings(tmp_path)
    assert kept == saved and settings == RunSettings.from_json(saved)
    (line,) = [str(warning.message) for warning in told]
    assert line == (
        f"{tmp_path}/config.json: settings of an older version: safety.gamma_risk "
        "(world_model.gamma_risk), safety.limit_rate (left out), safety.failure_limit (left out), "
        "safety.limit_memory (left out), online.success_bonus (left out), "
        "online.reward_scale (left out), "
        "world_model.failure_window (left out)"
    )


@pytest.mark.parametrize("name", presets.PRESETS)
def test_critic_and_world_model_have_equal_budgets(name):
    """Env steps for each sample online, samples offline, and steps that are kept."""
    made = preset(name)
    world, critic, steps = made.world_model, made.risk_critic, config.steps_per_sample(made)
    assert steps["risk_critic"] == pytest.approx(steps["world_model"])
    assert critic.steps * critic.batch == world.steps * world.batch * world.train_horizon
    length, adapt = world.train_horizon, made.adaptation
    assert critic.transitions_per_rollout == length * adapt.windows_per_rollout
    assert critic.transitions == length * adapt.windows
    assert critic.failing_transitions == length * adapt.failing_windows


def test_env_steps_per_sample_by_hand():
    """2 updates of 128 windows of 5 steps after a rollout of 32 x 128; a frozen one has none."""
    steps = config.steps_per_sample(FarlConfig())
    assert steps["world_model"] == pytest.approx(32 * 128 / (2 * 128 * 5))
    frozen = config.replace(FarlConfig(), {"adaptation": {"every": 0}})
    assert config.steps_per_sample(frozen)["world_model"] == math.inf


def test_settings_change_together_or_not_at_all():
    both = {"world_model": {"train_horizon": 5}, "safety": {"horizon": 4}}
    assert config.replace(FarlConfig(), both).safety.horizon == 4


def test_help_says_what_every_number_may_be(capsys):
    assert _parse(arguments.StartArgs, "run", ["--help"]) is None
    shown = " ".join(capsys.readouterr().out.split())
    for group, name, hint in FIELDS:
        for rule in rules_of(hint):
            option = f"--{group}.{name}".replace("_", "-")
            assert re.search(rf"{re.escape(option)} \S+ .*?in {re.escape(str(rule))}", shown), name
    assert "Share of trajectories held out, at least one. Their likelihood selects" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_number_of_every_command_has_a_range(name):
    kind = COMMANDS[name][0]
    assert issubclass(kind, Checked)
    for field, hint in hints_of(kind).items():
        assert rules_of(hint) or not is_number(hint), field


@pytest.mark.parametrize("name", ["run", "demos"])
def test_a_command_needs_no_words(name):
    args = _parse(COMMANDS[name][0], name, [])
    assert args.config == preset("quick")


@pytest.mark.parametrize("option", ["preset", "task"])
def test_the_last_of_an_option_given_twice_counts_everywhere(option):
    first, last = {"preset": ("paper", "smoke"), "task": ("bounded_push", "obstructed_push")}[
        option
    ]
    words = [f"--{option}", first, f"--{option}={last}"]
    args = _parse(arguments.StartArgs, "run", words)
    assert getattr(args, option) == last
    assert args.config == preset(args.preset)


def documented_options() -> list[tuple[str, str]]:
    """(option, value) of every setting that README, docs or a help text shows with its value."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    texts += [
        " ".join(options.field_docs(type(getattr(FarlConfig(), g))).values()) for g, *_ in FIELDS
    ]
    pattern = r"--([a-z-]+\.[a-z_-]+)[ =]([^\s`|)]+)"
    return sorted({found for text in texts for found in re.findall(pattern, text)})


@pytest.mark.parametrize(("option", "value"), documented_options())
def test_what_the_docs_say_of_an_option_works(option, value):
    group, name = option.replace("-", "_").split(".")
    kind = type(getattr(FarlConfig(), group))
    words = shlex.split(f"--{name.replace('_', '-')} {value}")
    made = options.parse(kind, "farl", words)
    assert text_of(getattr(made, name)).lower().rstrip("0.") == value.lower().rstrip("0.")


def test_none_is_read_in_any_case():
    for word in ("none", "None", "NONE"):
        args = _parse(arguments.StartArgs, "run", ["--safety.max-risk", word])
        assert args.config.safety.max_risk is None


def test_the_readers_of_hints_know_all_kinds():
    hints = typing.get_type_hints(arguments.SweepArgs, include_extras=True)
    assert not is_number(hints["together"]) and not is_number(hints["out"])
    assert is_number(hints["seeds"])


@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_horizon_study_may_look_farther_than_the_model_was_trained(name):
    longest = max(config.HorizonConfig().horizons)
    made = plain_gate(preset(name), longest)
    assert made.safety.horizon == longest >= preset(name).world_model.train_horizon
    assert (made.safety.rule, made.safety.tail) == ("paper", False)
