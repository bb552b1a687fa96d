import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.social.analytic import extortion_fit, joint_play, returns, zero_determinant

HIGH = 40.0
COOPERATE, DEFECT = (jnp.full((5,), x) for x in (HIGH, -HIGH))
TIT_FOR_TAT = HIGH * jnp.array([1.0, 1.0, -1.0, 1.0, -1.0])


@pytest.mark.parametrize(
    ("ego", "other", "expected"),
    [
        (COOPERATE, COOPERATE, (1, 1)),
        (DEFECT, DEFECT, (0, 0)),
        (DEFECT, COOPERATE, (2, -1)),
        (jnp.zeros(5), jnp.zeros(5), (0.5, 0.5)),
        (TIT_FOR_TAT, TIT_FOR_TAT, (1, 1)),
    ],
)
def test_known_pairs(ego, other, expected):
    np.testing.assert_allclose(returns(ego, other), expected, atol=1e-5)
    unnormalised = returns(ego, other, discount=0.9, normalised=False)
    np.testing.assert_allclose(unnormalised, 10 * np.array(expected), atol=1e-4)


def test_matrix_solution_is_the_long_rollout():
    with jax.enable_x64(True):
        ego, other = jax.random.normal(jax.random.key(0), (2, 5))
        p, q = jax.nn.sigmoid(ego), jax.nn.sigmoid(other)
        swap = [0, 1, 3, 2, 4]  # the other's naming
        joint = [
            np.array([p[s] * q[swap[s]], p[s] * (1 - q[swap[s]]), (1 - p[s]) * q[swap[s]]])
            for s in range(5)
        ]
        rows = np.array([[*x, 1 - x.sum()] for x in joint])
        state, total = rows[0], np.zeros(4)
        for t in range(2000):
            total += 0.05 * 0.95**t * state
            state = state @ rows[1:]
        np.testing.assert_allclose(joint_play(ego, other, 0.95), total, atol=1e-12)


def test_swapping_players_swaps_returns():
    a, b = jax.random.normal(jax.random.key(1), (2, 5))
    np.testing.assert_allclose(returns(a, b), returns(b, a)[::-1], atol=1e-6)


def test_zero_determinant():
    np.testing.assert_allclose(zero_determinant(3.0, 0.5 / 7), (6 / 7, 0.5, 2.5 / 7, 0), atol=1e-12)
    np.testing.assert_allclose(zero_determinant(1.0, 1 / 3), (1, 0, 1, 0), atol=1e-12)
    with jax.enable_x64(True):
        probs = np.clip(np.array([0.5, *zero_determinant(3.0, 0.5 / 7)]), 1e-12, 1)
        policy = jnp.log(probs) - jnp.log1p(-probs)
        nice = jnp.full((5,), 3.0)
        own, theirs = returns(policy, nice, discount=0.999999)
        assert float(own / theirs) == pytest.approx(3, abs=1e-3)
        # The spec's values, against a player that cooperates with probability 0.999.
        own, theirs = returns(policy, jnp.full((5,), np.log(999.0)), discount=0.999999)
        assert (float(own), float(theirs)) == pytest.approx((1.2844, 0.4281), abs=1e-4)
        chi, slope, error = extortion_fit(policy)
        assert (float(chi), float(slope)) == pytest.approx((3, 0.5 / 7), abs=1e-8)
        assert float(error) < 1e-15
        # A random policy is no extortion strategy.
        assert float(extortion_fit(jax.random.normal(jax.random.key(0), (5,)))[2]) > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"payoffs": (1.0, 2.0)}, r"payoffs has 2 entries; allowed: 4 \(CC, CD, DC, DD\)"),
        ({"payoffs": (1.0, -1.0, 2.0, 0.0, 5.0)}, r"payoffs has 5 entries; allowed: 4"),
        ({"discount": 1.0}, r"discount is 1.0; allowed: in \[0, 1\)"),
    ],
)
def test_games_that_have_no_returns(change, message):
    with pytest.raises(ValueError, match=message):
        returns(COOPERATE, DEFECT, **change)


def test_bad_input():
    with pytest.raises(ValueError, match=r"extortion is 0.5; allowed: at least 1"):
        zero_determinant(0.5, 0.1)
    with pytest.raises(ValueError, match=r"slope is 0.5; allowed"):
        zero_determinant(3.0, 0.5)
