from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.learning_aware import analytic
from agents.learning_aware.analytic import AnalyticSettings
from agents.learning_aware.optim import Optimizer

CFG = AnalyticSettings(naive_updates=3, naive_starts=2)


def policies(seed=0):
    return jax.random.normal(jax.random.key(seed), (2, 5))


@pytest.fixture
def _float64():
    with jax.enable_x64(True):
        yield


def differences(f, x, h=1e-5):
    return np.array([(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(5)])


@pytest.mark.usefixtures("_float64")
def test_naive_step_is_gradient_ascent():
    ego, other = policies()
    game = analytic.game_returns(CFG)
    moved = analytic.naive_step(ego, other, CFG, 5.0) - other
    expected = 5.0 * differences(lambda x: float(game(ego, jnp.asarray(x))[1]), np.asarray(other))
    np.testing.assert_allclose(moved, expected, atol=1e-8)


@pytest.mark.usefixtures("_float64")
def test_meta_gradients_see_the_updates():
    """Shaping and LOLA-DiCE against finite differences through the co-player's updates."""
    ego, other = policies(1)
    for objective in (
        lambda x: analytic.shaping_objective(x, other, CFG)[0],
        lambda x: analytic.look_ahead_objective(x, other, replace(CFG, look_aheads=2)),
    ):
        compiled = jax.jit(objective)
        found = jax.jit(jax.grad(objective))(ego)
        np.testing.assert_allclose(
            found,
            differences(lambda x, f=compiled: float(f(jnp.asarray(x))), np.asarray(ego)),
            atol=1e-7,
        )


@pytest.mark.usefixtures("_float64")
def test_lola_is_the_first_order_look_ahead():
    """The two differ by terms of order α²."""
    ego, other = policies(2)
    errors = []
    for rate in (1e-2, 1e-3):
        cfg = replace(CFG, naive_rate=rate, look_aheads=1)
        exact = jax.grad(analytic.look_ahead_objective)(ego, other, cfg)
        plain = jax.grad(lambda x: analytic.game_returns(CFG)(x, other)[0])(ego)
        taylor = analytic.lola_gradient(ego, other, cfg)
        assert np.linalg.norm(exact - plain) > 1e-5
        # To first order in α the look-ahead also re-evaluates ∇_1 J¹ at the moved point.
        game = analytic.game_returns(CFG)
        moved = analytic.naive_step(ego, other, cfg, rate)
        shift = jax.grad(lambda x: game(x, moved)[0])(ego) - plain  # noqa: B023
        errors.append(float(np.linalg.norm(exact - shift - taylor)))
    assert errors[1] < errors[0] / 50


@pytest.mark.parametrize(
    ("rule", "look_aheads", "weight"),
    [("lola_dice", 1, 1.0), ("lola_dice", 3, 0.6), ("lola", 1, 0.4)],
)
@pytest.mark.usefixtures("_float64")
def test_a_lola_learner_steps_along_its_rules_gradient(rule, look_aheads, weight):
    """One update of both agents (Figs. 4A, 4C), against the look-aheads written out and the plain gradient's share."""
    cfg = replace(CFG, rule=rule, look_aheads=look_aheads, lola_weight=weight)
    cfg = replace(cfg, optimizer=Optimizer("sgd", 1.0))
    params = policies(3)
    state = replace(analytic.init(cfg, jax.random.key(0)), params=params)
    after, _ = jax.jit(analytic.make_update(cfg))(state)

    def looking_ahead(ego, other):
        for _ in range(look_aheads):
            other = analytic.naive_step(ego, other, cfg, cfg.naive_rate)
        return analytic.game_returns(cfg)(ego, other)[0]

    @jax.jit
    def gradients(ego, other):
        taylor = analytic.lola_gradient(ego, other, cfg)
        shaped = taylor if rule == "lola" else jax.grad(looking_ahead)(ego, other)
        return shaped, jax.grad(lambda x: analytic.game_returns(cfg)(x, other)[0])(ego)

    for i in range(2):
        shaped, plain = gradients(params[i], params[1 - i])
        assert np.max(np.abs(shaped - plain)) > 1e-2
        np.testing.assert_allclose(
            after.params[i] - params[i], weight * shaped + (1 - weight) * plain, atol=1e-9
        )


@pytest.mark.usefixtures("_float64")
def test_at_mutual_defection_only_forgiveness_pays():
    """In probability space with projection, the mixed pool's gradient at defection is nonzero only for DC."""
    probs = jnp.full((5,), 1e-7)
    defector = jnp.log(probs) - jnp.log1p(-probs)

    def mixed(probs):
        logits = jnp.log(probs) - jnp.log1p(-probs)
        shaped, _ = analytic.shaping_objective(logits, jnp.zeros(5), CFG)
        return 0.5 * shaped + 0.5 * analytic.game_returns(CFG)(logits, defector)[0]

    gradient = np.asarray(jax.jit(jax.grad(mixed))(probs))
    assert gradient[3] > 0.1
    np.testing.assert_array_less(gradient[[0, 4]], 0)  # projected away
    np.testing.assert_allclose(gradient[[1, 2]], 0, atol=1e-5)  # states that nobody visits


def test_plain_gradients_end_in_defection_and_shaping_does_not():
    fast = Optimizer("adamw", 0.05)
    plain = replace(CFG, rule="naive", optimizer=fast)
    extort = replace(
        CFG, num_meta=1, p_naive=1.0, naive_updates=20, start="defection", optimizer=fast
    )
    assert run(plain, 150)["meta/reward"] < 0.05
    assert run(extort, 150)["naive/ego_reward"] > 0.7


def test_shaping_helps_both_where_interests_agree():
    """Both are paid the same, and mutual defection is the poorer of two equilibria."""
    common = replace(
        CFG,
        payoffs=(1.0, 0.0, 0.0, 0.3),
        num_meta=1,
        p_naive=1.0,
        naive_updates=20,
        start="defection",
        optimizer=Optimizer("adamw", 0.05),
    )
    update = analytic.make_update(common)
    first = analytic.init(common, jax.random.key(0))
    last, _ = jax.jit(lambda s: jax.lax.scan(lambda s, _: update(s), s, None, 150))(first)
    fresh = jax.random.normal(jax.random.key(7), (5,))
    curve = jax.jit(lambda ego: analytic.learning_curve(ego, fresh, common, 20))
    before, after = curve(first.params[0]), curve(last.params[0])
    np.testing.assert_allclose(after[0], after[1], atol=1e-5)
    assert float(before[1][-1]) < 0.35
    assert float(after[1][-1]) > 0.9


def run(cfg, steps):
    update = analytic.make_update(cfg)
    state = analytic.init(cfg, jax.random.key(0))
    _, metrics = jax.jit(lambda s: jax.lax.scan(lambda s, _: update(s), s, None, steps))(state)
    return {name: float(value[-1]) for name, value in metrics.items()}


@pytest.mark.usefixtures("_float64")
def test_probabilities_are_ascended_and_projected():
    """One step of size 0.5 along ∂J/∂P(C), against automatic differentiation in probabilities."""
    cfg = replace(CFG, rule="naive", space="probabilities", optimizer=Optimizer("sgd", 0.5))
    game = analytic.game_returns(cfg)
    logit = lambda p: jnp.log(p) - jnp.log1p(-p)  # noqa: E731
    start = analytic.init(cfg, jax.random.key(0))
    params = start.params.astype(jnp.float64).at[0, 4].set(-9.0)  # below the margin
    after, _ = jax.jit(analytic.make_update(cfg))(replace(start, params=params))
    probs = jax.nn.sigmoid(params)
    for i in range(2):
        slope = jax.grad(lambda p, i=i: game(logit(p), params[1 - i])[0])(probs[i])
        expected = np.clip(probs[i] + 0.5 * slope, analytic.MARGIN, 1 - analytic.MARGIN)
        np.testing.assert_allclose(jax.nn.sigmoid(after.params[i]), expected, atol=1e-9)
    assert float(jax.nn.sigmoid(after.params[0, 4])) == pytest.approx(analytic.MARGIN)


def test_projected_pools_leave_mutual_defection():
    """Fig. 9: with logits the start's runs away, and the metas never meet again in cooperation."""
    cfg = AnalyticSettings(
        p_naive=0.1, naive_starts=4, start="defection", optimizer=Optimizer("adamw", 0.02)
    )
    assert run(replace(cfg, space="probabilities"), 120)["meta/reward"] > 0.8
    assert run(cfg, 120)["meta/reward"] < 0.1


def test_naive_learners_start_around_their_mean():
    cfg = replace(CFG, naive_start_mean=analytic.DEFECTION_LOGIT, naive_start_std=0.1)
    starts = np.asarray(analytic.naive_start(jax.random.key(0), cfg, 1000))
    np.testing.assert_allclose(starts.mean(0), np.log(0.01), atol=0.02)
    np.testing.assert_allclose(starts.std(0), 0.1, atol=0.01)


def test_tit_for_tat_meets_itself_in_cooperation_and_repays_defection():
    cfg = replace(CFG, start="tit_for_tat")
    params = analytic.init(cfg, jax.random.key(0)).params
    # Own action first: after CC and DC, in which the other cooperated, it cooperates.
    expected = [[1, 1, 0, 1, 0]] * 2
    np.testing.assert_allclose(jax.nn.sigmoid(params), expected, atol=0.01)
    np.testing.assert_array_equal(params > 0, expected)
    # A defector gets the 2 of the first round only: (1 − γ) · 2, but for the 1 % of slips.
    defector = jnp.full((5,), -30.0)
    _, gained = analytic.game_returns(cfg)(params[0], defector)
    assert float(gained) == pytest.approx(0.1, abs=0.03)


def test_warm_up_changes_the_mixture():
    cfg = replace(CFG, naive_only_steps=1, p_naive=0.0)
    update = jax.jit(analytic.make_update(cfg))
    first, _ = update(analytic.init(cfg, jax.random.key(0)))
    shaped_only = jax.jit(analytic.make_update(replace(cfg, naive_only_steps=0, p_naive=1.0)))
    expected, _ = shaped_only(analytic.init(cfg, jax.random.key(0)))
    np.testing.assert_allclose(first.params, expected.params, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "coala"}, "rule is 'coala'; allowed: shaping, lola_dice, lola, naive"),
        ({"start": "nice"}, "start is 'nice'"),
        ({"space": "odds"}, "space is 'odds'; allowed: logits, probabilities"),
        ({"p_naive": 1.5}, r"p_naive is 1.5; allowed: in \[0, 1\]"),
        ({"discount": 1.0}, r"discount is 1.0; allowed: in \[0, 1\)"),
        ({"num_meta": 1}, "p_naive is 0.25 with one meta agent"),
        ({"rule": "lola", "num_meta": 3}, "num_meta is 3 with rule lola; allowed: 2"),
        ({"payoffs": (1.0, 2.0)}, "payoffs has 2 numbers"),
        ({"look_aheads": 0}, "look_aheads is 0"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        analytic.make_update(replace(CFG, **change))
