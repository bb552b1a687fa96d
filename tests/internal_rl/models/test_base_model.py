from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from envs.world import ActionSpec, ObservationSpec
from internal_rl import build
from internal_rl.config import DiscoverConfig
from internal_rl.errors import UserError
from internal_rl.models.base_model import BaseModel, ResidualNetwork, residual_network
from tests.internal_rl.small import SMOKE, assert_close, base_params, changed, noisy, normal, world

BATCH, TIME, DEPTH = 2, 9, 2
OBS = world().obs_spec.dim


@cache
def network(mixer: str) -> ResidualNetwork:
    """The smoke base model."""
    cfg = changed(SMOKE, model={"mixer": mixer, "depth": DEPTH}).model
    return residual_network(cfg, world().obs_spec, world().action_spec, TIME)


@cache
def whole(mixer: str) -> dict:
    return noisy(jax.jit(network(mixer).init)(jax.random.key(0)))


def after_blocks(mixer: str, count: int, obs: jax.Array, reset: jax.Array) -> jax.Array:
    """Residual stream of a model that has the first `count` blocks and no others, so that nothing is cut."""
    cfg = changed(SMOKE, model={"mixer": mixer, "depth": count}).model
    blocks = whole(mixer)["stack"]["blocks"]
    params = whole(mixer) | {"stack": {"blocks": {i: blocks[i] for i in range(count)}}}
    net = residual_network(cfg, world().obs_spec, world().action_spec, TIME).network

    @jax.jit
    def run(params):
        model = net.bind(params)
        return model.stack(model.embed(obs), None, reset)[1]

    return run(params)


def resets() -> jax.Array:
    return jnp.zeros((BATCH, TIME), bool).at[:, 0].set(True).at[0, 4].set(True)


@pytest.mark.parametrize("mixer", ["transformer", "hawk"])
def test_halves_and_steps_equal_the_whole_at_every_layer(mixer):
    obs, reset = normal(0, BATCH, TIME, OBS), resets()
    expected = jax.jit(lambda p: network(mixer).bind(p, 0)(obs, reset))(whole(mixer))

    for layer in range(DEPTH + 1):

        @jax.jit
        def both_ways(params, layer=layer):
            model = network(mixer).bind(params, layer)
            _, e = model.lower(obs, None, reset)
            _, out = model.upper(e, None, reset)

            def step(carry, inputs):
                lower, upper = carry
                obs_t, reset_t = inputs
                lower, e_t = model.lower_step(obs_t, lower, reset_t)
                upper, out_t = model.upper_step(e_t, upper, reset_t)
                return (lower, upper), (e_t, out_t.action, out_t.observation)

            inputs = (jnp.swapaxes(obs, 0, 1), reset.T)
            _, stepped = jax.lax.scan(step, model.init_carry(BATCH), inputs)
            return e, out, [jnp.swapaxes(x, 0, 1) for x in stepped]

        e, out, (step_e, step_action, step_observation) = both_ways(whole(mixer))
        assert_close(out.action, expected.action)
        assert_close(out.observation, expected.observation)
        assert_close(step_e, e)
        assert_close(step_action, out.action)
        assert_close(step_observation, out.observation)
        if layer == 0:
            embed = whole(mixer)["embed"]
            by_hand = np.asarray(obs) @ np.asarray(embed["kernel"]) + np.asarray(embed["bias"])
            assert_close(e, by_hand)
        else:  # the cut is where it should be, not only harmless
            assert_close(e, after_blocks(mixer, layer, obs, reset))


@pytest.mark.parametrize("layer", [-2, 3])
def test_layer_outside_the_model(layer):
    cfg = changed(SMOKE, discover={"controlled_layer": layer}).discover
    with pytest.raises(UserError, match=rf"controlled_layer is {layer}; allowed: 0 to .*\(2\)"):
        build.cut(cfg, network("transformer"))


def test_the_middle_is_the_usual_cut():
    assert DiscoverConfig().controlled_layer == -1
    assert build.cut(DiscoverConfig(), network("transformer")) == 1
    deeper = changed(SMOKE, model={"depth": 5}).model
    assert build.cut(DiscoverConfig(), build.base_network(deeper, world())) == 2


def test_next_observation_is_one_categorical_per_factor():
    spec = world()
    sizes = spec.env.factor_sizes
    assert sum(sizes) == OBS
    model = network("transformer").bind(whole("transformer"), 1)
    rng = np.random.default_rng(0)
    cells = [rng.permutation(16)[:6] for _ in range(BATCH)]
    nothing = [
        jnp.asarray(np.stack([c[part] for c in cells]), jnp.int32)
        for part in (slice(0, 4), slice(4, 5), 5)
    ]
    next_obs = np.asarray(spec.env.observe(*nothing))
    logits = rng.standard_normal((BATCH, OBS))
    expected = np.zeros(BATCH)
    for row in range(BATCH):
        start = 0
        for size in sizes:
            block = slice(start, start + size)
            assert next_obs[row, block].sum() == 1
            weights = np.exp(logits[row, block])
            expected[row] += np.log(weights[next_obs[row, block].argmax()] / weights.sum())
            start += size
    out = model._heads(normal(1, BATCH, SMOKE.model.width)).replace(observation=jnp.float32(logits))
    assert_close(model.observation_log_prob(out, jnp.asarray(next_obs)), expected)


def test_real_valued_actions_and_observations():
    """Gaussians: a learned diagonal deviation for actions, unit variance for observations."""
    model = BaseModel(
        SMOKE.model,
        ObservationSpec(dim=5),
        ActionSpec(dim=3),
        max_len=TIME,
        rngs=nnx.Rngs(0),
    )
    log_std = np.array([-1.0, 0.3, 0.8], np.float32)
    model.action_log_std[...] = jnp.asarray(log_std)
    obs, action, next_obs = (
        normal(0, BATCH, 4, 5),
        normal(1, BATCH, 4, 3),
        normal(2, BATCH, 4, 5),
    )
    graph, params = nnx.split(model, nnx.Param)

    @jax.jit
    def run(params):
        model = nnx.merge(graph, params)
        out = model(obs)
        distribution = model.action_distribution(out)
        return out, distribution.log_prob(action), model.observation_log_prob(out, next_obs)

    out, action_log_prob, obs_log_prob = run(params)
    assert out.action.shape == (BATCH, 4, 3)
    assert_close(action_log_prob, stats.norm.logpdf(action, out.action, np.exp(log_std)).sum(-1))
    assert_close(obs_log_prob, stats.norm.logpdf(next_obs, out.observation, 1.0).sum(-1))
    # The deviation is learned: d log p / d log σ = ((a - μ)/σ)² - 1.
    grad = jax.jit(jax.grad(lambda p: run(p)[1].sum()))(params)
    z = (np.asarray(action) - np.asarray(out.action)) / np.exp(log_std)
    assert_close(grad["action_log_std"][...], (z**2 - 1).sum((0, 1)), rtol=1e-3)


def test_other_bounds_and_units():
    """Heads work in units in which bounds are ±1 and observations have mean 0 and deviation 1."""
    spec, action_spec = ObservationSpec(dim=3), ActionSpec(dim=2, low=2.0, high=6.0)
    net = residual_network(changed(SMOKE, model={"depth": 1}).model, spec, action_spec, TIME)
    mean, std = (1.0, -20.0, 300.0), (2.0, 0.5, 40.0)
    params = net.with_statistics(noisy(jax.jit(net.init)(jax.random.key(0))), mean, std)
    scaled, scaled_next, action = (
        normal(0, BATCH, 4, 3),
        normal(1, BATCH, 4, 3),
        normal(2, BATCH, 4, 2),
    )
    obs, next_obs = (x * jnp.array([[std]]) + jnp.array([[mean]]) for x in (scaled, scaled_next))

    @jax.jit
    def run(params):
        model = net.bind(params, 0)
        _, e = model.lower(obs)
        _, out = model.upper(e)
        log_prob = model.action_distribution(out).log_prob(action)
        return e, out, log_prob, model.observation_log_prob(out, next_obs)

    e, out, action_log_prob, obs_log_prob = run(params)
    embed = jax.tree.map(np.asarray, params["embed"])
    by_hand = np.asarray(scaled) @ embed["kernel"] + embed["bias"]
    np.testing.assert_allclose(e, by_hand, rtol=1e-3, atol=1e-4)
    std_of_actions = 2.0 * np.exp(np.asarray(params["action_log_std"]))
    expected = stats.norm.logpdf(action, 4.0 + 2.0 * np.asarray(out.action), std_of_actions)
    assert_close(action_log_prob, expected.sum(-1))
    expected = stats.norm.logpdf(scaled_next, out.observation, 1.0).sum(-1)
    np.testing.assert_allclose(obs_log_prob, expected, rtol=1e-3, atol=1e-3)
    # Training leaves the units alone.
    grads = jax.jit(jax.grad(lambda p: run(p)[2].sum() + run(p)[3].sum()))(params)
    for name in ("obs_mean", "obs_std"):
        assert not np.asarray(grads[name]).any()


def test_tokens():
    spec, net_of = ObservationSpec(num_tokens=7), changed(SMOKE, model={"depth": 1}).model
    net = residual_network(net_of, spec, ActionSpec(num_actions=3), TIME)
    params = noisy(jax.jit(net.init)(jax.random.key(0)))
    obs, next_obs = jnp.array([[0, 6, 3]], jnp.int32), jnp.array([[6, 3, 1]], jnp.int32)

    @jax.jit
    def run(params):
        model = net.bind(params, 0)
        _, e = model.lower(obs)
        _, out = model.upper(e)
        return e, out, model.observation_log_prob(out, next_obs)

    e, out, log_prob = run(params)
    embed = jax.tree.map(np.asarray, params["embed"])
    assert_close(e, embed["kernel"][np.asarray(obs)] + embed["bias"])
    weights = np.exp(np.asarray(out.observation, np.float64))
    assert weights.shape == (1, 3, 7)
    chosen = np.take_along_axis(weights, np.asarray(next_obs)[..., None], -1)[..., 0]
    assert_close(log_prob, np.log(chosen / weights.sum(-1)))


def test_discrete_actions_are_a_softmax_of_the_head():
    model = network("transformer").bind(whole("transformer"), 1)
    out = model._heads(normal(3, BATCH, TIME, SMOKE.model.width))
    probs = np.exp(np.asarray(out.action, np.float64))
    probs /= probs.sum(-1, keepdims=True)
    for a in range(4):
        chosen = jnp.full((BATCH, TIME), a)
        log_prob = model.action_distribution(out).log_prob(chosen)
        assert_close(log_prob, np.log(probs[..., a]))


def test_parameters_are_plain_dicts():
    leaves = jax.tree.leaves(base_params())
    assert all(isinstance(x, jax.Array) for x in leaves)
    assert {"embed", "stack", "action_head"} <= base_params().keys()
