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


def test_whole_episodes_are_spread_over_the_frames():
    mask = np.arange(100) < 81
    shown = film._spread(mask)
    assert len(shown) == film.BESIDE_FRAMES and shown[0] == 0 and shown[-1] == 80
    assert film._spread(np.arange(9) < 3).tolist() == [0, 1, 2]
