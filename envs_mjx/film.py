"""Write frames as MP4, GIF or a contact sheet."""

import secrets
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from envs_mjx.errors import RenderError

_WHITE = (255, 255, 255)
_COLORS = 256  # of a GIF


def write_video(path: Path, frames: np.ndarray, fps: float = 30.0) -> None:
    """Write uint8 [T, H, W, 3] as H.264 (`.mp4`, plays anywhere) or as a `.gif`.

    The file appears once it is complete.

    Raises:
        RenderError: the suffix is wrong, there are no frames, or the file cannot be written.
    """
    path, frames = Path(path), _checked(frames)
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    if path.suffix not in writers:
        raise RenderError(f"{path}: a film's name must end in .mp4 or .gif; got {path.suffix!r}")
    with _appearing(path) as temporary:
        writers[path.suffix](temporary, frames, fps)


def contact_sheet(path: Path, frames: np.ndarray, columns: int = 4) -> None:
    """Write uint8 [T, H, W, 3] side by side, row by row, as one PNG.

    Raises:
        RenderError: there are no frames or columns, or the file cannot be written.
    """
    from PIL import Image

    frames = _checked(frames)
    if columns < 1:
        raise RenderError(f"columns must be at least 1; got {columns}")
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


def _checked(frames: np.ndarray) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise RenderError(
            f"frames must be uint8 [T, H, W, 3] with T >= 1; got {frames.dtype} {frames.shape}"
        )
    return frames


@contextmanager
def _appearing(path: Path) -> Generator[Path, None, None]:
    """A temporary file that becomes `path` if the body succeeds and is removed otherwise.

    Its name is random, and absolute since ffmpeg reads "-x" as an option and "a:x" as a protocol.
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
    way = f"(ffmpeg is {command[0]}; set IMAGEIO_FFMPEG_EXE to use another)"
    try:
        done = subprocess.run(command, input=frames.tobytes(), capture_output=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "it did not end within 600 s"
        raise RuntimeError(f"ffmpeg cannot run: {reason} {way}") from error
    if done.returncode or not path.stat().st_size:
        said = done.stderr.decode("utf-8", "replace").strip() or "it printed nothing"
        raise RuntimeError(f"ffmpeg failed: {said.splitlines()[-1]} {way}")


def _write_gif(path: Path, frames: np.ndarray, fps: float) -> None:
    from PIL import Image

    # One palette and no dithering: pixels that stay as they are cost nothing.
    rows = np.concatenate(frames[np.linspace(0, len(frames) - 1, 8).astype(int)])
    # Unlike the median cut, an octree keeps colours that are rare, as a caption's is.
    palette = Image.fromarray(rows).quantize(_COLORS, Image.Quantize.FASTOCTREE)
    plain = Image.Dither.NONE
    images = [Image.fromarray(frame).quantize(palette=palette, dither=plain) for frame in frames]
    duration = max(20, round(1000.0 / fps))  # ms; viewers slow down shorter frames
    images[0].save(
        path, format="GIF", save_all=True, append_images=images[1:], duration=duration, loop=0
    )
