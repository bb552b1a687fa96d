import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.pinpad.expert import generate
from internal_rl.demonstrations import pinpad
from internal_rl.demonstrations.packing import pack, unpacked
from internal_rl.demonstrations.pinpad import gather_rows, mean_length
from internal_rl.stages.pretrain import behaviour_loss
from tests.internal_rl.small import (
    SMOKE,
    assert_close,
    base_params,
    bind_base,
    changed,
    expert,
    world,
)

ROWS, LENGTH, COUNT = 4, 7, 12
packer = jax.jit(lambda lengths: pack(lengths, ROWS, LENGTH))


@given(st.lists(st.integers(1, LENGTH), min_size=COUNT, max_size=COUNT))
def test_trajectories_lie_whole_and_in_order(lengths):
    packing = packer(jnp.asarray(lengths, jnp.int32))
    trajectory, time, reset, valid = (
        np.asarray(x) for x in (packing.trajectory, packing.time, packing.reset, packing.valid)
    )
    placed, rows_of = [], []
    for row in range(ROWS):
        at = 0
        while at < LENGTH and valid[row, at]:
            one = trajectory[row, at]
            span = slice(at, at + lengths[one])
            # Whole: all its steps, one after the other, in one row.
            np.testing.assert_array_equal(trajectory[row, span], [one] * lengths[one])
            np.testing.assert_array_equal(time[row, span], np.arange(lengths[one]))
            np.testing.assert_array_equal(reset[row, span], np.arange(lengths[one]) == 0)
            assert valid[row, span].all()
            placed.append(int(one))
            rows_of.append(row)
            at += lengths[one]
        # Nothing after the first gap.
        assert not valid[row, at:].any()
        assert not reset[row, at:].any()
    assert placed == list(range(len(placed)))
    assert valid.sum() == sum(lengths[: len(placed)])
    # A new row begins only where the old one has no room; the rest is left out only at the end.
    ends = {}
    for one, row in zip(placed, rows_of, strict=True):
        if row not in ends and row > 0:
            assert ends[row - 1] + lengths[one] > LENGTH
        ends[row] = ends.get(row, 0) + lengths[one]
    if len(placed) < COUNT:
        assert rows_of[-1] == ROWS - 1
        assert ends[ROWS - 1] + lengths[len(placed)] > LENGTH


def test_one_per_row():
    packing = unpacked(jnp.array([3, 1, 4]), 4)
    np.testing.assert_array_equal(packing.valid, [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_array_equal(packing.trajectory, np.repeat([[0], [1], [2]], 4, axis=1))
    np.testing.assert_array_equal(packing.time, [[0, 1, 2, 3]] * 3)
    np.testing.assert_array_equal(packing.reset, [[1, 0, 0, 0]] * 3)


@pytest.mark.parametrize("mixer", ["transformer", "hawk"])
def test_packing_does_not_change_the_loss(mixer):
    config = changed(SMOKE, model={"mixer": mixer})
    place, count = world(config), 12

    @jax.jit
    def losses(params, key):
        data, _ = generate(key, place.env, place.tasks, count, place.horizon)
        together = gather_rows(place, data, pack(data.length, count, place.horizon))
        apart = gather_rows(place, data, unpacked(data.length, place.horizon))
        merged = dataclasses.replace(together, reset=jnp.zeros_like(together.reset))
        base = bind_base(params, config)
        return [behaviour_loss(base, batch, 0.5)[1] for batch in (together, apart, merged)], [
            jnp.sum(batch.valid) for batch in (together, apart)
        ]

    (packed, single, merged), tokens = losses(base_params(config), jax.random.key(0))
    assert tokens[0] == tokens[1]
    for name in ("loss", "action_nll", "obs_nll"):
        assert_close(packed[name], single[name])
    # Without the resets neighbours would mix, so the comparison above can fail.
    assert abs(merged["action_nll"] - single["action_nll"]) > 1e-3
    assert_close(packed["loss"], packed["action_nll"] + 0.5 * packed["obs_nll"])


def test_as_many_trajectories_as_fill_the_rows(monkeypatch):
    place, source, made = world(), expert(clean=False), []
    assert source.mean_length == mean_length(place, SMOKE.pretrain.epsilon)

    def counted(key, env, tasks, count, *rest, **options):
        made.append(count)
        return generate(key, env, tasks, count, *rest, **options)

    monkeypatch.setattr(pinpad, "generate", counted)
    for rows in (4, 40):
        jax.eval_shape(lambda key, n=rows: source.rows((), key, n, clean=False), jax.random.key(0))
    few, many = made
    assert 9 * few <= many <= 10 * few
    # 40 rows of 16 tokens; a solution of three sub-goals takes 3 to 16 steps.
    assert 40 <= many <= 40 * 16 / 3


def test_rows_of_a_batch_are_well_filled():
    source = expert(clean=False)
    assert source.packing
    run = jax.jit(lambda key: source.rows(source.data, key, 32, clean=False))
    batch, stats = run(jax.random.key(1))
    assert np.asarray(batch.reset).sum(1).max() > 1
    assert 0.75 < np.asarray(batch.valid).mean() <= 1.0
    assert 0.0 < stats["solvable_fraction"] <= 1.0


def test_batch_shows_the_expert():
    """Actions lead from o_t to o_{t+1}; sub-goals change on the step after a colour is reached."""
    place = world()
    batch = jax.jit(
        lambda key: gather_rows(
            place,
            (data := generate(key, place.env, place.tasks, 8, place.horizon)[0]),
            unpacked(data.length, place.horizon),
        )
    )(jax.random.key(2))
    batch = jax.device_get(batch)
    size = place.env.grid_size

    def cell(obs):  # the last two factors are the agent's row and column
        return obs[-2 * size : -size].argmax() * size + obs[-size:].argmax()

    offsets = np.array([-size, size, -1, 1])
    for row in range(8):
        task = [int(c) for c in place.sequences[batch.task[row, 0]]]
        length = int(batch.valid[row].sum())
        assert batch.valid[row, :length].all()
        for t in range(length):
            here, there = cell(batch.obs[row, t]), cell(batch.next_obs[row, t])
            assert there == here + offsets[batch.action[row, t]]  # an expert never bumps
            assert batch.goal[row, t] == task[batch.subgoal[row, t]]
            if t + 1 < length:
                np.testing.assert_array_equal(batch.next_obs[row, t], batch.obs[row, t + 1])
        change = np.flatnonzero(batch.goal_change[row])
        assert len(change) == len(task) - 1
        assert 0 not in change
        assert (change < length).all()
        np.testing.assert_array_equal(batch.subgoal[row, change], np.arange(1, len(task)))
        np.testing.assert_array_equal(batch.subgoal[row, change - 1], np.arange(len(task) - 1))
