"""The contest of candidates against candidates that train alone, on the keys that they have in it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from internal_rl.stages import contest
from internal_rl.stages.pretrain import TrainState

COUNT, SELECT = 3, 4
TARGET = jnp.array([1.0, -2.0])


def init_one(key):
    w_key, key = jax.random.split(key)
    return TrainState(jnp.int32(0), key, {"w": jax.random.normal(w_key, (2,))}, jnp.zeros(2))


def update_one(state, target):
    """A noisy gradient step with momentum."""
    noise = jax.random.normal(jax.random.fold_in(state.key, state.step), (2,))
    slope = state.params["w"] - target + 0.1 * noise
    momentum = 0.5 * state.opt_state + slope
    params = {"w": state.params["w"] - 0.1 * momentum}
    metrics = {"loss": jnp.sum(slope**2), "slope": slope[0]}
    return TrainState(state.step + 1, state.key, params, momentum), metrics


update = jax.jit(contest.make_update(update_one, SELECT))
alone = jax.jit(update_one)


def starts_of(key):
    singles = [init_one(k) for k in jax.random.split(key, COUNT)]
    return [replace(s, key=jax.random.fold_in(key, c)) for c, s in enumerate(singles)]


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def follow(key, states):
    """Compare the states and metrics after each step with those of single candidates; returns the winner."""
    singles, running = starts_of(key), np.full(COUNT, np.nan)
    for state, metrics in states[:SELECT]:
        results = [alone(single, TARGET) for single in singles]
        singles = [single for single, _ in results]
        losses = np.array([float(m["loss"]) for _, m in results])
        memory = contest.MEMORY
        running = np.where(np.isnan(running), losses, memory * running + (1 - memory) * losses)
        best = int(running.argmin())
        assert metrics["candidate"] == best
        close(state.loss, running)
        for name in ("loss", "slope"):
            close(metrics[name], results[best][1][name])
    decided = states[SELECT - 1][0]
    close(contest.winner_of(decided.params)["w"], singles[best].params["w"])
    # From here on it trains alone, and the others stay as they are.
    single = replace(singles[best], key=jax.random.fold_in(key, 0))
    for state, metrics in states[SELECT:]:
        single, expected = alone(single, TARGET)
        assert metrics["candidate"] == 0
        close(metrics["loss"], expected["loss"])
        close(contest.winner_of(state.params)["w"], single.params["w"])
        close(contest.winner_of(state.opt_state), single.opt_state)
        np.testing.assert_array_equal(state.params["w"][1:], decided.params["w"][1:])
        np.testing.assert_array_equal(state.loss, decided.loss)
        assert state.step == single.step
    return best


def play(step, state, count):
    found = []
    for _ in range(count):
        state, metrics = step(state, TARGET)
        found.append((state, metrics))
    return found


def test_the_one_with_the_lowest_loss_goes_on():
    winners = set()
    for seed in range(4):
        key = jax.random.key(seed)
        state = contest.init(init_one, key, COUNT)
        assert np.isnan(state.loss).all()
        winners.add(follow(key, play(update, state, SELECT + 3)))
    assert len(winners) > 1


def test_vmapped_seeds_hold_contests_of_their_own():
    keys = jax.random.split(jax.random.key(0), 4)
    many = jax.vmap(lambda key: contest.init(init_one, key, COUNT))(keys)
    found = play(jax.jit(jax.vmap(update, (0, None))), many, SELECT + 3)
    winners = {
        follow(key, [jax.tree.map(lambda x, i=i: x[i], step) for step in found])
        for i, key in enumerate(keys)
    }
    assert len(winners) > 1


@pytest.mark.parametrize("broken", range(COUNT))
def test_a_loss_that_is_not_a_number_never_wins(broken):
    state = contest.init(init_one, jax.random.key(0), COUNT)
    params = {"w": state.params["w"].at[broken].set(jnp.nan)}
    found = play(update, replace(state, params=params), SELECT + 1)
    assert all(metrics["candidate"] != broken for _, metrics in found[:SELECT])
    assert np.isfinite(found[-1][1]["loss"])
    assert np.isfinite(contest.winner_of(found[-1][0].params)["w"]).all()


def test_where_no_loss_is_a_number_the_metrics_are_none():
    """The training loop stops at such a loss."""
    state = contest.init(init_one, jax.random.key(0), COUNT)
    params = {"w": jnp.full_like(state.params["w"], jnp.nan)}
    found = play(update, replace(state, params=params), 1)
    assert np.isnan(found[0][1]["loss"])
