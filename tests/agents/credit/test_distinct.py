"""Equal inputs of a batch are evaluated once, with the results of evaluating each."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.credit import CreditConfig, WorldSpec, hindsight, make_model
from agents.credit.distinct import Separable, distinct_value_and_grad, evaluate_distinct
from agents.credit.features import features_init
from tests.agents.credit.paths import trajectory

PARAMS = jnp.array([0.3, -1.2, 0.7])


def network(params, inputs):
    return jnp.tanh(inputs["x"] * params) + inputs["y"]


def batch(picks):
    x = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    y = np.array(picks, np.float32)[:, None] % 2
    return {"x": jnp.asarray(x[np.array(picks)]), "y": jnp.asarray(y)}


CALLS = []


def counted(function):
    def call(*args):
        jax.debug.callback(lambda: CALLS.append(1))
        return function(*args)

    return call


def calls_of(function, *args):
    """What a function returns, and how often it called what is `counted`."""
    CALLS.clear()
    found = jax.block_until_ready(function(*args))
    jax.effects_barrier()
    return found, len(CALLS)


# Compiled once for all examples.
of_each = jax.jit(jax.vmap(network, (None, 0)))
of_distinct = jax.jit(jax.vmap(evaluate_distinct(counted(network)), (None, 0)))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=5, max_size=5))
def test_each_distinct_input_once(picks):
    inputs = batch(picks)
    found, calls = calls_of(of_distinct, PARAMS, inputs)
    assert calls == len(set(picks))
    np.testing.assert_allclose(found, of_each(PARAMS, inputs), rtol=1e-6)


def loss(params, inputs, weights):
    y = network(params, inputs)
    return jnp.sum(weights["w"] * y**2) + weights["b"] * y[0]


def sum_and_grad(loss):
    """Value and gradient of the sum, over a batch that is not shared."""
    return jax.jit(jax.value_and_grad(lambda p, x, w: jax.vmap(loss, (None, 0, 0))(p, x, w).sum()))


loss_of_each = sum_and_grad(loss)
loss_of_distinct = jax.jit(partial(distinct_value_and_grad, loss))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=4, max_size=4), st.integers(0, 1000))
def test_gradient_is_that_of_the_sum(picks, seed):
    inputs = batch(picks)
    rng = np.random.default_rng(seed)
    weights = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), "b": jnp.arange(4.0)}
    value, gradient = loss_of_distinct(PARAMS, inputs, weights)
    expected, slope = loss_of_each(PARAMS, inputs, weights)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5)


def test_several_parameters_and_several_vmaps():
    inputs, many = batch([0, 1, 0]), jnp.stack([PARAMS, 2 * PARAMS, -PARAMS])
    once = evaluate_distinct(network)
    each = jax.vmap(once)(many, inputs)
    np.testing.assert_allclose(each, jax.vmap(network)(many, inputs), rtol=1e-6)
    of_one = lambda f: jax.vmap(jax.vmap(f, (None, 0)), (0, None))(many, inputs)  # noqa: E731
    np.testing.assert_allclose(of_one(once), of_one(network), rtol=1e-6)


SEPARABLE = Separable((None, 0), 1)


def of_outcomes(params, inputs):
    """[T, K, A] of observations [T, 3] and outcomes [K, 3]."""
    obs, outcomes = inputs
    return jnp.tanh(obs[:, None] * params[None, None] + outcomes[None])[..., :2]


def loss_of_outcomes(params, inputs, weights):
    return jnp.sum(weights * of_outcomes(params, inputs))


outcomes_of_each = jax.jit(jax.vmap(of_outcomes, (None, 0)))
distinct_outcomes = jax.jit(jax.vmap(evaluate_distinct(counted(of_outcomes), SEPARABLE), (None, 0)))
outcome_losses_of_each = sum_and_grad(loss_of_outcomes)
distinct_outcome_losses = jax.jit(
    partial(distinct_value_and_grad, loss_of_outcomes, separable=SEPARABLE)
)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(0, 1), min_size=4, max_size=4),
    st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=4, max_size=4),
)
def test_each_distinct_outcome_once(shown, coded):
    rng = np.random.default_rng(0)
    obs = jnp.asarray(rng.normal(size=(2, 5, 3))[np.array(shown)], jnp.float32)
    codes = jnp.asarray(rng.normal(size=(4, 3))[np.array(coded)], jnp.float32)
    weights = jnp.asarray(rng.normal(size=(4, 5, 3, 2)), jnp.float32)
    found, calls = calls_of(distinct_outcomes, PARAMS, (obs, codes))
    assert calls == len({(s, c) for s, row in zip(shown, coded, strict=True) for c in row})
    np.testing.assert_allclose(found, outcomes_of_each(PARAMS, (obs, codes)), rtol=1e-6)
    ours = distinct_outcome_losses(PARAMS, (obs, codes), weights)
    expected = outcome_losses_of_each(PARAMS, (obs, codes), weights)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_seeds_with_batches_of_their_own():
    """Vmapped, each has as many distinct outcomes as it has."""
    rng = np.random.default_rng(0)
    obs = jnp.asarray(rng.normal(size=(2, 5, 3)), jnp.float32)[np.array([[0, 0, 1], [0, 0, 0]])]
    codes = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    codes = codes[np.array([[[0, 1], [2, 3], [1, 0]], [[2, 2], [2, 2], [2, 2]]])]
    many = jnp.stack([PARAMS, -PARAMS])
    seeds = lambda f: jax.jit(jax.vmap(jax.vmap(f, (None, 0))))(many, (obs, codes))  # noqa: E731
    found = seeds(evaluate_distinct(of_outcomes, SEPARABLE))
    np.testing.assert_allclose(found, seeds(of_outcomes), rtol=1e-6)


@pytest.mark.parametrize("method", ["hca", "hca_plus"])
def test_masked_hca_evaluates_the_states_that_pay(monkeypatch, method):
    monkeypatch.setattr(hindsight, "hypernetwork", counted(hindsight.hypernetwork))
    config = CreditConfig(method=method, hindsight_width=8, value_width=8)
    model = make_model(config, WorldSpec(obs_dim=4, num_actions=3, reward_values=(0.0, 1.0, 2.0)))
    # Episodes 0 and 2 show the same states, of which they are paid in the second and fourth, and the second.
    together = episodes([[0, 1, 0, 2, 0], [1, 0, 0, 0, 1], [0, 2, 0, 0, 0]])
    state = model.init(jax.random.key(0))
    table = lambda t: model.table(state, t, jax.random.key(2))  # noqa: E731
    assert calls_of(jax.jit(jax.vmap(table)), together)[1] == 2 + 2
    learn = jax.jit(lambda batch: model.update(state, batch, log_policy, jax.random.key(1)))
    assert learn(together)[1]["outcomes"] == pytest.approx(5 / 3)


def test_numbers_that_are_none_end_the_loop():
    inputs = batch([0, 1, 1])
    inputs["x"] = inputs["x"].at[1].set(jnp.nan)
    found = np.asarray(jax.vmap(evaluate_distinct(network), (None, 0))(PARAMS, inputs))
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("cocoa_reward", {}),
        ("cocoa_reward", {"hindsight_loss": "contrastive"}),
        ("cocoa_feature", {}),
        ("hca_plus", {}),
        ("hca_plus", {"mask_zero_reward": False}),
        ("hca", {}),
        ("hca_return", {}),
        ("advantage", {}),
        ("q_critic", {}),
        ("trajectory_cv", {"q_bootstrap": "expected"}),
    ],
)
def test_shared_observations_give_the_same_model(monkeypatch, method, settings):
    """Four episodes of two observation sequences, with their own actions and rewards: on the CPU they are
    added up before the networks see them, elsewhere each is evaluated."""
    config = CreditConfig(method=method, hindsight_width=8, value_width=8, **settings)
    spec = WorldSpec(obs_dim=4, num_actions=3, reward_values=(0.0, 1.0, 2.0))
    together = episodes([[0, 1, 0, 2, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 2], [0, 2, 0, 1, 0]])
    blank = features_init(jax.random.key(3), "gate", 4, 3, config.features.width)

    def learn():
        model = make_model(config, spec, None, blank)
        state, metrics = model.update(
            model.init(jax.random.key(0)), together, log_policy, jax.random.key(1)
        )
        tables = jax.vmap(lambda t: model.table(state, t, jax.random.key(2)))(together)
        return {"state": state, "metrics": metrics, "tables": tables}

    # Functions of their own, or the second would be the first one's program.
    shared = jax.jit(lambda: learn())()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    each = jax.jit(lambda: learn())()
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(shared), jax.tree.leaves(each), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5, err_msg=name)


def episodes(rewards):
    """Trajectories of which the even ones show the same observations, and the odd ones."""
    own = [trajectory(np.array(r, np.float32), seed=i) for i, r in enumerate(rewards)]
    shown = [own[i % 2] for i in range(len(own))]
    return jax.tree.map(
        lambda *x: jnp.stack(x),
        *(
            t.replace(obs=other.obs, log_policy=other.log_policy)
            for t, other in zip(own, shown, strict=True)
        ),
    )


def log_policy(obs):
    return jax.nn.log_softmax(obs[..., :3], axis=-1)


@pytest.mark.parametrize("method", ["advantage", "q_critic max", "q_critic expected"])
def test_losses_of_values_by_hand(method):
    """λ = 0: the squared error to r + v(s'), nothing following on the last step, averaged."""
    method, _, bootstrap = method.partition(" ")
    config = CreditConfig(method=method, value_width=8, trace=0.0, q_bootstrap=bootstrap or "max")
    spec = WorldSpec(obs_dim=4, num_actions=3, reward_values=(0.0, 1.0, 2.0))
    model = make_model(config, spec)
    together = episodes([[0, 1, 0, 2, 1], [0, 0, 1, 0, 0], [1, 1, 0, 0, 2]])
    state = model.init(jax.random.key(0))
    _, metrics = model.update(state, together, log_policy, jax.random.key(1))
    first, last = jax.tree.map(np.asarray, state[0])
    together = jax.tree.map(np.asarray, together)
    hidden = np.maximum(together.obs @ first["w"] + first["b"], 0.0)
    y = hidden @ last["w"] + last["b"]
    if method == "advantage":
        following, own, factor = y[..., 0], y[:, :-1, 0], 1.0
    else:
        pi = np.asarray(jnp.exp(log_policy(together.obs)))
        following = y.max(-1) if bootstrap == "max" else (pi * y).sum(-1)
        own = np.take_along_axis(y[:, :-1], together.action[..., None], -1)[..., 0]
        factor = 0.5
    target = together.reward + np.where(together.terminated, 0.0, following[:, 1:])
    expected = factor * np.mean((own - target) ** 2)
    np.testing.assert_allclose(metrics["model_loss"], expected, rtol=1e-4)
