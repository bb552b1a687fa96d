import jax
import jax.numpy as jnp
import numpy as np

from internal_rl.analysis.latents import CodeBank, collect_codes, replay_controller
from internal_rl.demonstrations.pinpad import PinpadDemonstrations
from tests.internal_rl.small import (
    SMOKE,
    assert_close,
    base_params,
    bind_base,
    bind_meta,
    meta_params,
    normal,
    world,
)

KEY = jax.random.key(0)


def test_one_code_per_segment_under_the_colour_it_headed_for():
    place, goals = world(), SMOKE.env.num_objects

    @jax.jit
    def run(base, meta):
        batch, _ = PinpadDemonstrations(place).rows((), KEY, 6, clean=True)
        base, meta = bind_base(base), bind_meta(meta)
        _, e = base.lower(batch.obs, None, batch.reset)
        found = meta.discover(e, batch.valid, KEY, sample=False)
        return batch, found.z, collect_codes(base, meta, batch, KEY, goals)

    batch, z, bank = jax.device_get(run(base_params(), meta_params()))
    horizon = place.horizon
    expected = {goal: [] for goal in range(goals)}
    for row in range(6):
        length = int(batch.valid[row].sum())
        for t in range(length):
            if t + 1 == length or batch.subgoal[row, t + 1] != batch.subgoal[row, t]:
                expected[int(batch.goal[row, t])].append(row * horizon + t)
    for goal in range(goals):
        np.testing.assert_array_equal(np.flatnonzero(bank.weight[goal]), expected[goal])
        assert_close(bank.codes[expected[goal]], z.reshape(-1, z.shape[-1])[expected[goal]])
    assert bank.weight.sum() == sum(len(place.sequences[t]) for t in batch.task[:, 0])


def test_replay_draws_codes_of_the_true_goal_at_its_changes():
    codes = normal(0, 6, SMOKE.metacontroller.code_dim)
    weight = jnp.zeros((4, 6)).at[0, jnp.array([0, 1])].set(1.0).at[2, 4].set(1.0)
    weight = weight.at[1, 5].set(1.0).at[3, 3].set(1.0)
    meta = bind_meta(meta_params())
    controller = replay_controller(meta, CodeBank(codes=codes, weight=weight))
    e = normal(1, 3, SMOKE.model.width)
    act = jax.jit(controller.act)
    state, written, decision = act(KEY, e, controller.init(3), jnp.array([0, 2, 1], jnp.int32))
    of = np.asarray(codes)
    assert any((decision.z[0] == of[i]).all() for i in (0, 1))
    np.testing.assert_array_equal(decision.z[1:], of[[4, 5]])
    assert_close(written, meta.decoder.control(e, decision.z))
    kept = decision.z
    _, _, decision = act(KEY, e, state, jnp.array([0, 2, 3], jnp.int32))
    np.testing.assert_array_equal(decision.switch, [False, False, True])
    np.testing.assert_array_equal(decision.z[:2], kept[:2])
    np.testing.assert_array_equal(decision.z[2], of[3])
    drawn = {
        tuple(
            np.asarray(
                act(jax.random.key(k), e, controller.init(3), jnp.zeros(3, jnp.int32))[2].z[0]
            )
        )
        for k in range(12)
    }
    assert drawn == {tuple(of[0]), tuple(of[1])}


def test_replay_keeps_the_code_of_a_goal_that_was_never_recorded():
    """And of an unknown one; the first code is zeros."""
    codes = normal(0, 3, SMOKE.metacontroller.code_dim)
    # Goals 1 and 2 were not recorded. The last one was: index -1, "unknown", must not stand for it.
    weight = jnp.zeros((4, 3)).at[0, 1].set(1.0).at[3, 2].set(1.0)
    meta = bind_meta(meta_params())
    controller = replay_controller(meta, CodeBank(codes=codes, weight=weight))
    e, of = normal(1, 4, SMOKE.model.width), np.asarray(codes)
    act = jax.jit(controller.act)
    state, _, decision = act(KEY, e, controller.init(4), jnp.array([0, 3, 1, -1], jnp.int32))
    nothing = np.zeros_like(of[0])
    np.testing.assert_array_equal(decision.switch, [True, True, False, False])
    np.testing.assert_array_equal(decision.z, [of[1], of[2], nothing, nothing])
    state, written, decision = act(KEY, e, state, jnp.array([-1, 1, 2, 3], jnp.int32))
    np.testing.assert_array_equal(decision.switch, [False, False, False, True])
    np.testing.assert_array_equal(decision.gate, [0.0, 0.0, 0.0, 1.0])
    np.testing.assert_array_equal(decision.z, [of[1], of[2], nothing, of[2]])
    assert_close(written, meta.decoder.control(e, decision.z))
    # A recorded goal after one that was not is a change like any other.
    _, _, decision = act(KEY, e, state, jnp.array([3, 0, 0, 3], jnp.int32))
    np.testing.assert_array_equal(decision.switch, [True, True, True, False])
    np.testing.assert_array_equal(decision.z, of[[2, 1, 1, 2]])
