from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from agents.distributions import ActionSpec
from internal_rl.models.base_model import BaseModel, ObservationSpec
from internal_rl.models.networks import Network
from tests.internal_rl.small import SMOKE, assert_close, base_params, changed, noisy, normal, world

BATCH, TIME, DEPTH = 2, 9, 2
OBS = world().obs_spec.dim


@cache
def network(mixer: str, layer: int) -> Network:
    """The smoke base model, cut at `layer`."""
    cfg = changed(SMOKE, model={"mixer": mixer, "depth": DEPTH, "controlled_layer": layer}).model
    spec = world()

    def construct(rngs):
        return BaseModel(cfg, spec.obs_spec, spec.action_spec, max_len=TIME, rngs=rngs)

    shape = nnx.eval_shape(lambda: construct(nnx.Rngs(params=0)))
    return Network(construct, nnx.split(shape, nnx.Param)[0])


def cut_at(layer: int, params: dict) -> dict:
    """Weights of an uncut model (layer 0), dealt out to the two halves."""
    blocks = params["upper_stack"]["blocks"]
    halves = {
        "lower_stack": {"blocks": {i: blocks[i] for i in range(layer)}},
        "upper_stack": {"blocks": {i - layer: blocks[i] for i in range(layer, DEPTH)}},
    }
    halves = {name: half for name, half in halves.items() if half["blocks"]}
    return {k: v for k, v in params.items() if not k.endswith("_stack")} | halves


@cache
def whole(mixer: str) -> dict:
    return noisy(jax.jit(network(mixer, 0).init)(jax.random.key(0)))


def resets() -> jax.Array:
    return jnp.zeros((BATCH, TIME), bool).at[:, 0].set(True).at[0, 4].set(True)


@pytest.mark.parametrize("mixer", ["transformer", "hawk"])
def test_halves_and_steps_equal_the_whole_at_every_layer(mixer):
    obs, reset = normal(0, BATCH, TIME, OBS), resets()
    expected = jax.jit(lambda p: network(mixer, 0).bind(p)(obs, reset))(whole(mixer))

    for layer in range(DEPTH + 1):

        @jax.jit
        def both_ways(params, layer=layer):
            model = network(mixer, layer).bind(params)
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

        e, out, (step_e, step_action, step_observation) = both_ways(cut_at(layer, whole(mixer)))
        assert_close(out.action, expected.action)
        assert_close(out.observation, expected.observation)
        assert_close(step_e, e)
        assert_close(step_action, out.action)
        assert_close(step_observation, out.observation)
        if layer == 0:
            embed = whole(mixer)["embed"]
            by_hand = np.asarray(obs) @ np.asarray(embed["kernel"]) + np.asarray(embed["bias"])
            assert_close(e, by_hand)


@pytest.mark.parametrize("layer", [-1, 3])
def test_layer_outside_the_model(layer):
    cfg = changed(SMOKE, model={"controlled_layer": layer}).model
    with pytest.raises(ValueError, match=rf"controlled_layer = {layer}: must lie in 0..*= 0..2"):
        BaseModel(cfg, world().obs_spec, world().action_spec, max_len=4, rngs=nnx.Rngs(0))


def test_next_observation_is_one_categorical_per_factor():
    spec = world()
    sizes = spec.env.factor_sizes
    assert sum(sizes) == OBS
    model = network("transformer", 1).bind(cut_at(1, whole("transformer")))
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


def test_discrete_actions_are_a_softmax_of_the_head():
    model = network("transformer", 1).bind(cut_at(1, whole("transformer")))
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
    assert {"embed", "lower_stack", "upper_stack", "action_head"} <= base_params().keys()
