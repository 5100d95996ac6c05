"""The film of two methods picks a start that tells them apart."""

from types import SimpleNamespace

import numpy as np

from experiments.studies import film


def rollout(failure, success, length):
    """A rollout of N environments whose first episodes have these ends and lengths."""
    steps, size = 6, len(length)
    flags = lambda at: np.array([[t == at[i] for i in range(size)] for t in range(steps)])
    done = flags([n - 1 for n in length])
    found = {"failure": flags(failure), "success": flags(success), "done": done}
    return film.Rollout(None, 0, SimpleNamespace(**found), None, None, None)


def test_the_start_is_one_where_left_fails_and_right_succeeds():
    never = -1
    left = rollout([never, 1, 1, 1], [never] * 4, [6, 6, 6, 6])
    right = rollout([never, 2, never, never], [never, 5, 4, 3], [6, 6, 5, 4])
    assert film._telling(left, right) == 3  # 2 tells as much, but takes longer


def test_both_halves_show_the_same_moment():
    left, right = rollout([-1], [3], [4]), rollout([-1], [5], [6])
    shown = film._in_step(left, right, 0)
    held = [5] * film.BESIDE_HOLD
    assert shown[1].tolist() == [0, 1, 2, 3, 4, 5, *held]
    assert shown[0].tolist() == np.minimum(shown[1], 3).tolist()  # it has ended and stands still


def test_the_film_ends_soon_after_a_failure(monkeypatch):
    monkeypatch.setattr(film, "BESIDE_AFTER", 1)
    left, right = rollout([2], [-1], [6]), rollout([-1], [1], [2])
    shown = film._in_step(left, right, 0)
    assert shown[0].max() == 3 and shown[1].max() == 1


def test_a_long_film_has_few_frames(monkeypatch):
    monkeypatch.setattr(film, "BESIDE_FRAMES", 3)
    shown = film._in_step(*[rollout([-1], [-1], [6])] * 2, 0)
    assert shown[0].tolist() == [0, 2, 5] + [5] * film.BESIDE_HOLD
