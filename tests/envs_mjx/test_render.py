"""Pictures: what must be visible is visible, films can be decoded, and refusals are one line."""

import os
import subprocess

import jax
import numpy as np
import pytest
from PIL import Image

import envs_mjx
from envs_mjx import render
from envs_mjx.errors import RenderError
from envs_mjx.film import contact_sheet, write_video
from envs_mjx.render import FrameInfo, annotate


@pytest.fixture
def frames():
    ramp = np.linspace(0, 255, 32, dtype=np.uint8)
    film = np.zeros((6, 24, 32, 3), np.uint8)
    film[..., 0] = ramp
    film[..., 1] = (40 * np.arange(6, dtype=np.uint8))[:, None, None]
    return film


def refused(match, call, *args, **options):
    with pytest.raises(RenderError, match=match) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def gl():
    try:
        return render.find_gl()
    except RenderError as error:
        pytest.skip(str(error))


def test_an_episode_is_drawn(gl):
    env = envs_mjx.make("bounded_push", backend="native")
    state = env.reset_at(np.array([0.0, 0.65]), np.array([0.05, 0.85]))
    qpos = np.repeat(np.asarray(state.physics.qpos)[None], 2, axis=0)
    qpos[1, 9] += 0.1  # the puck, 10 cm to its right
    info = [FrameInfo(0, 0.05), FrameInfo(1, -0.01, 0.5, intervened=True)]
    plain = render.render_frames(env, qpos, np.asarray(state.goal), width=240, height=180)
    assert plain.shape == (2, 180, 240, 3) and plain.dtype == np.uint8
    pixels = plain.astype(int)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    assert ((green > red + 60) & (green > blue + 40)).sum() > 100  # the goal's disc
    assert ((red > 180) & (green < 90) & (blue < 90)).sum() > 100  # the boundary
    moved = np.abs(pixels[1] - pixels[0]).sum(axis=-1) > 60
    assert 20 < moved.sum() < 0.1 * moved.size  # the puck, and nothing else
    elsewhere = render.render_frames(
        env, qpos[:1], np.array([-0.05, 0.85, 0.02]), width=240, height=180
    )
    assert (elsewhere[0] != plain[0]).any()
    written = render.render_frames(env, qpos, np.asarray(state.goal), info, width=240, height=180)
    drawn_again = np.abs(written[0, :140].astype(int) - pixels[0, :140])
    assert drawn_again.max() < 16  # Mesa's threads blend the disc's edge by a few units differently
    np.testing.assert_array_equal(written[1, 0, 0], render._RED)
    refused(r"qpos must be \[T, 16\]", render.render_frames, env, qpos[:, :5], state.goal)
    refused("must have 2 entries", render.render_frames, env, qpos, state.goal, info[:1])
    qpos[1, 0] = np.nan
    refused(r"qpos\[1\] is not finite", render.render_frames, env, qpos, state.goal)
    assert jax.devices()  # JAX is alive beside OpenGL


def test_without_opengl_the_error_says_what_to_install(monkeypatch):
    tried = []

    def fail(command, **options):
        tried.append(options["env"]["MUJOCO_GL"])
        return subprocess.CompletedProcess(command, 1, b"", b"no")

    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr(render.subprocess, "run", fail)
    refused("apt install libegl1.*libosmesa6", render.find_gl.__wrapped__)
    assert tried == ["osmesa", "egl"]
    assert os.environ["MUJOCO_GL"] == "osmesa"


def test_recovery_has_a_red_border_and_captions_differ():
    grey = np.full((360, 480, 3), 128, np.uint8)
    calm = annotate(grey, FrameInfo(3, 0.041, 0.1))
    acting = annotate(grey, FrameInfo(3, 0.041, 0.1, intervened=True))
    failing = annotate(grey, FrameInfo(3, -0.041, 0.1))
    for edge in (acting[0], acting[-1], acting[:, 0], acting[:, -1]):
        assert (edge == render._RED).all()
    assert (calm[:300] == 128).all() and not (calm[330:] == 128).all()
    assert (failing != calm).any() and (annotate(grey, FrameInfo(3, 0.041)) != calm).any()
    assert (grey == 128).all()


def test_a_title_is_above_the_picture_and_says_that_the_episode_has_failed():
    grey = np.full((360, 480, 3), 128, np.uint8)
    plain, titled = (
        annotate(grey, FrameInfo(3, 0.041)),
        annotate(grey, FrameInfo(3, 0.041, title="A")),
    )
    failed = annotate(grey, FrameInfo(3, 0.041, title="A", failed=True))
    assert (plain[:40] == 128).all() and (np.median(titled[:30], axis=(0, 1)) < 30).all()
    assert (titled[40:] == plain[40:]).all() and (titled[40:] == failed[40:]).all()
    changed = np.flatnonzero((titled != failed).any(axis=(0, 2)))
    assert changed.min() > 240  # at the right; the title itself stays


def test_mp4_can_be_decoded_with_odd_sizes(frames, tmp_path):
    import imageio_ffmpeg

    path = tmp_path / "new" / "film.mp4"
    write_video(path, frames[:, :, :31], fps=10)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path)]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    decoded = np.frombuffer(done.stdout, np.uint8).reshape(6, 24, 32, 3)  # 31 made even
    assert all(word in done.stderr for word in (b"h264", b"yuv420p", b"10 fps"))
    assert decoded[5].mean() > decoded[0].mean() + 30
    assert [p.name for p in path.parent.iterdir()] == ["film.mp4"]


def test_gif_keeps_every_frame_and_its_time(frames, tmp_path):
    write_video(tmp_path / "film.gif", frames, fps=10)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 6 and film.info["duration"] == 100 and film.info["loop"] == 0
        film.seek(5)
        last = np.asarray(film.convert("RGB")).astype(int)
    assert np.abs(last - frames[5]).mean() < 12


def test_still_pixels_cost_a_gif_nothing(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    moving = np.stack([noise] * 20)
    for t in range(20):
        moving[t, 10:14, 3 * t : 3 * t + 4] = (255, 0, 0)
    write_video(tmp_path / "one.gif", moving[:1])
    write_video(tmp_path / "many.gif", moving)
    one, many = ((tmp_path / name).stat().st_size for name in ("one.gif", "many.gif"))
    assert many < 1.5 * one  # 20 frames


def test_a_gif_keeps_a_rare_colour(tmp_path):
    wood = np.random.default_rng(0).integers(90, 130, (2, 240, 320, 3), dtype=np.uint8)
    wood[:, :3, :20] = render._AMBER
    write_video(tmp_path / "film.gif", wood)
    with Image.open(tmp_path / "film.gif") as film:
        assert np.abs(np.asarray(film.convert("RGB"))[1, 5] - np.array(render._AMBER)).max() < 16


def test_contact_sheet_puts_frames_in_reading_order(frames, tmp_path):
    contact_sheet(tmp_path / "sheet.png", frames, columns=4)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 28 + 4, 4 * 36 + 4, 3)
    np.testing.assert_array_equal(sheet[4:28, 4:36], frames[0])
    np.testing.assert_array_equal(sheet[32:56, 40:72], frames[5])
    assert (sheet[32:56, 76:] == 255).all()


def test_refusals(frames, tmp_path):
    refused("must end in .mp4 or .gif; got '.avi'", write_video, tmp_path / "a.avi", frames)
    refused("uint8", write_video, tmp_path / "a.mp4", frames / 255.0)
    refused("T >= 1", contact_sheet, tmp_path / "a.png", frames[:0])
    refused("columns must be", contact_sheet, tmp_path / "a.png", frames, 0)
    (tmp_path / "file").write_text("")
    for name in ("a.mp4", "a.gif"):
        refused("cannot write .*file", write_video, tmp_path / "file" / name, frames)
    (tmp_path / "film.mp4").mkdir()
    refused("cannot write .*directory", write_video, tmp_path / "film.mp4", frames)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "film.mp4"]
