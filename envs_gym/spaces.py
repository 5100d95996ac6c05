"""Gymnasium's spaces as flat arrays: observations [D], actions in [-1, 1]^A."""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from envs_gym.errors import HostError


class ActionScale(NamedTuple):
    """a_env = centre + half a, with a in [-1, 1]: each [A]."""

    centre: np.ndarray
    half: np.ndarray

    def to_env(self, action: np.ndarray) -> np.ndarray:
        """[-1, 1] -> the environment's units, clipped, [..., A]."""
        return self.centre + self.half * np.clip(action, -1.0, 1.0)

    def from_env(self, action: np.ndarray) -> np.ndarray:
        """The environment's units -> [-1, 1], not clipped, [..., A]."""
        return (action - self.centre) / self.half


def observation_size(space: gymnasium.Space) -> int:
    """Return D of a flat Box, or of a Dict of flat boxes.

    Raises:
        HostError: the space is of another kind, or an image.
    """
    return sum(int(box.shape[0]) for _, box in _boxes(space))


def flatten(space: gymnasium.Space, observation: Any) -> np.ndarray:
    """Return observations [..., D] f32; a Dict's boxes are joined in sorted order of keys.

    Raises:
        HostError: the observation does not fit the space.
    """
    parts = []
    for key, box in _boxes(space):
        try:
            part = np.asarray(observation if key is None else observation[key], np.float32)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise HostError(f"the observation has no part {key!r} of numbers") from error
        if part.ndim == 0 or part.shape[-1] != box.shape[0]:
            what = "the observation" if key is None else f"the observation's part {key!r}"
            raise HostError(f"{what} has shape {part.shape}, its space says {box.shape}")
        parts.append(part)
    return np.concatenate(parts, axis=-1)


def action_scale(space: gymnasium.Space) -> ActionScale:
    """Return the scale from [-1, 1]^A to the actions of a Box with finite bounds.

    Raises:
        HostError: the space is of another kind, or its bounds are infinite or empty.
    """
    if isinstance(space, Discrete | MultiDiscrete | MultiBinary):
        raise HostError(f"its actions are discrete ({space}); only a flat Box works")
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise HostError(f"its actions are {_named(space)}; only a flat Box works")
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise HostError(
            "its actions have infinite bounds: give its action space finite ones, or wrap it in "
            "gymnasium.wrappers.RescaleAction"
        )
    if not (low < high).all():
        raise HostError(f"its actions have an empty range at index {int(np.argmin(high - low))}")
    centre, half = (high + low) / 2.0, (high - low) / 2.0
    return ActionScale(centre.astype(np.float32), half.astype(np.float32))


def _boxes(space: gymnasium.Space) -> list[tuple[str | None, Box]]:
    """Return an observation's flat boxes by key; a plain Box has the key None."""
    if isinstance(space, Dict):
        parts = [(key, space.spaces[key]) for key in sorted(space.spaces)]
    else:
        parts = [(None, space)]
    for key, part in parts:
        what = "its observation" if key is None else f"its observation's part {key!r}"
        if isinstance(part, Box) and len(part.shape) >= 2:
            raise HostError(
                f"{what} is an image or a matrix of shape {part.shape}; only flat vectors work: "
                "use gymnasium.wrappers.FlattenObservation or features"
            )
        if not isinstance(part, Box) or len(part.shape) != 1 or part.shape[0] == 0:
            raise HostError(f"{what} is {_named(part)}; only flat boxes work")
    if not parts:
        raise HostError("its observation is an empty Dict")
    return parts


def _named(space: gymnasium.Space) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
