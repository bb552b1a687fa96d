from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.surrogates import ppo_clip
from internal_rl.pipeline import load_base, load_frozen, load_params
from internal_rl.play.controllers import uncontrolled
from internal_rl.play.rollout import rollout
from internal_rl.stages import reinforce
from tests.internal_rl.small import (
    SMOKE,
    assert_close,
    assert_trees_equal,
    base_params,
    bind_base,
    bind_meta,
    bind_policy,
    changed,
    heldout,
    meta_params,
    models,
    noisy,
    policy_params,
)

RAW = changed(SMOKE, reinforce={"method": "raw_action"})
WORLD = heldout()
CLIP, DELTA = 0.2, 1e-3


def log_prob_of(method):
    def internal(params, batch):
        return reinforce.internal_log_prob(bind_policy(params), batch)[0]

    def raw(params, batch):
        return reinforce.raw_log_prob(bind_base(params), batch)[0]

    return {"internal": internal, "raw_action": raw}[method]


@cache
def experience(method):
    """(params that acted, their experience); some episodes succeed, so advantages differ."""
    cfg = changed(SMOKE, reinforce={"batch_size": 24}).reinforce

    @jax.jit
    def internal(key):
        base, meta = bind_base(base_params()), bind_meta(meta_params())
        policy = bind_policy(policy_params())
        episodes, _ = reinforce.internal_episodes(key, WORLD, base, meta, policy, cfg)
        return episodes, reinforce.internal_experience(episodes, DELTA)

    @jax.jit
    def raw(key):
        start, _ = WORLD.starts(key, cfg.batch_size)
        base = bind_base(base_params())
        episodes = rollout(key, WORLD, base, uncontrolled(), start, keep=("obs",))
        return episodes, reinforce.raw_experience(episodes, DELTA)

    key = jax.random.key(2)
    if method == "internal":
        return policy_params(), *internal(key)
    return base_params(), *raw(key)


def test_abstract_steps_side_by_side_are_the_same_steps():
    """Log-densities and their gradient do not change where no episode has more; where some do, the rest is left out."""
    params, episodes, _ = jax.tree.map(np.array, experience("internal"))
    # An untrained switching unit fires at every step of some episodes; let it fire at every other one.
    episodes.decision.switch[:, 1::2] = False
    given = jax.tree.map(jnp.asarray, episodes)
    batch = jax.device_get(reinforce.internal_experience(given, DELTA))
    most = int(batch.acted.sum(1).max())
    assert 2 < most < WORLD.horizon

    @partial(jax.jit, static_argnums=1)
    def run(params, steps):
        few = reinforce.internal_experience(given, DELTA, abstract_steps=steps)

        def total(params):
            log_prob, _ = reinforce.internal_log_prob(bind_policy(params), few)
            return jnp.sum(jnp.where(few.acted, log_prob * few.advantage, 0.0)), log_prob

        (value, log_prob), grads = jax.value_and_grad(total, has_aux=True)(params)
        return few, value, log_prob, grads

    full, gathered = (jax.device_get(run(params, steps)) for steps in (0, most))
    assert gathered[0].acted.shape == (len(batch.acted), most)
    for field in ("inputs", "choice", "log_prob", "advantage"):
        kept = getattr(gathered[0], field)[gathered[0].acted]
        np.testing.assert_array_equal(kept, getattr(full[0], field)[full[0].acted])
    assert_close(gathered[2][gathered[0].acted], full[2][full[0].acted])
    assert_close(gathered[1], full[1])
    for new, old in zip(jax.tree.leaves(gathered[3]), jax.tree.leaves(full[3]), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-4)
    first = jax.device_get(run(params, 2))[0]
    np.testing.assert_array_equal(first.acted.sum(1), np.minimum(batch.acted.sum(1), 2))
    np.testing.assert_array_equal(first.choice, gathered[0].choice[:, :2])


@pytest.mark.parametrize("method", ["internal", "raw_action"])
def test_experience_is_what_happened(method):
    params, episodes, batch = jax.device_get(experience(method))
    returns = episodes.reward.sum(1)
    assert 0 < returns.sum() < len(returns)
    advantage = (returns - returns.mean()) / (returns.std() + DELTA)
    assert_close(batch.advantage, np.repeat(advantage[:, None], WORLD.horizon, axis=1))
    np.testing.assert_array_equal(batch.first.sum(1), 1)
    assert batch.first[:, 0].all()
    if method == "internal":
        np.testing.assert_array_equal(batch.acted, episodes.decision.switch & episodes.alive)
        np.testing.assert_array_equal(batch.choice, episodes.decision.z)
        assert 0 < batch.acted.sum() < episodes.alive.sum()
    else:
        np.testing.assert_array_equal(batch.acted, episodes.alive)
        np.testing.assert_array_equal(batch.choice, episodes.action)
    again = jax.jit(log_prob_of(method))(params, batch)
    assert np.abs(np.asarray(again) - batch.log_prob)[batch.acted].max() < 1e-5


@pytest.mark.parametrize("method", ["internal", "raw_action"])
def test_first_epoch_is_reinforce(method):
    """∇ PPO at the parameters that acted = ∇ -mean(A log π)."""
    params, _, batch = experience(method)
    log_prob = log_prob_of(method)

    @jax.jit
    def gradients(params):
        def ppo(p):
            return ppo_clip(log_prob(p, batch), batch.log_prob, batch.advantage, batch.acted, CLIP)[
                0
            ]

        def plain(p):
            acted = batch.acted.astype(jnp.float32)
            terms = jnp.where(batch.acted, log_prob(p, batch), 0.0) * batch.advantage
            return -jnp.sum(terms * acted) / jnp.sum(acted)

        return jax.grad(ppo)(params), jax.grad(plain)(params)

    one, other = gradients(params)
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(other))
    assert scale > 1e-3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * scale), one, other
    )


@pytest.mark.parametrize("method", ["internal", "raw_action"])
def test_steps_without_an_act_have_no_influence(method):
    params, _, batch = experience(method)
    params = noisy(params, seed=8, scale=0.02)  # a later epoch: ratios are not 1
    log_prob = log_prob_of(method)
    mask = batch.acted
    broken = lambda x: jnp.where(  # noqa: E731
        mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, jnp.full_like(x, 3)
    )
    spoilt = batch.replace(
        inputs=broken(batch.inputs), choice=broken(batch.choice), log_prob=broken(batch.log_prob)
    )

    @jax.jit
    def gradient(params, batch):
        return jax.value_and_grad(
            lambda p: ppo_clip(
                log_prob(p, batch), batch.log_prob, batch.advantage, batch.acted, CLIP
            )[0]
        )(params)

    jax.tree.map(assert_close, gradient(params, batch), gradient(params, spoilt))


def init(config, key, base=None):
    return jax.jit(lambda key, base: reinforce.init(config.reinforce, models(config), key, base))(
        key, base
    )


def updater(config):
    world = reinforce.training_world(heldout(config), config.reinforce)
    return jax.jit(reinforce.make_update(config.reinforce, models(config), world))


def frozen():
    return reinforce.Frozen(base=base_params(), metacontroller=meta_params())


def test_one_iteration_trains_the_policy_and_nothing_else():
    before = jax.tree.map(np.asarray, frozen())
    config = changed(SMOKE, reinforce={"batch_size": 24, "epochs": 2, "minibatches": 3})
    state = init(config, jax.random.key(0))
    after, metrics = updater(config)(state, frozen())
    assert_trees_equal(jax.tree.map(np.asarray, frozen()), before)
    assert 0 < metrics["success"] < 1
    assert metrics["episode_length"] >= metrics["switches_per_episode"] >= 1
    moved = [
        (np.asarray(new) != np.asarray(old)).any()
        for new, old in zip(
            jax.tree.leaves(after.params), jax.tree.leaves(state.params), strict=True
        )
    ]
    assert all(moved)
    # Two epochs of three minibatches are six gradient steps.
    counts = {
        int(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(after.opt_state)
        if "count" in jax.tree_util.keystr(path)
    }
    assert counts == {6}
    assert metrics["clip_fraction"] >= 0
    assert float(metrics["approx_kl"]) > 0  # the later ones are off-policy


def test_no_reward_no_change():
    """Equal returns have advantage 0, so nothing moves, whatever the weight decay and the momentum."""
    impossible = changed(
        RAW,
        env={"heldout_tasks": ("010101010101",), "horizon": 16},
        reinforce={"optimizer": {"weight_decay": 0.1}},
    )
    state = init(impossible, jax.random.key(0), base_params())
    after, metrics = updater(impossible)(
        state, reinforce.Frozen(base=base_params(), metacontroller=None)
    )
    assert metrics["success"] == 0.0
    assert not metrics["informative"]
    assert metrics["grad_norm"] == 0.0
    assert_trees_equal(after.params, state.params)
    assert_trees_equal(after.opt_state, state.opt_state)
    assert after.step == state.step + 1


def test_entropy_bonus_acts_without_reward():
    config = changed(
        RAW,
        env={"heldout_tasks": ("010101010101",), "horizon": 16},
        reinforce={"entropy_weight": 0.1},
    )
    state = init(config, jax.random.key(0), base_params())
    after, metrics = updater(config)(
        state, reinforce.Frozen(base=base_params(), metacontroller=None)
    )
    assert not metrics["informative"]
    assert metrics["grad_norm"] > 0
    head = after.params["action_head"]["kernel"]
    assert (head != state.params["action_head"]["kernel"]).any()


def test_frozen_parts_after_a_whole_run(runs):
    used = load_frozen(runs.internal.parent("discover"))
    assert_trees_equal(used.base, load_params(runs.base))
    assert_trees_equal(used.metacontroller, load_params(runs.meta))
    assert_trees_equal(load_base(runs.internal), load_params(runs.base))
    policy = load_params(runs.internal)
    assert jax.tree.structure(policy) == jax.tree.structure(policy_params())


def test_raw_action_starts_from_the_base_models_weights():
    state = reinforce.init(RAW.reinforce, models(RAW), jax.random.key(0), base_params())
    assert_trees_equal(state.params, base_params())
    for mine, callers in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(base_params()), strict=True
    ):
        assert mine is not callers  # the state is donated
