"""Made-up trajectories: smooth, within limits, the same everywhere."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.demo.trajectories import (
    ARM6,
    ARM6_POSE,
    ARM8,
    BIMANUAL14,
    HUMANOID26,
    MOBILE11,
    Robot,
    demonstrate,
    demonstration_lengths,
    minimum_jerk,
)

ROBOTS = (ARM6, ARM6_POSE, ARM8, BIMANUAL14, MOBILE11, HUMANOID26)
seeds = st.integers(0, 10_000)


@pytest.mark.parametrize("robot", ROBOTS)
def test_robot_home_lies_within_limits(robot: Robot) -> None:
    low, high, home = (np.array(v) for v in (robot.low, robot.high, robot.home))
    assert len(robot.names) == len(set(robot.names)) == len(low) == len(high) == len(home)
    assert ((low < home) & (home < high)).all()


@pytest.mark.parametrize("robot", ROBOTS)
@given(task=seeds, episode=seeds, n_frames=st.integers(1, 200))
@settings(max_examples=25, deadline=None)
def test_demonstrate_any_seed_stays_within_limits(
    robot: Robot, task: int, episode: int, n_frames: int
) -> None:
    motion = demonstrate(robot, n_frames=n_frames, task_seed=task, episode_seed=episode)
    for values in (motion.state, motion.actions):
        assert values.shape == (n_frames, robot.dim)
        assert values.dtype == np.float32
        assert (values >= np.float32(robot.low)).all()
        assert (values <= np.float32(robot.high)).all()


@pytest.mark.parametrize("robot", ROBOTS)
@given(task=seeds, episode=seeds)
@settings(max_examples=25, deadline=None)
def test_demonstrate_path_is_smooth(robot: Robot, task: int, episode: int) -> None:
    """A minimum-jerk step of size d over n frames accelerates by at most 5.78 d / n² a frame².

    The shortest segment is 4 % of 300 frames (12), the next 10 %; 0.05 of the range a frame² is
    far below what a jump between two unrelated poses would be.
    """
    motion = demonstrate(robot, n_frames=300, task_seed=task, episode_seed=episode)
    span = np.array(robot.high) - np.array(robot.low)
    acceleration = np.diff(motion.actions.astype(np.float64), n=2, axis=0)
    assert np.abs(acceleration / span).max() < 0.05


def test_demonstrate_actions_lead_the_state() -> None:
    motion = demonstrate(
        ARM8, n_frames=120, task_seed=3, episode_seed=4, lead_frames=3, noise=0.001
    )
    span = np.array(ARM8.high) - np.array(ARM8.low)
    error = {}
    for lag in range(7):
        ahead = motion.actions[: 120 - lag] - motion.state[lag:]
        error[lag] = np.abs(ahead / span).mean()
    assert min(error, key=lambda lag: error[lag]) == 3
    assert error[3] < 0.001


def test_demonstrate_grippers_close_and_open_again() -> None:
    motion = demonstrate(BIMANUAL14, n_frames=200, task_seed=1, episode_seed=2)
    for gripper in BIMANUAL14.grippers:
        opening = motion.state[:, gripper]
        assert opening[0] > 0.6
        assert opening[110] < 0.3
        assert opening[-1] > 0.6


def test_demonstrate_tasks_differ_more_than_their_episodes() -> None:
    def mean(task: int, episode: int) -> np.ndarray:
        motion = demonstrate(ARM6, n_frames=100, task_seed=task, episode_seed=episode)
        return motion.state.mean(axis=0, dtype=np.float64)

    means = np.array([[mean(task, episode) for episode in range(8)] for task in range(8)])
    within = means.std(axis=1).mean(axis=0)[:5]
    between = means.mean(axis=1).std(axis=0)[:5]
    assert (between > within).all()


def test_demonstrate_bits_are_the_same_everywhere() -> None:
    """Recorded once with NumPy 2.4 and found equal with NumPy 1.26."""
    motion = demonstrate(HUMANOID26, n_frames=64, task_seed=5, episode_seed=6)
    digest = hashlib.sha256(motion.state.tobytes() + motion.actions.tobytes()).hexdigest()
    assert digest == "5f8ff1b3bbab42b4ad01cd32b94e4f403b3a6920f36dbd9a3b214f669aada35b"


def test_minimum_jerk_between_two_points_is_the_quintic() -> None:
    times = np.linspace(2.0, 6.0, 41)
    s = (times - 2.0) / 4.0
    expected = 1.0 + 3.0 * (10 * s**3 - 15 * s**4 + 6 * s**5)
    path = minimum_jerk(np.array([[1.0], [4.0]]), np.array([2.0, 6.0]), times)
    np.testing.assert_allclose(path[:, 0], expected, rtol=1e-12)


def test_minimum_jerk_passes_every_waypoint() -> None:
    points = np.array([[0.0, 1.0], [2.0, -1.0], [2.0, 5.0]])
    at = np.array([0.0, 3.0, 10.0])
    np.testing.assert_allclose(minimum_jerk(points, at, at), points, atol=1e-12)


def test_demonstration_lengths_have_fast_and_slow_humps() -> None:
    lengths = demonstration_lengths(40, usual_s=4.0, fps=25.0, seed=9)
    fast, slow = lengths[1::2], lengths[0::2]
    if np.mean(fast) > np.mean(slow):
        fast, slow = slow, fast
    assert max(fast) <= 90
    assert min(slow) >= 115
    assert len(set(lengths)) >= 10


def test_demonstration_lengths_distinct_bounds_how_many() -> None:
    lengths = demonstration_lengths(12, usual_s=4.0, fps=25.0, seed=9, distinct=3)
    assert len(lengths) == 12
    assert len(set(lengths)) <= 3
