import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.surrogates import ppo_clip, trajectory_advantage


def test_advantage_worked_out_by_hand():
    # mean 1/2, std 1/2
    advantage = trajectory_advantage(jnp.array([0.0, 0.0, 1.0, 1.0]), 0.1)
    np.testing.assert_allclose(advantage, np.array([-0.5, -0.5, 0.5, 0.5]) / 0.6, rtol=1e-6)


def test_advantage_is_zero_when_all_returns_are_equal():
    np.testing.assert_array_equal(trajectory_advantage(jnp.ones((5,)), 1e-3), np.zeros(5))
    np.testing.assert_array_equal(trajectory_advantage(jnp.zeros((5,)), 1e-3), np.zeros(5))


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "slope", "clipped"),
    [
        # The slope is d objective / d log π: ratio · A where not clipped, else 0.
        (1.5, 1.0, 1.2, 0.0, 1),  # gain limited
        (1.5, -1.0, -1.5, -1.5, 1),  # a loss is never limited
        (0.5, 1.0, 0.5, 0.5, 1),
        (0.5, -1.0, -0.8, 0.0, 1),
        (1.1, 2.0, 2.2, 2.2, 0),
        (0.9, -2.0, -1.8, -1.8, 0),
        (1.0, 3.0, 3.0, 3.0, 0),
    ],
)
def test_clipping_closed_forms(ratio, advantage, objective, slope, clipped):
    old, mask = jnp.array([[-2.0]]), jnp.array([[True]])

    def loss(log_prob):
        return ppo_clip(log_prob, old, jnp.array([[advantage]]), mask, 0.2)

    log_prob = old + np.float32(np.log(ratio))
    (value, metrics), grad = jax.value_and_grad(loss, has_aux=True)(log_prob)
    np.testing.assert_allclose(value, -objective, rtol=1e-5)
    np.testing.assert_allclose(grad[0, 0], -slope, rtol=1e-5, atol=1e-7)
    assert metrics["clip_fraction"] == clipped
    np.testing.assert_allclose(
        metrics["approx_kl"], ratio - 1 - np.log(ratio), rtol=1e-3, atol=1e-6
    )


def test_mean_runs_over_acted_steps_not_over_episodes():
    mask = jnp.array([[True, True, True], [True, False, False]])
    advantage = jnp.array([[1.0] * 3, [5.0] * 3])
    zero = jnp.zeros((2, 3))
    np.testing.assert_allclose(ppo_clip(zero, zero, advantage, mask, 0.2)[0], -8.0 / 4.0)


def test_gradient_is_reinforce_on_the_first_epoch():
    """-mean(A ∇ log π), by hand for a softmax: ∇ log π(a) = onehot(a) - π."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4, 5, 3))
    action = rng.integers(3, size=(4, 5))
    advantage = rng.standard_normal((4, 5))
    mask = rng.random((4, 5)) < 0.6

    def log_prob(logits):
        chosen = jax.nn.log_softmax(logits)
        return jnp.take_along_axis(chosen, jnp.asarray(action)[..., None], axis=-1)[..., 0]

    start = jnp.asarray(logits, jnp.float32)
    grad = jax.grad(
        lambda x: ppo_clip(
            log_prob(x),
            log_prob(start),
            jnp.asarray(advantage, jnp.float32),
            jnp.asarray(mask),
            0.2,
        )[0]
    )(start)
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    score = np.eye(3)[action] - probs
    expected = -(advantage * mask)[..., None] * score / mask.sum()
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)


def test_masked_steps_have_no_influence():
    rng = np.random.default_rng(0)
    log_prob, old, advantage = (
        jnp.asarray(rng.standard_normal((3, 4)), jnp.float32) for _ in range(3)
    )
    mask = jnp.asarray(rng.random((3, 4)) < 0.5)

    def loss(log_prob, old, advantage):
        return ppo_clip(log_prob, old, advantage, mask, 1e3)  # nothing is clipped

    run = jax.value_and_grad(loss, has_aux=True)
    (value, metrics), grad = run(log_prob, old, advantage)
    for bad in (1e4, -1e4, np.inf, np.nan):
        spoilt = jnp.where(mask, log_prob, bad)
        (other, other_metrics), other_grad = run(spoilt, old, jnp.where(mask, advantage, 99.0))
        assert value == other
        assert metrics == other_metrics
        np.testing.assert_array_equal(grad, other_grad)
    assert not np.asarray(grad)[~np.asarray(mask)].any()
    assert np.asarray(grad)[np.asarray(mask)].all()


def test_no_acted_step_at_all():
    zero = jnp.zeros((2, 3))
    loss, metrics = ppo_clip(zero, zero, zero + 1.0, jnp.zeros((2, 3), bool), 0.2)
    assert loss == 0.0
    assert metrics == {"approx_kl": 0.0, "clip_fraction": 0.0}
