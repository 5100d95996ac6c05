"""CPO's step: the best reward step in a trust region, under the cost constraint.

Constrained Policy Optimization, Achiam et al. 2017 (arXiv 1705.10528), in its local form

    max_x g'x   subject to   c + b'x <= 0   and   x'Hx / 2 <= delta

g, b: gradients of the reward and the cost surrogate; H: Hessian of the mean KL; c: excess over the
limit, in cost per step. With q = g'H^-1 g, r = g'H^-1 b, s = b'H^-1 b the solution is a closed
combination of H^-1 g and H^-1 b.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree

from farl_jax.config import ConstraintConfig, OnlineConfig
from farl_jax.nn import distributions
from farl_jax.nn.networks import GaussianPolicy
from farl_jax.types import Params
from farl_jax.updates import ppo

UNCONSTRAINED, BOTH, RECOVERY = range(3)
"""Cases: the whole trust region keeps the limit; both bounds are active; no point keeps the limit,
so the step only lowers the cost."""
TINY = 1e-10


def conjugate_gradient(
    matvec: Callable[[jax.Array], jax.Array], b: jax.Array, steps: int
) -> jax.Array:
    """Solve A x = b for a positive definite A, given v -> A v, in `steps` iterations: [P] -> [P].

    The solution stays fixed once |residual|^2 <= TINY |b|^2.
    """
    chex.assert_rank(b, 1)
    enough = TINY * (b @ b)

    def iterate(_: int, carry: tuple[jax.Array, ...]):
        x, residual, direction, size = carry
        curved = matvec(direction)
        length = jnp.where(size > enough, size / (direction @ curved), 0.0)
        left = residual - length * curved
        new_size = left @ left
        turn = jnp.where(size > enough, new_size / size, 0.0)
        return x + length * direction, left, left + turn * direction, new_size

    start = (jnp.zeros_like(b), b, b, b @ b)
    return jax.lax.fori_loop(0, steps, iterate, start)[0]


@struct.dataclass
class DualSolution:
    """The step x = along_reward H^-1 g + along_cost H^-1 b, its multiplier and case; [] each."""

    along_reward: jax.Array
    along_cost: jax.Array
    multiplier: jax.Array  # nu, the price of cost in units of reward
    case: jax.Array  # i32: UNCONSTRAINED, BOTH or RECOVERY


def solve_dual(
    q: jax.Array, r: jax.Array, s: jax.Array, c: jax.Array, max_kl: float
) -> DualSolution:
    """Solve the local problem from its four scalars.

    The dual is min over lambda >= 0 of D(lambda), nu = max(0, r + lambda c) / s already taken out:

        D = (A / lambda + B lambda) / 2 - r c / s   where r + lambda c > 0,
        D = (q / lambda + 2 delta lambda) / 2       elsewhere,

    A = q - r^2 / s, B = 2 delta - c^2 / s. The minimum of a piece is at the square root of its
    ratio, or at the border -r / c. Without a cost gradient there is no constraint.
    """
    chex.assert_rank([q, r, s, c], 0)
    steep, has_cost = jnp.maximum(q, TINY), s > TINY
    s = jnp.where(has_cost, s, 1.0)
    spare = 2.0 * max_kl - c**2 / s  # B < 0: the line c + b'x = 0 misses the trust region
    other = jnp.maximum(q - r**2 / s, 1e-6 * steep)  # 0 where g and b are parallel: 1 / lambda
    c_away = jnp.where(jnp.abs(c) > TINY, c, -TINY)
    border = jnp.maximum(0.0, -r / c_away)
    within = lambda x, above: jnp.where(above, jnp.maximum(x, border), jnp.minimum(x, border))
    on_line = within(jnp.sqrt(other / jnp.maximum(spare, TINY)), c_away > 0.0)
    inside = within(jnp.sqrt(steep / (2.0 * max_kl)), c_away < 0.0)
    on_line, inside = jnp.maximum(on_line, TINY), jnp.maximum(inside, TINY)
    dual_on_line = 0.5 * (other / on_line + spare * on_line) - r * c / s
    dual_inside = 0.5 * (q / inside + 2.0 * max_kl * inside)
    scale = jnp.where(dual_on_line < dual_inside, on_line, inside)
    price = jnp.maximum(0.0, r + scale * c) / s

    infeasible = has_cost & (spare < 0.0) & (c > 0.0)
    free = ~has_cost | ((spare < 0.0) & (c <= 0.0))
    case = jnp.where(infeasible, RECOVERY, jnp.where(free, UNCONSTRAINED, BOTH))
    pick = lambda free, both, recovery: jnp.select(
        [case == UNCONSTRAINED, case == BOTH], [free, both], recovery
    )
    return DualSolution(
        along_reward=pick(jnp.sqrt(2.0 * max_kl / steep), 1.0 / scale, 0.0),
        along_cost=pick(0.0, -price / scale, -jnp.sqrt(2.0 * max_kl / s)),
        multiplier=pick(0.0, price, 0.0),
        case=case,
    )


def search_line(
    measure: Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]],
    start: jax.Array,
    step: jax.Array,
    case: jax.Array,
    excess: jax.Array,
    config: ConstraintConfig,
) -> tuple[jax.Array, jax.Array]:
    """Backtracking from start + step: (the first accepted point, its share of the step).

    `measure(point [P])` is (surrogate of reward, of cost, KL from the start). A point is accepted
    if KL <= delta, the cost rises by at most max(0, -c), and the reward does not fall, which is not
    required in a recovery. Without an accepted point the result is (start, 0).
    """
    chex.assert_rank([start, case, excess], [1, 0, 0])
    chex.assert_equal_shape([start, step])
    reward, cost, _ = measure(start)

    def will_do(share: jax.Array) -> jax.Array:
        new_reward, new_cost, kl = measure(start + share * step)
        obeys = (kl <= config.max_kl) & (new_cost - cost <= jnp.maximum(0.0, -excess))
        return obeys & ((new_reward >= reward) | (case == RECOVERY))

    def shorten(carry: tuple[jax.Array, jax.Array, jax.Array]):
        tries, share, _ = carry
        share = share * config.backtrack
        return tries + 1, share, will_do(share)

    first = (jnp.asarray(1), jnp.asarray(1.0), will_do(jnp.asarray(1.0)))
    going = lambda carry: ~carry[2] & (carry[0] < config.backtracks)
    _, share, good = jax.lax.while_loop(going, shorten, first)
    share = jnp.where(good, share, 0.0)
    return jnp.where(good, start + share * step, start), share


def improve(
    policy: GaussianPolicy,
    params: Params,
    batch: ppo.PPOBatch,
    gains: tuple[jax.Array, jax.Array],
    excess: jax.Array,
    online: OnlineConfig,
    config: ConstraintConfig,
) -> tuple[Params, dict[str, jax.Array]]:
    """Do one step of CPO on a whole batch; (parameters, metrics).

    Args:
        policy: the network.
        params: of the policy that collected the batch.
        batch: its steps [B].
        gains: standardised A_r and centred A_C, [B] each.
        excess: c [], J_C - d in cost per step.
        online, config: bounds.
    """
    chex.assert_rank([batch.obs, excess], [2, 0])
    chex.assert_equal_shape([*gains, batch.log_prob, batch.weight])
    start, unravel = ravel_pytree(params)
    old = policy.apply(params, batch.obs)

    def measure(point: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        new = policy.apply(unravel(point), batch.obs)
        log_ratio = distributions.log_prob(batch.action, *new) - batch.log_prob
        ratio = jnp.exp(jnp.clip(log_ratio, -online.max_log_ratio, online.max_log_ratio))
        reward, cost = (ppo.weighted_mean(ratio * gain, batch.weight) for gain in gains)
        kl = distributions.kl_divergence(*old, *new)
        return reward, cost, ppo.weighted_mean(kl, batch.weight)

    slopes = jax.jacrev(lambda point: jnp.stack(measure(point)[:2]))(start)  # g and b, [2, P]
    some = batch.obs[:: config.curvature_stride]
    there = policy.apply(params, some)
    divergence = lambda point: distributions.kl_divergence(
        *there, *policy.apply(unravel(point), some)
    ).mean()
    _, hessian_times = jax.linearize(jax.grad(divergence), start)
    matvec = lambda v: hessian_times(v) + config.cg_damping * v
    solve = lambda b: conjugate_gradient(matvec, b, config.cg_steps)
    natural = jax.vmap(solve)(slopes)  # H^-1 g and H^-1 b
    (q, r), (_, s) = slopes @ natural.T
    dual = solve_dual(q, r, s, excess, config.max_kl)
    step = dual.along_reward * natural[0] + dual.along_cost * natural[1]
    end, share = search_line(measure, start, step, dual.case, excess, config)

    log_ratio, log_std = ppo.likelihood(policy, params, batch, online)
    metrics = ppo.departure(log_ratio, log_std, batch) | {
        "kl": measure(end)[2],
        "multiplier": dual.multiplier,
        "recovery_step": (dual.case == RECOVERY).astype(jnp.float32),
        "step_share": share,
        "stopped": (share == 0.0).astype(jnp.float32),
    }
    return unravel(end), metrics
