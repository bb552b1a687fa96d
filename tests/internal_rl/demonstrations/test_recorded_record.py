"""Recording a policy: what lies in the folder is what happened in the world."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import adapter
from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.folder import open_folder
from internal_rl.demonstrations.folder_check import check_folder
from internal_rl.demonstrations.record import record
from internal_rl.demonstrations.writer import Writer
from internal_rl.errors import UserError


@dataclass(frozen=True)
class Line:
    """Walk from 0 to 1 (goal 0), then back to 0 (goal 1), in steps of at most a quarter; every third start can't move."""

    horizon: int = 12
    num_goals: int = 2

    obs_spec = ObservationSpec(dim=2)
    action_spec = ActionSpec(dim=1, low=-0.25, high=0.25)

    def starts(self, key, n):
        del key
        return jnp.arange(n) % 3 == 2, {}

    def reset(self, start):
        state = (jnp.float32(0.0), jnp.int32(0), jnp.int32(0), start)
        return state, adapter.first(self._obs(state))

    def _obs(self, state):
        return jnp.stack([state[0], state[1].astype(jnp.float32)])

    def step(self, key, state, action):
        del key
        x, progress, time, stuck = state
        x = jnp.where(stuck, x, x + action[0])
        arrived = jnp.where(progress == 0, x >= 1.0, x <= 0.0)
        state = (x, progress + arrived.astype(jnp.int32), time + 1, stuck)
        obs, over = self._obs(state), state[1] >= 2
        late = state[2] >= self.horizon
        reward = arrived.astype(jnp.float32)
        return state, adapter.TimeStep(obs, reward, over, late, obs, {})

    def goal(self, state):
        return jnp.minimum(state[1], 1)

    def outcome(self, state):
        return {"success": state[1] >= 2, "progress": state[1]}


def there_and_back(key, obs, state):
    """As fast as allowed, and a little faster than that."""
    del key
    assert state[3].dtype == bool  # an expert may look at the state
    return jnp.where(obs[1] < 0.5, 0.5, -0.25)[None]


def restless(key, obs, state):
    del state
    return 0.25 * jax.random.uniform(key, (1,)) * jnp.where(obs[1] < 0.5, 1.0, -1.0)


def test_what_happened_is_written(tmp_path):
    done = record(there_and_back, Line(), tmp_path / "data", episodes=6, seed=0, chunk=4)
    folder = open_folder(done.path)
    # Four steps there, four back; those that can't move take the whole horizon. Starts are numbered within a chunk.
    lengths = [8, 8, 12, 8, 8, 8]
    assert folder.lengths.tolist() == lengths
    assert (done.episodes, done.steps, done.tried, done.successes) == (6, 52, 6, 5)
    assert done.seconds > 0
    assert done.steps_per_second == 52 / done.seconds
    arrays = folder.arrays
    there = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_array_equal(arrays["obs"][:9, 0], [*there, *there[3::-1]])
    # Actions are what the world got.
    np.testing.assert_array_equal(arrays["action"][:8, 0], [0.25] * 4 + [-0.25] * 4)
    np.testing.assert_array_equal(arrays["goal"][:8], [0] * 4 + [1] * 4)
    np.testing.assert_array_equal(arrays["subgoal"][:8], [0] * 4 + [1] * 4)
    np.testing.assert_array_equal(arrays["reward"][:8], [0, 0, 0, 1, 0, 0, 0, 1])
    stuck = slice(16, 28)
    assert (arrays["goal"][stuck] == 0).all()
    assert (arrays["reward"][stuck] == 0).all()
    world = Line()
    assert check_folder(done.path, world.obs_spec, world.action_spec, 2).problems == ()
    assert folder.manifest["made_by"]["policy"] == "there_and_back"
    assert folder.manifest["made_by"]["world"] == "Line(horizon=12, num_goals=2)"


def test_recorded_episodes_replay_in_the_world(tmp_path):
    """Actions of a random policy, played again one by one, give the same observations."""
    world = Line()
    folder = open_folder(record(restless, world, tmp_path / "data", 5, seed=3, chunk=5).path)
    starts, _ = world.starts(jax.random.key(0), 5)
    step = jax.jit(world.step)
    for i, length in enumerate(folder.lengths):
        begin = folder.arrays["starts"][i]
        state, seen = world.reset(starts[i])
        for t in range(length):
            np.testing.assert_array_equal(folder.arrays["obs"][begin + i + t], seen.obs)
            assert not seen.done
            action = jnp.asarray(folder.arrays["action"][begin + t])
            state, seen = step(jax.random.key(0), state, action)
            assert folder.arrays["reward"][begin + t] == seen.reward
        np.testing.assert_array_equal(folder.arrays["obs"][begin + i + length], seen.obs)
        assert seen.done


def test_only_successes(tmp_path):
    done = record(
        there_and_back, Line(), tmp_path / "data", 6, seed=0, chunk=4, successes_only=True
    )
    assert open_folder(done.path).lengths.tolist() == [8] * 6
    assert (done.episodes, done.tried, done.successes) == (6, 8, 6)


def test_a_seed_repeats_and_another_differs(tmp_path):
    files = [
        open_folder(record(restless, Line(), tmp_path / name, 4, seed=seed, chunk=4).path)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    obs = [file.manifest["files"]["obs"]["sha256"] for file in files]
    assert obs[0] == obs[1] != obs[2]


def test_an_interrupted_recording_goes_on(tmp_path, monkeypatch):
    """The folder of an interrupted and resumed recording is, byte for byte, that of one that was not."""
    settings = {"seed": 1, "chunk": 4, "successes_only": True}
    whole = record(there_and_back, Line(), tmp_path / "whole", 10, **settings)
    append, count = Writer.append, iter(range(100))

    def stopping(writer, episode):
        if next(count) == 7:
            raise KeyboardInterrupt
        append(writer, episode)

    monkeypatch.setattr(Writer, "append", stopping)
    with pytest.raises(KeyboardInterrupt):
        record(there_and_back, Line(), tmp_path / "part", 10, **settings, resume=True)
    monkeypatch.undo()
    assert not (tmp_path / "part").exists()
    with pytest.raises(UserError, match="holds a part of other demonstrations"):
        record(there_and_back, Line(), tmp_path / "part", 11, **settings, resume=True)
    resumed = record(there_and_back, Line(), tmp_path / "part", 10, **settings, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part", "whole"]
    files = [{f.name: f.read_bytes() for f in run.path.iterdir()} for run in (whole, resumed)]
    assert files[0] == files[1]
    assert (resumed.tried, resumed.successes) == (whole.tried, whole.successes)
    assert 0 < resumed.resumed_steps < resumed.steps


def test_a_world_without_goals_gives_no_labels(tmp_path):
    done = record(restless, Line(num_goals=0), tmp_path / "data", 2, seed=0, horizon=3, chunk=2)
    folder = open_folder(done.path)
    assert set(folder.arrays) == {"obs", "action", "reward", "starts"}
    assert folder.lengths.tolist() == [3, 3]


def test_a_policy_by_reference(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import jax.numpy as jnp\n"
        "def still(key, obs, state):\n    return jnp.zeros((1,))\n"
        "def broken(key, obs, state):\n    return obs['x']\n"
        "def other(obs):\n    return obs\n"
    )
    done = record(f"{file}:still", Line(horizon=4), tmp_path / "data", 2, seed=0, chunk=2)
    made_by = open_folder(done.path).manifest["made_by"]
    assert made_by["policy"] == f"{file}:still"
    assert len(made_by["policy_sha256"]) == 64
    for name, message in (
        ("broken", r"policy: .*mine.py, line 5 in broken: TypeError"),
        ("other", r"policy: '.*other' cannot be called as \(key, obs, state\)"),
        ("absent", "policy: '.*absent': .* has no 'absent'"),
    ):
        with pytest.raises(UserError, match=message):
            record(f"{file}:{name}", Line(), tmp_path / "more", 2, seed=0)
    assert not (tmp_path / "more").exists()


def never(key, obs, state):
    return jnp.zeros((1,))


def integers(key, obs, state):
    return jnp.zeros((1,), jnp.int32)


def wide(key, obs, state):
    return jnp.zeros((2,))


@pytest.mark.parametrize(
    ("policy", "settings", "message"),
    [
        (never, {"episodes": 0}, "episodes is 0; allowed is 1 or more"),
        (never, {"chunk": 0}, "chunk is 0; allowed is 1 or more"),
        (never, {"horizon": 13}, "horizon is 13; allowed: 1 to the world's, 12"),
        (never, {"successes_only": True}, "0 of 8 episodes ended with success; wanted: 2"),
        (integers, {}, r"action is int32 \[1\]; the world's is float32 \[1\]"),
        (wide, {}, r"action is float32 \[2\]; the world's is float32 \[1\]"),
    ],
)
def test_what_cannot_be_recorded(tmp_path, policy, settings, message):
    settings = {"episodes": 2, "seed": 0, "chunk": 4, "most_tries": 4} | settings
    with pytest.raises(UserError, match=message):
        record(policy, Line(), tmp_path / "data", **settings)
    assert not list(tmp_path.iterdir())
