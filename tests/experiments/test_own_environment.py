"""`--env`, `demos import` and `demos export` from the command line: whole runs, and one line."""

import importlib
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from experiments.cli import main
from experiments.errors import UserError
from experiments.phases.faults import HostGuard
from experiments.process.console import plain_console
from experiments.runs.environment import environment, is_own_environment, named, task_of
from experiments.runs.presets import RunSettings
from experiments.runs.run import Run
from farl_jax.config import EnvConfig
from farl_jax.storage.json_files import read
from farl_jax.storage.leaves import digest

ROOT = pathlib.Path(__file__).parents[2]
TINY = [
    *("--preset", "smoke", "--demos.failure-episodes", "16", "--demos.num-envs", "8"),
    *("--demos.recovery-episodes", "6", "--demos.task-episodes", "4", "--env.episode-limit", "20"),
    *("--bc.members", "1", "--bc.steps", "20", "--recovery-bc.members", "1"),
    *("--recovery-bc.steps", "20", "--iql.steps", "20", "--offline-ppo.model-steps", "20"),
    *("--world-model.steps", "25", "--world-model.train-horizon", "6", "--safety.horizon", "4"),
    *("--mppi.horizon", "3", "--online.num-envs", "8", "--online.rollout", "16"),
    *("--online.env-steps", "1024", "--online.eval-every", "512", "--online.eval-episodes", "8"),
    *("--online.final-episodes", "8", "--online.checkpoint-every", "256"),
]
MODULE = "from tests.envs_gym.cart import *\n\n\ndef make():\n    return Cart({how})\n"


@pytest.fixture
def robot(tmp_path, monkeypatch):
    """A folder with modules of the user's own, in which one stands; robot(how) is a name in it."""
    monkeypatch.chdir(tmp_path)
    number = iter(range(99))

    def write(how="", text=MODULE):
        name = f"robot_{tmp_path.name[-12:].replace('-', '_')}_{next(number)}"
        (tmp_path / f"{name}.py").write_text(text.format(how=how))
        importlib.invalidate_caches()
        return f"{name}:make"

    return write


def line_of(capsys, *words):
    """What a command says on stderr, one line, with exit code 2."""
    capsys.readouterr()
    assert main(list(words)) == 2
    said = capsys.readouterr().err
    assert said.startswith("farl: ") and said.count("\n") == 1, said
    return said


def test_names_of_environments():
    assert task_of("gymnasium:A-v1") == "gymnasium:A-v1" and task_of("a.b:make") == "env:a.b:make"
    assert named("env:a.b:make") == "--env a.b:make" and named("x:Task") == "--task x:Task"
    assert is_own_environment("env:a:b") and not is_own_environment("a:B")
    with pytest.raises(UserError, match="give gymnasium:ID, or module:function"):
        task_of("FetchPush")


def test_an_environment_of_gymnasiums_registry():
    found = environment("gymnasium:Pendulum-v1", None, EnvConfig())
    assert (found.observation_size, found.action_size, found.episode_limit) == (3, 1, 200)
    np.testing.assert_allclose(found.scale.half, 2.0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--env", "gymnasium:Nothing-v9"], "--env gymnasium:Nothing-v9: Environment `Nothing`"),
        (["--env", "gymnasium:no_such:A-v1"], "gymnasium:PACKAGE:ID"),
        (["--env", "gymnasium:CartPole-v1"], "its actions are discrete"),
        (["--env", "nowhere:make"], "there is no module 'nowhere'"),
        (["--env", "json:nothing"], "has no such function"),
        (["--env", "Pendulum-v1"], "give gymnasium:ID, or module:function"),
        (["--env", "gymnasium:Pendulum-v1", "--task", "bounded_soccer"], "give one of them"),
        (["--env", "gymnasium:Pendulum-v1", "--backend", "mjx"], "--backend mjx goes with --task"),
    ],
)
def test_an_environment_that_cannot_be_had_is_one_line(capsys, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    assert told in line_of(capsys, "run", *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ("observation_space = Box(0, 255, (8, 8, 3))", "is an image or a matrix"),
        ("action_space = Box(-np.inf, np.inf, (1,))", "infinite bounds"),
    ],
)
def test_spaces_that_cannot_be_learnt_are_one_line(capsys, robot, space, told):
    text = "from tests.envs_gym.cart import *\nclass Own(Cart):\n    {how}\ndef make():\n"
    name = robot(space, text + "    return Own()\n")
    assert told in line_of(capsys, "run", "--env", name, *TINY)


def test_a_key_of_info_that_is_not_there_is_one_line(capsys, robot):
    said = line_of(capsys, "demos", "--env", robot("info=dict(speed=1)"), *TINY)
    assert "no 'failure' or 'cost', only 'speed': name the key" in said


def test_seeds_and_devices_cannot_share_one_environment(capsys, robot):
    said = line_of(capsys, "run", "--env", robot(), "--together", "--seeds", "2", *TINY)
    assert "leave --together out" in said


def test_an_environment_of_ones_own_has_no_shifted_dynamics(capsys, robot):
    said = line_of(capsys, "run", "--env", robot(), "--online.dynamics", "shifted", *TINY)
    assert "online.dynamics varies a simulator of ours: leave it out" in said


def test_dagger_needs_somebody_to_ask(capsys, robot):
    text = "import tests.envs_gym.cart as cart\ndef make():\n    return cart.Cart({how})\n"
    said = line_of(capsys, "run", "--env", robot(text=text), *TINY)
    assert "has no function recovery" in said and "--demos.dagger-rounds 0" in said
    said = line_of(capsys, "run", "--env", robot(text=text), *TINY, "--demos.dagger-rounds", "0")
    assert "no controller 'expert': write a function expert in its module" in said


def test_a_file_alone_runs_no_code(capsys, robot):
    name = robot()
    main(["demos", "--env", name, "--out", "r", "--demos.num-envs", "0"])  # refused, no folder
    settings = RunSettings(task_of(name), "smoke")
    pathlib.Path("r/seed0").mkdir(parents=True)
    from experiments.process.outputs import write_json

    write_json(pathlib.Path("r/seed0/config.json"), settings.to_json())
    said = line_of(capsys, "offline", "r/seed0")
    assert f"names code, env:{name}; if you trust it, add --env {name}" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--task", "a", "--failure", "b"], "needs --recovery: .* out of danger"),
        (["--failure", "b", "--recovery", "c"], "needs --task"),
        (["--task", "a.npz", "--failure", "b", "--recovery", "c"], "no dataset at a.npz"),
    ],
)
def test_data_that_are_missing_are_named(capsys, tmp_path, monkeypatch, words, told):
    import re

    monkeypatch.chdir(tmp_path)
    assert re.search(told, line_of(capsys, "demos", "import", "--out", "r", *words))
    assert not (tmp_path / "r" / "seed0" / "demos").exists()


def logged(**changes):
    """Two episodes of ten steps of a cart; the last step of each fails."""
    count, last = np.arange(20, dtype=np.float32), np.isin(np.arange(20), (9, 19))
    obs = np.stack([count, -count], 1) / 10
    return {
        "observations": obs,
        "next_observations": obs + 0.1,
        "actions": np.ones((20, 1), np.float32),
        "rewards": -count,
        "timeouts": last,
        "cost": last.astype(np.float32),
    } | changes


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("failure", {"cost": np.zeros(20)}, "failure.npz holds no failing step"),
        (
            "task",
            {name: np.zeros((20, 3)) for name in ("observations", "next_observations")},
            "3 features of an observation and 1 of an action; this run's environment has 2 and 1",
        ),
        ("recovery", {"observations": np.full((20, 2), np.nan)}, "'obs' has a wrong shape or is"),
        ("recovery", {"rewards": np.full(20, np.inf)}, "'reward' has a wrong shape or is not"),
        ("task", {"cost": np.full(20, np.nan)}, "failure or success is not finite"),
        ("task", {"actions": np.full((20, 1), 9.0)}, "an action of 9 lies beyond"),
    ],
)
def test_data_that_cannot_be_used_leave_the_run_as_it_was(capsys, robot, kind, changes, told):
    words = ["demos", "import", "--env", robot(), "--out", "r", *TINY]
    words += ["--env.random-return", "-50", "--env.expert-return", "0"]
    for name in ("task", "failure", "recovery"):
        np.savez(f"{name}.npz", **logged())
        words += [f"--{name}", f"{name}.npz"]
    assert main(words) == 0
    seed = pathlib.Path("r/seed0")
    files = lambda: {p: p.read_bytes() for p in (seed / "demos").iterdir()}
    before = files()
    np.savez(f"{kind}.npz", **logged(**changes))
    assert told in line_of(capsys, *words, "--overwrite")
    assert files() == before and len(before) == 3 and not (seed / "replaced").exists()


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("raise", "the arm does not answer"),
        ("nan", "observation at index 1 is not finite"),
        ("shape", "observation"),
        ("reward", "reward is not finite"),
    ],
)
def test_an_environment_that_breaks_while_demonstrating_is_one_line(capsys, robot, bad, told):
    name = robot(f"bad={bad!r}")
    assert told in line_of(capsys, "demos", "--env", name, "--out", "r", *TINY)
    assert not list(pathlib.Path("r/seed0").rglob("*.npz"))


def test_there_is_nothing_to_export(capsys, tmp_path):
    said = line_of(capsys, "demos", "export", str(tmp_path / "nowhere"))
    assert "no dataset at" in said and "farl demos" in said


@struct.dataclass
class State:
    """What the guard asks of a run's state."""

    env_steps: jax.Array


def guarded(tmp_path, updates, message, kept):
    """A guarded loop of updates whose environment fails after them; `kept` gets what is saved."""
    run = Run(tmp_path, RunSettings("env:a:make"), False, plain_console(quiet=True))

    def train():
        for i in range(updates):
            yield State(jnp.int32(100 * (i + 1))), {}
        raise jax.errors.JaxRuntimeError(f"INTERNAL: callback\n  File x\nHostError: {message}")

    with HostGuard(run, lambda step, state: kept.append((step, int(state.env_steps)))) as guard:
        for state, _ in guard.watch(train()):
            state.env_steps.delete()  # as donation does


def test_a_run_whose_environment_fails_is_saved_as_it_was_after_the_last_update(tmp_path):
    kept = []
    with pytest.raises(UserError, match=r"--env a:make: no hand; saved at step 200: .*--resume"):
        guarded(tmp_path, 2, "no hand", kept)
    assert kept == [(200, 200)]
    with pytest.raises(UserError, match="no hand; no update was finished"):
        guarded(tmp_path, 0, "no hand", kept)
    assert len(kept) == 1


@pytest.mark.slow
def test_a_robot_that_breaks_in_mid_run_is_gone_on_with(capsys, robot):
    name = robot()
    words = ["--env", name, "--out", "r", *TINY]
    assert main(["demos", *words]) == 0
    assert main(["offline", "r/seed0", "--env", name]) == 0
    broken = pathlib.Path(f"{name.partition(':')[0]}.py")
    environment.cache_clear()
    importlib.import_module(broken.stem).make = lambda: __import__(
        "tests.envs_gym.cart", fromlist=["Cart"]
    ).Cart(bad="nan", at=90)
    kept = ["--transitions", "1000000"]
    said = line_of(capsys, "online", "r/seed0", "--env", name, *kept)
    assert "observation at index 1 is not finite; saved at step" in said
    environment.cache_clear()
    importlib.import_module(broken.stem).make = importlib.import_module("tests.envs_gym.cart").Cart
    assert main(["online", "r/seed0", "--env", name, "--resume", *kept]) == 0
    row = read(pathlib.Path("r/seed0/farl/result.json"), dict)
    assert row["online_steps"] == 1024 and row["diverged"] > 0
    check_export(row)


def check_export(row):
    """Both sessions' online steps, as Minari reads them, are those that the result counted."""
    minari = pytest.importorskip("minari")
    assert main(["demos", "export", "r/seed0", "-o", "sets"]) == 0
    (found,) = pathlib.Path("sets/farl").glob("*/farl-online-v0")
    episodes = list(minari.MinariDataset(found / "data").iterate_episodes())
    total = lambda name: sum(own.infos[name][1:].sum() for own in episodes)
    steps = sum(len(own.rewards) for own in episodes)
    assert steps == 1024 - row["diverged"] and total("cost") == row["failing_steps"]
    assert 0 <= row["recovered_steps"] - total("intervened") <= row["diverged"]


@pytest.mark.slow
def test_one_environment_is_enough(robot):
    one = ["--demos.num-envs", "1", "--online.num-envs", "1", "--online.eval-episodes", "1"]
    less = ["--online.final-episodes", "2", "--online.env-steps", "256", "--online.rollout", "64"]
    few = ["--demos.failure-episodes", "4", "--demos.recovery-episodes", "2"]
    words = ["--env", robot("ends=True"), "--out", "r", *TINY, *one, *less, *few]
    words += ["--demos.policy-episodes", "4", "--demos.task-episodes", "2"]
    words += ["--online.eval-every", "128", "--online.minibatches", "2"]
    assert main(["run", *words]) == 0
    row = read(pathlib.Path("r/seed0/farl/result.json"), dict)
    assert row["online_steps"] == 256 and row["backend"] == "gymnasium"


@pytest.mark.slow
def test_a_trip_through_minari_gives_the_same_offline_checkpoint(robot):
    pytest.importorskip("minari")
    name = robot()
    assert main(["demos", "--env", name, "--out", "here", *TINY]) == 0
    assert main(["demos", "export", "here/seed0"]) == 0
    sets = pathlib.Path("here/seed0/minari")
    kinds = {path.name[:-3]: str(path) for path in sets.glob("farl/*/*-v0")}
    words = [word for kind, path in kinds.items() for word in (f"--{kind}", path)]
    assert main(["demos", "import", "--env", name, "--out", "there", *words, *TINY]) == 0
    results = []
    for folder in ("here", "there"):
        assert main(["offline", f"{folder}/seed0", "--env", name]) == 0
        settings = read(pathlib.Path(folder, "seed0/config.json"), dict)
        settings = RunSettings.from_json(settings)
        run = Run(pathlib.Path(folder, "seed0"), settings, True, plain_console(quiet=True))
        results.append(digest(run.offline_result()))
    assert results[0] == results[1]
    assert main(["demos", "import", "--env", name, "--out", "there", *words, *TINY]) == 2
    assert main(["online", "there/seed0", "--env", name, "--method", "uni_o4"]) == 0
    shutil.rmtree("there")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_pipeline_runs_on_fetch_push(tmp_path, monkeypatch):
    pytest.importorskip("gymnasium_robotics")
    monkeypatch.chdir(ROOT)
    out = str(tmp_path / "fetch")
    words = ["--env", "examples.fetch_push:make", "--preset", "smoke", "--out", out]
    assert main(["run", *words]) == 0
    row = read(tmp_path / "fetch" / "seed0" / "farl" / "result.json", dict)
    assert row["online_steps"] == 4096 and row["episodes"] >= 64
    assert np.isfinite([row["initial_return"], row["final_return"]]).all()
