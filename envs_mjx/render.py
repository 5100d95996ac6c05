"""Pictures of episodes: frames, films and contact sheets. Host only; nothing else needs OpenGL."""

import functools
import importlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

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


class RenderError(ValueError):
    """Nothing can be drawn or written. The message is one line and says what would help."""


@dataclass(frozen=True)
class FrameInfo:
    """What is written on one frame."""

    step: int
    """Steps since reset."""
    failure_margin: float
    """Distance to failure, m; negative while failing."""
    horizon_cost: float | None = None
    """C_H as the gate saw it; None where no gate looked."""
    max_risk: float | None = None
    """eps_safe, what C_H must not exceed; None where no gate looked."""
    intervened: bool = False
    """Whether the recovery policy acted; gives the frame a red border."""
    success: bool = False
    """Whether this step solved the task."""


@functools.cache
def find_gl() -> str:
    """Return the OpenGL backend that works here: "egl" or "osmesa", "glfw" where it is asked for.

    Each is tried in a process of its own, since a failed import would spoil this one. A value of
    `MUJOCO_GL` and a device of `MUJOCO_EGL_DEVICE_ID` are tried first; the answer is left in both.

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
    """Whether a process with these variables can draw with a backend."""
    command = [sys.executable, "-P", "-c", _PROBE.format(name=name)]  # no code from where one is
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
        env: whose scene it is; any backend.
        qpos: [T, nq] positions, as in `State.physics.qpos`; every row is drawn, so thin first.
        goal: [3] m, or [T, 3].
        overlay: T entries to write on the frames; None leaves them bare.
        width, height: pixels.

    Returns:
        uint8 [T, height, width, 3].

    Raises:
        RenderError: no OpenGL, or arguments that do not fit.
    """
    qpos = np.asarray(qpos, np.float64)
    task = env.task
    model = env.robot.visual_model(task.scene_file, task.edit_visuals, task.scene_parts)
    if qpos.ndim != 2 or qpos.shape[1] != model.nq or not len(qpos):
        raise RenderError(f"qpos must be [T, {model.nq}] with T >= 1, got {list(qpos.shape)}")
    if not np.isfinite(qpos).all():
        bad = int(np.argmin(np.isfinite(qpos).all(axis=1)))
        raise RenderError(f"qpos[{bad}] is not finite; draw only the steps before it")
    if overlay is not None and len(overlay) != len(qpos):
        raise RenderError(f"overlay has {len(overlay)} entries for {len(qpos)} frames")
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
    """Return uint8 [H, W, 3] `frame` with its caption and, where recovery acts, a red border."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(frame)
    width, height = image.size
    draw = ImageDraw.Draw(image)
    line = max(18, round(height / 13))
    font = ImageFont.load_default(size=round(line * 0.62))
    draw.rectangle((0, height - line - _BORDER, width, height), fill=_STRIP)
    middle, pad = height - _BORDER - line / 2, _BORDER + 10
    cost = "" if info.horizon_cost is None else f"C_H {info.horizon_cost:.0e}"
    cost += "" if info.max_risk is None else f" / {info.max_risk:.0e}"
    failing = info.failure_margin < 0.0
    draw.text((pad, middle), f"step {info.step}", _WHITE, font, anchor="lm")
    margin = f"margin {info.failure_margin:+.3f} m"
    draw.text((width * 0.20, middle), margin, _AMBER if failing else _WHITE, font, anchor="lm")
    draw.text((width * 0.48, middle), cost, _WHITE, font, anchor="lm")
    word = "RECOVERY" if info.intervened else "FAILURE" if failing else ""
    word = "SUCCESS" if info.success else word
    draw.text((width - pad, middle), word, _AMBER if failing else _WHITE, font, anchor="rm")
    if info.intervened:
        draw.rectangle((0, 0, width - 1, height - 1), outline=_RED, width=_BORDER)
    return np.asarray(image)


def write_video(path: Path, frames: np.ndarray, fps: float = 30.0) -> None:
    """Write uint8 [T, H, W, 3] as H.264 (`.mp4`, plays anywhere) or as a `.gif`.

    The file appears when it is complete.

    Raises:
        RenderError: another suffix, no frames, or the disk refuses.
    """
    path, frames = Path(path), _checked(frames)
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    if path.suffix not in writers:
        raise RenderError(f"{path}: a film is .mp4 or .gif, not {path.suffix or 'nothing'!r}")
    with _appearing(path) as temporary:
        writers[path.suffix](temporary, frames, fps)


def contact_sheet(path: Path, frames: np.ndarray, columns: int = 4) -> None:
    """Write uint8 [T, H, W, 3] side by side, row by row, as one PNG.

    Raises:
        RenderError: no frames, no columns, or the disk refuses.
    """
    from PIL import Image

    frames = _checked(frames)
    if columns < 1:
        raise RenderError(f"columns must be at least 1, got {columns}")
    count, height, width, _ = frames.shape
    columns, gap = min(columns, count), 4
    rows = -(-count // columns)
    size = (columns * (width + gap) + gap, rows * (height + gap) + gap)
    sheet = Image.new("RGB", size, _WHITE)
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        corner = (gap + column * (width + gap), gap + row * (height + gap))
        sheet.paste(Image.fromarray(frame), corner)
    with _appearing(Path(path)) as temporary:
        sheet.save(temporary, format="PNG")


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
def _canvas(model: mujoco.MjModel, view: Camera, width: int, height: int) -> Iterator[_Canvas]:
    """Open an off-screen picture, in the OpenGL that is found here."""
    name = find_gl()
    try:
        window = importlib.import_module(f"mujoco.{name}").GLContext(width, height)
        window.make_current()
    except Exception as error:  # a driver's, of any kind
        raise RenderError(f"cannot draw: {name}, which worked before: {error}") from error
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    model.vis.quality.shadowsize, model.vis.quality.offsamples = _SHADOW_SIZE, _SAMPLES
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    camera = mujoco.MjvCamera()
    camera.lookat[:] = view.look_at
    camera.distance, camera.azimuth, camera.elevation = view[1:]
    option = mujoco.MjvOption()
    option.sitegroup[:] = 0  # among them MetaWorld's own goal, which does not move
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


def _checked(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise RenderError(
            f"frames must be uint8 [T, H, W, 3] with T >= 1, got {frames.dtype} {frames.shape}"
        )
    return frames


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A name that becomes `path` when the body succeeds, and is removed when not.

    Nobody can foresee it. It is absolute: ffmpeg takes "-x" for an option and "a:x" for a protocol.
    """
    name = f".incoming-{secrets.token_hex(8)}{path.suffix}"
    temporary = path.absolute().with_name(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[-1]
        raise RenderError(f"cannot write {path}: {reason}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _write_mp4(path: Path, frames: np.ndarray, fps: float) -> None:
    import imageio_ffmpeg

    height, width = frames.shape[1:3]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps)]
    command += ["-i", "-", "-c:v", "libx264", "-crf", "20", "-pix_fmt", "yuv420p"]
    command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2"]  # yuv420p halves both sides
    command += ["-movflags", "+faststart", str(path)]
    way = f"(ffmpeg is {command[0]}; IMAGEIO_FFMPEG_EXE may name another)"
    try:
        done = subprocess.run(command, input=frames.tobytes(), capture_output=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "it does not end"
        raise RuntimeError(f"ffmpeg does not run: {reason} {way}") from error
    if done.returncode or not path.stat().st_size:
        said = done.stderr.decode("utf-8", "replace").strip() or "without a word"
        raise RuntimeError(f"ffmpeg failed: {said.splitlines()[-1]} {way}")


def _write_gif(path: Path, frames: np.ndarray, fps: float) -> None:
    from PIL import Image

    images = [Image.fromarray(frame).quantize(128) for frame in frames]
    duration = max(20, round(1000.0 / fps))  # ms; viewers slow down what is shorter
    images[0].save(
        path, format="GIF", save_all=True, append_images=images[1:], duration=duration, loop=0
    )
