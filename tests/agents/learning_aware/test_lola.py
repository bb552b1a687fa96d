from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware.lola import LolaSettings, lola_dice_gradient
from agents.learning_aware.policies import tabular
from envs.social.matrix import IteratedMatrixGame

GAME = IteratedMatrixGame(episode_length=2)
POLICY = tabular(5, 2)
PAYOFF = jnp.array([1.0, -1.0, 2.0, 0.0])
SWAP = jnp.array([0, 2, 1, 3])


def exact_return(ego, other, player, discount):
    """Two rounds, by hand."""
    p, q = jax.nn.sigmoid(ego), jax.nn.sigmoid(other)
    joint = lambda a, b: jnp.stack([a * b, a * (1 - b), (1 - a) * b, (1 - a) * (1 - b)])  # noqa: E731
    payoff = PAYOFF if player == 0 else PAYOFF[SWAP]
    first = joint(p[0], q[0])
    second = jnp.stack([joint(p[1 + s], q[1 + SWAP[s]]) for s in range(4)])
    return first @ payoff + discount * (first @ (second @ payoff))


@pytest.mark.parametrize("baseline", [False, True])
def test_large_batches_give_the_exact_look_ahead_gradient(baseline):
    cfg = LolaSettings(look_aheads=1, rate=8.0, batch=60_000, discount=0.9, baseline=baseline)
    ego, other = jax.random.normal(jax.random.key(0), (2, 5))

    def exact(x):
        step = jax.grad(lambda y: exact_return(x, y, 1, 0.9))(other)
        return exact_return(x, other + 8.0 * step, 0, 0.9)

    as_params = lambda x: {"logits": x[:, None]}  # noqa: E731
    found = jax.jit(
        lambda key: lola_dice_gradient(
            key, GAME, (POLICY, POLICY), as_params(ego), as_params(other), cfg
        )
    )(jax.random.key(1))["logits"][:, 0]
    expected = jax.grad(exact)(ego)
    plain = jax.grad(lambda x: exact_return(x, other, 0, 0.9))(ego)
    assert np.linalg.norm(expected - plain) > 0.1
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_bad_settings():
    params = POLICY.init(jax.random.key(0))
    for change, message in (
        ({"look_aheads": -1}, r"look_aheads is -1; allowed: at least 0"),
        ({"batch": 0}, r"batch is 0; allowed: at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            lola_dice_gradient(
                jax.random.key(0),
                GAME,
                (POLICY, POLICY),
                params,
                params,
                replace(LolaSettings(), **change),
            )
