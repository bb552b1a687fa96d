import jax
import jax.numpy as jnp
import numpy as np

from tests.internal_rl.small import (
    SMOKE,
    assert_close,
    bind_policy,
    changed,
    models,
    noisy,
    normal,
    policy_params,
)

BATCH, TIME, WIDTH = 4, 8, SMOKE.model.width


def test_time_advances_only_where_the_policy_acts():
    """All abstract steps at once equal one step after the other, whatever lies between them."""
    e = normal(0, BATCH, TIME, WIDTH)
    acts = np.random.default_rng(1).random((BATCH, TIME)) < 0.5
    acts[:, 0] = True
    acts[1] = True  # everywhere
    acts[2, 1:] = False  # only once
    params = noisy(policy_params(), seed=5)
    mean, log_std = jax.jit(lambda p, m: bind_policy(p)(e, m))(params, jnp.asarray(acts))
    step = jax.jit(lambda p, e, carry: bind_policy(p).step(e, carry))
    for row in range(BATCH):
        carry = bind_policy(params).init_carry(1)
        for t in np.flatnonzero(acts[row]):
            carry, (step_mean, step_log_std) = step(params, e[row, t][None], carry)
            assert_close(mean[row, t], step_mean[0])
            assert_close(log_std[row, t], step_log_std[0])
    # What it saw at earlier abstract steps matters.
    fresh = bind_policy(params).init_carry(1)
    _, (forgetful, _) = step(params, e[1, -1][None], fresh)
    assert np.abs(np.asarray(mean[1, -1] - forgetful[0])).max() > 1e-3


def test_training_starts_from_the_prior_of_the_codes():
    for std in (1.0, 0.5):
        config = changed(SMOKE, reinforce={"initial_std": std})
        network = models(config).policy
        params = jax.jit(network.init)(jax.random.key(3))
        mean, log_std = jax.jit(
            lambda p, n=network: n.bind(p)(
                normal(0, BATCH, TIME, WIDTH), jnp.ones((BATCH, TIME), bool)
            )
        )(params)
        np.testing.assert_allclose(mean, 0.0, atol=0.05)
        np.testing.assert_allclose(log_std, np.log(std), atol=0.05)
        assert np.asarray(
            mean
        ).any()  # nearly, not exactly: else every gradient but the head's is 0
