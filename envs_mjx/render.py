"""Draw frames of episodes. Host only; nothing else needs OpenGL."""

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import mujoco
import numpy as np

from envs_mjx.errors import RenderError
from envs_mjx.robot_env import RobotEnv
from envs_mjx.robots.robot import Camera

_BACKENDS = ("egl", "osmesa")
_WITH_DISPLAY = "glfw"
_DEVICE = "MUJOCO_EGL_DEVICE_ID"
_PROBE = """
import mujoco
from mujoco.{name} import GLContext
context = GLContext(16, 16)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_50)
print("drawn", flush=True)
import os
os._exit(0)
"""
_MAX_GEOMS = 2000
_SHADOW_SIZE, _SAMPLES = 1024, 2  # MuJoCo's 4096 and 4 take four times as long in software
_GOAL_COLOR = (0.10, 0.75, 0.35)
_DISC_HEIGHT = 0.0008  # m, half of it
_BORDER = 6  # pixels
_RED, _AMBER, _WHITE, _STRIP = (224, 32, 32), (255, 176, 0), (255, 255, 255), (24, 24, 28)


@dataclass(frozen=True)
class FrameInfo:
    """The caption of one frame."""

    step: int
    """Steps since reset."""
    failure_margin: float
    """Distance to failure, m; negative while failing."""
    risk: float | None = None
    """What the gate compared with eps_safe; None without a gate."""
    max_risk: float | None = None
    """eps_safe; None without a gate."""
    intervened: bool = False
    """Whether the recovery policy acted; gives the frame a red border."""
    success: bool = False
    """Whether this step solved the task."""
    title: str = ""
    """Text above the picture; none without it."""
    failed: bool = False
    """Whether the episode has failed so far. The title says so."""


@functools.cache
def find_gl() -> str:
    """Return an OpenGL backend that works here: "egl", "osmesa" or, only if asked for, "glfw".

    Each is tried in a new process, since a failed import would break this one. The values of
    `MUJOCO_GL` and `MUJOCO_EGL_DEVICE_ID` are tried first. Both are set to what works.

    Raises:
        RenderError: none works.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    names = sorted(_BACKENDS, key=lambda backend: backend != wanted)
    names = [*([wanted] if wanted == _WITH_DISPLAY else []), *names]
    theirs = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"}
    anywhere = {k: v for k, v in theirs.items() if k != _DEVICE}
    for variables in [theirs, anywhere] if _DEVICE in theirs else [theirs]:
        for name in names:
            ours = {"MUJOCO_GL": name}
            ours |= {} if name == _WITH_DISPLAY else {"PYOPENGL_PLATFORM": name}
            if _draws(name, variables | ours):
                for variable in ("PYOPENGL_PLATFORM", _DEVICE):
                    os.environ.pop(variable, None)
                os.environ.update(variables | ours)
                return name
    raise RenderError(
        "cannot draw: neither EGL nor OSMesa works here; install one of them, "
        "on Debian or Ubuntu `apt install libegl1` (with a GPU driver or mesa) or `libosmesa6`"
    )


def _draws(name: str, environment: Mapping[str, str]) -> bool:
    """Return whether a process with these variables can draw."""
    # -P keeps code in the current folder out.
    command = [sys.executable, "-P", "-c", _PROBE.format(name=name)]
    try:
        done = subprocess.run(command, capture_output=True, env=dict(environment), timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and b"drawn" in done.stdout


def render_frames(
    env: RobotEnv,
    qpos: np.ndarray,
    goal: np.ndarray,
    overlay: Sequence[FrameInfo] | None = None,
    *,
    width: int = 480,
    height: int = 360,
) -> np.ndarray:
    """Draw one episode with the robot's meshes, its boundary and its goal.

    Args:
        env: its scene is drawn; any backend.
        qpos: [T, nq] positions, as in `State.physics.qpos`; every row is drawn.
        goal: [3] m, or [T, 3].
        overlay: T captions, or None.
        width, height: pixels.

    Returns:
        uint8 [T, height, width, 3].

    Raises:
        RenderError: OpenGL is missing, or an argument has a wrong shape.
    """
    qpos = np.asarray(qpos, np.float64)
    task = env.task
    model = env.robot.visual_model(task.scene_file, task.edit_visuals, task.scene_parts)
    if qpos.ndim != 2 or qpos.shape[1] != model.nq or not len(qpos):
        raise RenderError(f"qpos must be [T, {model.nq}] with T >= 1; got {list(qpos.shape)}")
    if not np.isfinite(qpos).all():
        bad = int(np.argmin(np.isfinite(qpos).all(axis=1)))
        raise RenderError(f"qpos[{bad}] is not finite; draw only the steps before it")
    if overlay is not None and len(overlay) != len(qpos):
        raise RenderError(f"overlay must have {len(qpos)} entries, one a frame; got {len(overlay)}")
    goals = np.broadcast_to(np.asarray(goal, np.float64), (len(qpos), 3))
    radius = float(getattr(task, "success_radius", 0.05))
    frames = np.empty((len(qpos), height, width, 3), np.uint8)
    with _canvas(model, env.robot.camera, width, height) as canvas:
        for index in range(len(qpos)):
            _draw(canvas, qpos[index], goals[index], radius, frames[index])
    if overlay is not None:
        for frame, info in zip(frames, overlay, strict=True):
            frame[:] = annotate(frame, info)
    return frames


def annotate(frame: np.ndarray, info: FrameInfo) -> np.ndarray:
    """Return uint8 [H, W, 3] `frame` with its caption and, during recovery, a red border."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(frame)
    width, height = image.size
    draw = ImageDraw.Draw(image)
    line = max(18, round(height / 13))
    font = ImageFont.load_default(size=round(line * 0.58))
    draw.rectangle((0, height - line - _BORDER, width, height), fill=_STRIP)
    middle, pad = height - _BORDER - line / 2, _BORDER + 10
    risk = "" if info.risk is None else f"R {info.risk:.0e}"
    risk += "" if info.max_risk is None else f" / {info.max_risk:.0e}"
    failing = info.failure_margin < 0.0
    draw.text((pad, middle), f"step {info.step}", _WHITE, font, anchor="lm")
    margin = f"margin {100.0 * info.failure_margin:+.1f} cm"
    draw.text((width * 0.20, middle), margin, _AMBER if failing else _WHITE, font, anchor="lm")
    draw.text((width * 0.485, middle), risk, _WHITE, font, anchor="lm")
    word = "RECOVERY" if info.intervened else "FAILURE" if failing else ""
    word = "SUCCESS" if info.success else word
    draw.text((width - pad, middle), word, _AMBER if failing else _WHITE, font, anchor="rm")
    if info.title:
        draw.rectangle((0, 0, width, line + _BORDER), fill=_STRIP)
        above = _BORDER + line / 2
        draw.text((pad, above), info.title, _WHITE, font, anchor="lm")
        if info.failed:
            draw.text((width - pad, above), "HAS FAILED", _AMBER, font, anchor="rm")
    if info.intervened:
        draw.rectangle((0, 0, width - 1, height - 1), outline=_RED, width=_BORDER)
    return np.asarray(image)


@dataclass(frozen=True)
class _Canvas:
    model: mujoco.MjModel
    data: mujoco.MjData
    scene: mujoco.MjvScene
    camera: mujoco.MjvCamera
    option: mujoco.MjvOption
    context: mujoco.MjrContext
    viewport: mujoco.MjrRect


@contextmanager
def _canvas(
    model: mujoco.MjModel, view: Camera, width: int, height: int
) -> Generator[_Canvas, None, None]:
    """Open an off-screen canvas."""
    name = find_gl()
    try:
        window = importlib.import_module(f"mujoco.{name}").GLContext(width, height)
        window.make_current()
    except Exception as error:  # drivers raise anything
        raise RenderError(f"cannot draw: {name} worked before and now fails: {error}") from error
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    model.vis.quality.shadowsize, model.vis.quality.offsamples = _SHADOW_SIZE, _SAMPLES
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    camera = mujoco.MjvCamera()
    camera.lookat[:] = view.look_at
    camera.distance, camera.azimuth, camera.elevation = view[1:]
    option = mujoco.MjvOption()
    option.sitegroup[:] = 0  # hides MetaWorld's own goal, which does not move
    drawn = mujoco.MjvScene(model, _MAX_GEOMS)
    viewport = mujoco.MjrRect(0, 0, width, height)
    try:
        yield _Canvas(model, mujoco.MjData(model), drawn, camera, option, context, viewport)
    finally:
        context.free()
        window.free()


def _draw(
    canvas: _Canvas, qpos: np.ndarray, goal: np.ndarray, radius: float, out: np.ndarray
) -> None:
    """Draw one state into uint8 [H, W, 3] `out`."""
    model, data = canvas.model, canvas.data
    data.qpos[:] = qpos
    if model.nmocap > 1:
        data.mocap_pos[1] = goal  # the body that stands there
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)
    everything = mujoco.mjtCatBit.mjCAT_ALL
    mujoco.mjv_updateScene(
        model, data, canvas.option, None, canvas.camera, everything, canvas.scene
    )
    cylinder, sphere = mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_SPHERE
    floor = (goal[0], goal[1], 2.0 * _DISC_HEIGHT)
    _add_geom(canvas.scene, cylinder, (radius, _DISC_HEIGHT, 0.0), floor, 0.5)
    _add_geom(canvas.scene, sphere, (0.008, 0.008, 0.008), tuple(goal), 1.0)
    mujoco.mjr_render(canvas.viewport, canvas.scene, canvas.context)
    mujoco.mjr_readPixels(out, None, canvas.viewport, canvas.context)
    out[:] = out[::-1].copy()  # OpenGL counts rows from below


def _add_geom(
    drawn: mujoco.MjvScene,
    kind: mujoco.mjtGeom,
    size: tuple[float, ...],
    position: tuple[float, ...],
    alpha: float,
) -> None:
    if drawn.ngeom >= drawn.maxgeom:
        return
    mujoco.mjv_initGeom(
        drawn.geoms[drawn.ngeom],
        kind,
        np.array(size, np.float64),
        np.array(position, np.float64),
        np.eye(3).ravel(),
        np.array([*_GOAL_COLOR, alpha], np.float32),
    )
    drawn.ngeom += 1
