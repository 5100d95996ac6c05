"""Shifted dynamics: one draw of a robot that is not quite the one that was simulated before."""

import operator
from typing import NamedTuple

import mujoco
import numpy as np

from envs_mjx.errors import EnvError, shown

_SPREAD = 0.2
_NOISE = 0.002  # m
_LATENCY = 1  # steps


class Shift(NamedTuple):
    """How one robot, and what it handles, differ from the nominal simulation."""

    mass: float
    """Factor of the object's mass and inertia."""
    friction: float
    """Factor of every friction coefficient."""
    gain: float
    """Factor of the hand's motion per unit of action, and of the fingers' force."""
    noise: float = _NOISE
    """Standard deviation of each observed position, m; the goal is known exactly."""
    latency: int = _LATENCY
    """Steps between an action and its execution: 0 or 1."""


def draw_shift(seed: int) -> Shift:
    """Return the shift of a seed: factors uniform in [0.8, 1.2], 2 mm of noise, one step late.

    Raises:
      EnvError: the seed is no whole number of at least 0.
    """
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        number = -1
    if number < 0:
        raise EnvError(
            f"shift must be a seed, a whole number of at least 0; got {shown(str(seed))}"
        )
    return Shift(*np.random.default_rng(number).uniform(1.0 - _SPREAD, 1.0 + _SPREAD, 3).tolist())


def shift_model(model: mujoco.MjModel, shift: Shift, object_qpos: int) -> None:
    """Change mass, friction and the fingers' force of a compiled model in place.

    The object is the body whose joint begins at `object_qpos`.
    """
    body = model.jnt_bodyid[np.flatnonzero(model.jnt_qposadr == object_qpos)[0]]
    model.body_mass[body] *= shift.mass
    model.body_inertia[body] *= shift.mass
    for friction in (model.geom_friction, model.pair_friction):
        friction *= shift.friction
    model.actuator_gainprm *= shift.gain
    model.actuator_biasprm *= shift.gain
    welds = model.eq_data.copy()
    mujoco.mj_setConst(model, mujoco.MjData(model))  # what MuJoCo derives from masses
    model.eq_data[:] = welds
