"""Boxes in place of colliding meshes. Host only."""

from typing import NamedTuple

import mujoco
import numpy as np

_MAX_LEAN = np.deg2rad(30.0)
_LEANS = 601  # a tenth of a degree apart


class Box(NamedTuple):
    """A box in its body's frame."""

    pos: np.ndarray  # [3] m, its centre
    quat: np.ndarray  # [4] scalar first: a turn about x
    size: np.ndarray  # [3] m, half extents


def mesh_boxes(spec: mujoco.MjSpec, names: tuple[str, ...]) -> dict[str, Box]:
    """Return the box around the geom of each mesh, by mesh name.

    Args:
      spec: a scene with its meshes; not changed.
      names: meshes, each the shape of one geom.
    """
    model = spec.copy().compile()
    boxes = {}
    for name in names:
        mesh = model.mesh(name)
        start, count = int(mesh.vertadr[0]), int(mesh.vertnum[0])
        geom = int(np.flatnonzero(model.geom_dataid == mesh.id)[0])
        turn = np.empty(9)
        mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
        vertices = model.mesh_vert[start : start + count] @ turn.reshape(3, 3).T
        boxes[name] = fit_box(vertices + model.geom_pos[geom])
    return boxes


def fit_box(vertices: np.ndarray) -> Box:
    """Return the smallest box around `vertices` [N, 3] whose x axis is the frame's.

    Its rotation about x is the best of every tenth of a degree up to 30.
    """
    leans = np.linspace(-_MAX_LEAN, _MAX_LEAN, _LEANS)
    leans = leans[np.argsort(np.abs(leans), kind="stable")]  # upright wins a tie
    y, z = vertices[:, 1], vertices[:, 2]
    cos, sin = np.cos(leans)[:, None], np.sin(leans)[:, None]
    turned = cos * y + sin * z, cos * z - sin * y  # [leans, N] each
    low = np.stack([x.min(axis=1) for x in turned], axis=-1)  # [leans, 2]
    high = np.stack([x.max(axis=1) for x in turned], axis=-1)
    best = int(np.argmin(np.prod(high - low, axis=1)))
    lean = leans[best]
    middle_y, middle_z = (low[best] + high[best]) / 2.0
    x_low, x_high = vertices[:, 0].min(), vertices[:, 0].max()
    pos = np.array(
        [
            (x_low + x_high) / 2.0,
            np.cos(lean) * middle_y - np.sin(lean) * middle_z,
            np.sin(lean) * middle_y + np.cos(lean) * middle_z,
        ]
    )
    size = np.array([x_high - x_low, *(high[best] - low[best])]) / 2.0
    return Box(pos, np.array([np.cos(lean / 2.0), np.sin(lean / 2.0), 0.0, 0.0]), size)
