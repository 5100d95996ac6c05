"""The adapter: the same numbers as Gymnasium's own loop, and one line for whatever goes wrong."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs_gym import Functions, HostBatch, HostError, HostTask, Signals, find_functions, message_of
from envs_gym.batch import MAX_SEED
from farl_jax.data.rollout import plain_decision, unroll
from tests.envs_gym import cart
from tests.envs_gym.cart import EDGE, GOAL, LIMIT, Cart

KEY = jax.random.key(3)


def task(make=lambda n: Cart(), functions=None, **how):
    functions = find_functions(cart) if functions is None else functions
    return HostTask("cart", make, functions, episode_limit=how.pop("limit", LIMIT), **how)


def roll(env, length, action=0.5, keys=(KEY,)):
    """[T, N] steps of a constant action from reset, once for each key."""
    always = jnp.full((env.num_envs, env.action_size), action)
    act = lambda memory, state, key: (memory, plain_decision(always))
    go = jax.jit(lambda key: unroll(env, act, None, env.reset(key), key, length)[2])
    found = [jax.device_get(go(key)) for key in keys]
    return found[0] if len(keys) == 1 else found


def stepped(own, num_envs, length, action=0.5):
    """The same on the host alone, without JAX: a list of `Step`."""
    host, seeds = own.host(num_envs), np.arange(num_envs)
    obs, _, ticket = host.reset(seeds)
    steps, always = [], np.full((num_envs, own.action_size), action, np.float32)
    for t in range(length):
        steps.append(host.step(ticket, obs, always, seeds + 100 * t))
        obs = steps[-1].following
    return steps


def test_a_rollout_is_gymnasiums_own(length=2 * LIMIT + 5):
    env = HostBatch(task(), 2)
    steps = roll(env, length, action=1.0)
    seeds = np.asarray(jax.random.randint(KEY, (2,), 0, MAX_SEED))
    for n, seed in enumerate(seeds):
        own = Cart()
        own.reset(seed=int(seed))
        for t in range(LIMIT):
            np.testing.assert_allclose(steps.obs[t, n], [GOAL, own.x], rtol=1e-6)
            _, reward, _, cut, info = own.step([4.0])
            np.testing.assert_allclose(steps.next_obs[t, n], [GOAL, own.x], rtol=1e-6)
            np.testing.assert_allclose(steps.reward[t, n], reward, rtol=1e-5)
            assert steps.failure[t, n] == (info["cost"] > 0)
            assert steps.success[t, n] == info["is_success"] and steps.truncated[t, n] == cut
    np.testing.assert_array_equal(np.flatnonzero(steps.done[:, 0]), [LIMIT - 1, 2 * LIMIT - 1])
    np.testing.assert_array_equal(steps.step_count[:, 1], np.arange(length) % LIMIT + 1)
    assert steps.obs[LIMIT, 0, 1] <= 0.0 < steps.next_obs[LIMIT - 1, 0, 1]  # a true last one
    assert steps.margin is None and not steps.diverged.any()
    first = steps.failure[:LIMIT, 0].argmax()
    np.testing.assert_array_equal(np.flatnonzero(steps.first_failure[:LIMIT, 0]), [first])
    assert steps.failing_steps[LIMIT - 1, 0] == LIMIT - first
    np.testing.assert_allclose(steps.episode_return[LIMIT - 1], steps.reward[:LIMIT].sum(0), 1e-5)


def test_the_key_decides_all_numbers():
    env = HostBatch(task(), 3)
    first, other, again = roll(env, 30, keys=(KEY, jax.random.key(4), KEY))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (other.obs != first.obs).any()


def test_a_failure_may_end_an_episode():
    steps = stepped(task(lambda n: Cart(ends=True)), 1, 3 * LIMIT, action=1.0)
    ended, failure, cut = (
        np.array([getattr(own, name)[0] for own in steps])
        for name in ("terminated", "failure", "truncated")
    )
    assert ended.sum() >= 3
    np.testing.assert_array_equal(ended, failure)
    assert not (ended & cut).any()
    first = steps[ended.argmax()]
    assert first.obs[0, 1] > EDGE and first.following[0, 1] <= 0.0


def test_one_robot_is_made_once_and_its_state_is_its_own():
    Cart.made = 0
    robot = task()
    stepped(robot, 1, 5)
    stepped(robot, 1, 5)
    assert Cart.made == 1


def test_episodes_that_somebody_else_cut_off_start_anew_and_teach_nobody():
    robot = task()
    env = HostBatch(robot, 2)
    step = jax.jit(env.step)
    state = jax.jit(env.reset)(KEY)
    state, _ = step(state, jnp.zeros((2, 1)), KEY)
    stepped(robot, 2, 3)  # an evaluation on the same robot, or another process's life
    following, outcome = step(state, jnp.zeros((2, 1)), KEY)
    assert outcome.diverged.all() and outcome.truncated.all() and not outcome.terminated.any()
    np.testing.assert_array_equal(outcome.obs, state.obs)
    np.testing.assert_array_equal(outcome.reward, 0.0)
    np.testing.assert_array_equal(following.step_count, 0)
    after, outcome = step(following, jnp.zeros((2, 1)), KEY)
    assert not outcome.diverged.any()
    np.testing.assert_allclose(after.obs[:, 1] - following.obs[:, 1], 0.02, rtol=1e-4)


def test_a_vector_env_gives_the_same_numbers():
    many = lambda num_envs: SyncVectorEnv([Cart] * num_envs, autoreset_mode=AutoresetMode.DISABLED)
    ours, theirs = (stepped(task(make), 3, 45) for make in (lambda n: Cart(), many))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_vector_env_that_restarts_by_itself_is_refused():
    own = task(lambda n: SyncVectorEnv([Cart] * n))
    with pytest.raises(HostError, match=r"AutoresetMode\.DISABLED"):
        own.host(2)
    few = task(lambda n: SyncVectorEnv([Cart], autoreset_mode=AutoresetMode.DISABLED))
    with pytest.raises(HostError, match="holds 1 environments, 2 are wanted"):
        few.host(2)


def test_controllers_speak_the_environments_units_and_may_be_vmapped():
    own = task()
    obs = jnp.array([[0.6, 0.0], [0.6, 0.59], [0.6, 0.9]])
    np.testing.assert_allclose(jax.vmap(own.expert)(obs)[:, 0], [1.0, (0.2 - 1) / 3, -1.0], 1e-4)
    np.testing.assert_allclose(own.careless(obs[0], jnp.float32(0.5)), [0.5], rtol=1e-5)
    np.testing.assert_allclose(HostBatch(own, 3).recovery(obs), -np.ones((3, 1)))
    with pytest.raises(HostError, match="no controller 'expert'"):
        task(functions=Functions()).expert(obs[0])


def test_a_margin_of_ones_own():
    own = Functions(
        failure_margin=lambda obs: EDGE - obs[1],
        failure=lambda obs, info: obs[1] > EDGE,
        danger_margin=0.1,
        safe_margin=0.2,
    )
    steps = roll(HostBatch(task(functions=own), 1), 30, action=1.0)
    np.testing.assert_allclose(steps.margin, EDGE - steps.obs[..., 1], rtol=1e-5)
    np.testing.assert_allclose(steps.next_margin, EDGE - steps.next_obs[..., 1], rtol=1e-5)
    np.testing.assert_array_equal(steps.failure, steps.next_margin < 0)
    assert steps.failure.any()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"bad": "raise"}, r"step raised RuntimeError: the arm does not answer at all \(.*cart.py"),
        ({"bad": "nan"}, "observation at index 1 is not finite"),
        ({"bad": "reward"}, "reward is not finite"),
        ({"bad": "shape"}, r"part 'x' has shape \(2,\), its space says \(1,\)"),
        ({"info": {"speed": 1}}, "no 'failure' or 'cost', only 'speed': .*--env.failure-key"),
        ({"info": {"cost": "much"}}, "'cost', which is not a number"),
    ],
)
def test_what_goes_wrong_in_mid_run_is_one_line(how, words):
    with pytest.raises(HostError, match=words) as caught:
        stepped(task(lambda n: Cart(**how)), 1, 8)
    assert "\n" not in str(caught.value)


def test_jax_hands_the_line_on_and_works_after_it():
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        roll(HostBatch(task(lambda n: Cart(bad="nan", at=9)), 1), 12, keys=(KEY,))
    assert message_of(caught.value) == "the environment's observation at index 1 is not finite"
    assert message_of(RuntimeError("another")) is None
    assert jax.jit(lambda x: x + 1)(1) == 2


def test_keys_of_info_may_be_named():
    signals = Signals("broken", "done")
    assert signals.failed({"broken": np.array([2.0])}) and not signals.failed({"broken": False})
    assert signals.succeeded({"done": True}) and not Signals().succeeded({})
    with pytest.raises(HostError, match="no 'broken'"):
        signals.failed({"cost": 1.0})
    with pytest.raises(HostError, match="no 'done'"):
        signals.succeeded({"success": 1.0})


def test_what_cannot_be_made_or_has_no_end():
    with pytest.raises(HostError, match="returned str, not a gymnasium"):
        task(lambda n: "robot")
    with pytest.raises(HostError, match=r"making it raised OSError: no port \(.*test_batch.py"):
        task(lambda n: (_ for _ in ()).throw(OSError("no port")))
    with pytest.raises(HostError, match="give --env"):
        task(limit=None)
    assert task(lambda n: gymnasium.wrappers.TimeLimit(Cart(), 7)).episode_limit == LIMIT
