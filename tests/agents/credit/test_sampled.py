"""Estimators for continuous actions against two decisions whose exact gradient and ratios are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.credit import METHODS, sampled
from agents.credit.config import SampledCreditConfig
from agents.credit.replay import empty, remember
from agents.credit.sampled import Decisions
from agents.credit.sampled_hindsight import make_hindsight, moment_ratio
from agents.credit.sampled_models import _targets, make_sampled
from tests.agents.credit import two_decisions as two

SIZE = 20  # Gauss-Hermite nodes per decision


def fresh_nodes(count):
    """All `count`-tuples of nodes, the same index for both decisions: [J, 2, count] and weights [J]."""
    (z0, w), (z1, _) = two.nodes(0, SIZE), two.nodes(1, SIZE)
    index = np.stack(np.meshgrid(*[np.arange(SIZE)] * count, indexing="ij"), -1).reshape(-1, count)
    return np.stack([z0[index], z1[index]], 1), w[index].prod(1)


def mean_gradient(weights_of, count=1):
    """E[ĝ] by enumeration of codes, coins and fresh codes, in float64.

    weights_of(decisions [E], fresh [E, 2, count, 1], episodes) -> `Weights` of arrays [E, 2], [E, 2, count].
    """
    episodes, probability = two.enumerate_all(SIZE)
    d = jax.tree.map(jnp.asarray, episodes.decisions(np.float64))
    fresh, fresh_weight = fresh_nodes(count)
    own_score = np.stack([two.score(episodes.z0, 0), two.score(episodes.z1, 1)], 1)  # [E, 2, 2]
    total = np.zeros((2, 2))
    function = jax.jit(lambda f: weights_of(d, f, episodes))
    for z, w in zip(fresh, fresh_weight, strict=True):
        tiled = jnp.asarray(np.broadcast_to(z[None, :, :, None], (len(probability), 2, count, 1)))
        found = function(tiled)
        total += w * np.einsum("e,en,enp->np", probability, found.taken, own_score)
        fresh_score = np.stack([two.score(z[0], 0), two.score(z[1], 1)])  # [2, count, 2]
        total += w * np.einsum("e,enm,nmp->np", probability, found.sampled, fresh_score) / count
    return total


def q_exact(d, actions):
    """Q(s, z) of both decisions, [E, 2, M]."""
    first = two.DISTRACTOR * float(two.mean_bump(two.LATER, 1))
    z0, z1 = actions[:, 0, :, 0], actions[:, 1, :, 0]
    q0 = jbump(z0, two.TREASURE) + two.DISTRACTOR * jbump(z0, two.OWN) + first
    q1 = d.kind_reward[:, 1, :1] + two.DISTRACTOR * jbump(z1, two.LATER)
    return jnp.stack([q0, q1], 1)


def jbump(z, shape):
    return jnp.exp(-jnp.square(z - shape[0]) / (2 * shape[1] ** 2))


def reward_ratio(fresh):
    """h/π of the kinds of reward, [E, 2, M, 2]: only the treasure says something, about z_0."""
    treasure = jbump(fresh[:, 0, :, 0], two.TREASURE) / two.mean_bump(two.TREASURE, 0)
    one = jnp.ones_like(treasure)
    first = jnp.stack([treasure, one], -1)
    return jnp.stack([first, jnp.ones_like(first)], 1)


def state_ratio(fresh):
    """h/π of the two states that may follow on decision 0: without and with a treasure."""
    hit, mean = jbump(fresh[:, 0, :, 0], two.TREASURE), two.mean_bump(two.TREASURE, 0)
    first = jnp.stack([(1 - hit) / (1 - mean), hit / mean], -1)
    return jnp.stack([first, jnp.ones_like(first)], 1)


def return_ratio(d, fresh, episodes):
    """h/π of the return to go, [E, 2, M]."""
    (nodes0, w0), (nodes1, w1) = two.nodes(0, SIZE), two.nodes(1, SIZE)
    later = two.mean_bump(two.LATER, 1)
    pays = jnp.asarray(episodes.own + episodes.later)
    treasure = jnp.asarray(episodes.treasure)

    def first(z):
        own = jbump(z, two.OWN)
        either = own * (1 - later) + (1 - own) * later
        of_pays = jnp.stack([(1 - own) * (1 - later), either, own * later], -1)
        hit = jbump(z, two.TREASURE)[..., None]
        table = jnp.concatenate([of_pays * (1 - hit), of_pays * hit], -1)  # [..., 6]
        index = (pays + 3 * treasure).astype(int)
        return jnp.take_along_axis(jnp.broadcast_to(table, (*z.shape, 6)), index[:, None, None], -1)

    def second(z):
        hit = jbump(z, two.LATER)
        return jnp.where(jnp.asarray(episodes.later)[:, None] == 1, hit, 1 - hit)

    rows = jnp.broadcast_to(jnp.asarray(nodes0)[None], (len(pays), SIZE))
    mean0 = first(rows)[..., 0] @ jnp.asarray(w0)
    mean1 = second(jnp.broadcast_to(jnp.asarray(nodes1)[None], (len(pays), SIZE))) @ jnp.asarray(w1)
    ratio0 = first(fresh[:, 0, :, 0])[..., 0] / mean0[:, None]
    return jnp.stack([ratio0, second(fresh[:, 1, :, 0]) / mean1[:, None]], 1)


def each(function):
    """vmap over episodes."""
    return jax.vmap(function)


UNBIASED = {
    "reinforce": lambda d, f, e: each(lambda d: sampled.reinforce(d, 1))(d),
    "advantage, any V": lambda d, f, e: each(
        lambda d: sampled.advantage(d, 3.0 * d.obs[:, 0] - d.obs[:, 2], 1)
    )(d),
    "q_critic, true Q": lambda d, f, e: each(sampled.q_critic)(d, q_exact(d, f)),
    "trajectory_cv, any Q": lambda d, f, e: each(sampled.trajectory_cv)(
        d, jnp.sin(3 * d.action[..., 0]), jnp.sin(3 * f[..., 0])
    ),
    "cocoa_reward": lambda d, f, e: each(sampled.cocoa)(d, reward_ratio(f), d.kind_reward),
    "hca_plus": lambda d, f, e: each(sampled.cocoa)(
        d, state_ratio(f), d.reward[..., None] * d.obs[..., 1:]
    ),
    "hca": lambda d, f, e: each(sampled.hca)(
        d, state_ratio(f), d.reward[..., None] * d.obs[..., 1:], mean_reward(d, f)
    ),
    "counterfactual_return": lambda d, f, e: each(sampled.counterfactual_return)(
        d, return_ratio(d, f, e)
    ),
    # Unbiased since every return may follow on every code; else it is not (test_exact_gradients.py).
    "hca_return": lambda d, f, e: each(lambda d, r: sampled.hca_return(d, r, 1))(
        d, return_ratio(d, d.action[:, :, None], e)[..., 0]
    ),
}


def mean_reward(d, fresh):
    own = two.DISTRACTOR * jbump(fresh[:, 0, :, 0], two.OWN)
    later = d.kind_reward[:, 1, :1] + two.DISTRACTOR * jbump(fresh[:, 1, :, 0], two.LATER)
    return jnp.stack([own, later], 1)


@pytest.mark.parametrize("name", UNBIASED)
def test_mean_is_the_exact_gradient(name):
    with jax.enable_x64(True):
        found = mean_gradient(UNBIASED[name])
    np.testing.assert_allclose(found, two.exact_gradient(), atol=1e-9)


def test_gaussians_with_the_right_moments_give_the_exact_gradient():
    """h of the state without a treasure is not Gaussian: bump(z) is missing from it."""
    z0, weight = two.nodes(0, SIZE)
    u = (z0 - two.MEAN[0]) / two.STD[0]
    with jax.enable_x64(True):
        exact = np.asarray(state_ratio(np.stack([z0, z0])[None, ..., None]))[0, 0]  # [SIZE, 2]
        mean = (weight * u) @ exact
        std = np.sqrt((weight * u**2) @ exact - mean**2)

        def gaussian(fresh):  # [2, M, 1] to [2, M, 2]
            u = (fresh - two.MEAN[0]) / two.STD[0]
            moments = (jnp.broadcast_to(x[None, :, None], (2, 2, 1)) for x in (mean, np.log(std)))
            first = jnp.arange(2)[:, None, None] == 0
            return jnp.where(first, moment_ratio(*moments, u), 1.0)

        def weights(d, fresh, episodes):
            return each(sampled.cocoa)(
                d, each(gaussian)(fresh), d.reward[..., None] * d.obs[..., 1:]
            )

        found = mean_gradient(weights)
    np.testing.assert_allclose(found, two.exact_gradient(), atol=1e-9)
    skew = (weight * u**3) @ exact[:, 0] - 3 * mean[0] * std[0] ** 2 - mean[0] ** 3
    assert abs(skew / std[0] ** 3) > 0.05


@pytest.mark.parametrize("replay", [0, 2048])
def test_learned_moments_give_the_gradient(replay):
    rng = np.random.default_rng(0)
    model, state, _, _ = learned(
        *("cocoa_reward", two.sample(rng, 2048), 120),
        model_rate=1e-2,
        replay=replay,
        hindsight="gaussian",
    )
    many = jax.tree.map(jnp.asarray, two.sample(rng, 20_000).decisions(np.float32))
    found = per_episode(model, state, many)
    error = found.std(0) / np.sqrt(len(found))
    exact = two.exact_gradient().reshape(-1)
    assert (np.abs(found.mean(0) - exact) < 4 * error + 0.02).all()
    blind = per_episode(model, model.init(jax.random.key(0)), many).mean(0)
    assert np.abs(blind - exact).max() > 0.1  # with nothing learned


def test_baseline_of_the_other_fresh_actions_changes_no_mean():
    with jax.enable_x64(True):
        found = mean_gradient(UNBIASED["q_critic, true Q"], count=2)
    np.testing.assert_allclose(found, two.exact_gradient(), atol=1e-9)


def learned(method, episodes, steps, **changes):
    config = SampledCreditConfig(method=method, width=16, samples=4, model_steps=steps, **changes)
    model = make_sampled(config, obs_dim=3, action_dim=1, kinds=2)
    batch = jax.tree.map(jnp.asarray, episodes.decisions(np.float32))
    state, metrics = jax.jit(lambda k: model.update(model.init(k), batch, k))(jax.random.key(0))
    return model, state, metrics, batch


@pytest.mark.parametrize("replay", [0, 2048])
def test_learned_density_ratio_is_the_exact_one(replay):
    """h(z_0 | treasure)/π follows the bump, every other ratio is 1, and the estimate is the gradient."""
    rng = np.random.default_rng(0)
    model, state, metrics, batch = learned(
        "cocoa_reward", two.sample(rng, 2048), 120, model_rate=1e-2, replay=replay
    )
    assert int(metrics["unmatched_rewards"]) == 0
    one = jax.tree.map(lambda x: x[0], batch)
    (z0, weight), (z1, _) = two.nodes(0, 9), two.nodes(1, 9)
    grid = jnp.asarray(np.stack([z0, z1])[..., None], jnp.float32)  # [2, 9, 1]
    network = make_hindsight(SampledCreditConfig(width=16), 5, 1, 2)
    ratio = np.asarray(network.ratio(state["net"][0], one, grid, jnp.eye(2)))
    ratio = ratio[0]  # of decision 0, [9, 2]
    exact = two.bump(z0, two.TREASURE) / two.mean_bump(two.TREASURE, 0)
    assert np.sqrt(weight @ (ratio[:, 0] - exact) ** 2) < 0.1
    assert np.sqrt(weight @ (ratio[:, 1] - 1) ** 2) < 0.1
    assert np.sqrt(weight @ (exact - 1) ** 2) > 0.2  # there is something to learn

    many = jax.tree.map(jnp.asarray, two.sample(rng, 20_000).decisions(np.float32))
    gradients = {}
    for name in ("cocoa_reward", "reinforce"):
        other = model if name == "cocoa_reward" else learned("reinforce", two.sample(rng, 4), 1)[0]
        credit = state if name == "cocoa_reward" else ()
        gradients[name] = per_episode(other, credit, many)
    exact = two.exact_gradient().reshape(-1)
    for name, found in gradients.items():
        error = found.std(0) / np.sqrt(len(found))
        assert (np.abs(found.mean(0) - exact) < 4 * error + 0.02).all(), name
    spread = {n: np.square(g - exact).sum(1).mean() for n, g in gradients.items()}
    assert spread["cocoa_reward"] < 0.6 * spread["reinforce"]


def per_episode(model, credit, batch):
    """ĝ of every episode, [E, 4]."""

    @jax.jit
    def run(keys):
        fresh = jax.vmap(lambda k, d: sampled.fresh_actions(k, d, 8))(keys, batch)
        return fresh, jax.vmap(lambda d, f: model.weights(credit, d, f))(batch, fresh)

    fresh, weights = jax.device_get(run(jax.random.split(jax.random.key(1), len(batch.reward))))
    action = np.asarray(batch.action)[..., 0]
    total = []
    for n in range(2):
        own = two.score(action[:, n], n) * weights.taken[:, n, None]
        other = two.score(fresh[:, n, :, 0], n) * weights.sampled[:, n, :, None]
        total.append(own + other.mean(1))
    return np.concatenate(total, -1)


@pytest.mark.parametrize("method", ["cocoa_reward", "hca_plus", "cocoa_feature"])
def test_an_untrained_ratio_credits_own_rewards_alone(method):
    rng = np.random.default_rng(1)
    model, state, _, batch = learned(method, two.sample(rng, 8), 1, model_rate=0.0)
    fresh = jnp.asarray(rng.standard_normal((8, 2, 4, 1)), jnp.float32)
    found = jax.vmap(lambda d, f: model.weights(state, d, f))(batch, fresh)
    np.testing.assert_array_equal(found.sampled, 0)
    np.testing.assert_array_equal(found.taken, batch.reward)


def test_every_method_gives_finite_weights_and_none_to_padding():
    rng = np.random.default_rng(2)
    batch = two.sample(rng, 16).decisions(np.float32)
    valid = np.ones((16, 2), bool)
    valid[:5, 1] = False
    keep = valid.astype(np.float32)
    batch = batch.replace(
        valid=valid,
        reward=batch.reward * keep,
        kind_reward=batch.kind_reward * keep[..., None],
        kind_count=batch.kind_count * keep[..., None],
    )
    batch = jax.tree.map(jnp.asarray, batch)
    models = {
        m: make_sampled(SampledCreditConfig(method=m, width=8, model_steps=2), 3, 1, 2)  # type: ignore[arg-type]
        for m in METHODS
    }
    for name in ("hca", "counterfactual_return", "cocoa_feature"):
        config = SampledCreditConfig(method=name, hindsight="gaussian", width=8, model_steps=2)
        models[f"{name}, gaussian"] = make_sampled(config, 3, 1, 2)

    @jax.jit
    def run(key):
        found = {}
        for name, model in models.items():
            state, metrics = model.update(model.init(key), batch, key)
            fresh = jax.vmap(lambda k, d: sampled.fresh_actions(k, d, 3))(
                jax.random.split(key, 16), batch
            )
            found[name] = jax.vmap(lambda d, f, m=model, s=state: m.weights(s, d, f))(batch, fresh)
            found[name] = (*found[name], metrics)
        return found

    for name, (taken, fresh, metrics) in run(jax.random.key(0)).items():
        assert np.isfinite(taken).all(), name
        assert np.isfinite(fresh).all(), name
        assert max(np.abs(taken).max(), np.abs(fresh).max()) > 0, name
        assert np.abs(taken[~valid]).max() == 0, name
        assert np.abs(fresh[~valid]).max() == 0, name
        assert int(metrics["unmatched_rewards"]) == 0, name


def test_rewards_beyond_the_outcomes_are_counted():
    d = Decisions(
        obs=jnp.zeros((4, 1)),
        action=jnp.zeros((4, 1)),
        mean=jnp.zeros((4, 1)),
        log_std=jnp.zeros((4, 1)),
        valid=jnp.array([True, True, True, False]),
        reward=jnp.array([1.0, 0.0, 2.0, 0.0]),
        kind_reward=jnp.zeros((4, 1)),
        kind_count=jnp.zeros((4, 1)),
    )
    codes = jnp.array([[1.0], [2.0], [3.0], [4.0]])
    vectors, reward, count = sampled.rewarded_outcomes(d, codes, 3)
    np.testing.assert_array_equal(vectors, [[1.0], [3.0], [0.0]])
    np.testing.assert_array_equal(reward[:, :2], [[1, 0], [0, 0], [0, 2], [0, 0]])
    np.testing.assert_array_equal(count[:, 2], 0)
    assert int(sampled.unmatched(d, reward)) == 0
    _, reward, _ = sampled.rewarded_outcomes(d, codes, 1)
    assert int(sampled.unmatched(d, reward)) == 1


def test_targets_by_hand():
    d = Decisions(
        obs=jnp.zeros((4, 1)),
        action=jnp.zeros((4, 1)),
        mean=jnp.zeros((4, 1)),
        log_std=jnp.zeros((4, 1)),
        valid=jnp.array([True, True, True, False]),
        reward=jnp.array([1.0, 2.0, 4.0, 0.0]),
        kind_reward=jnp.zeros((4, 1)),
        kind_count=jnp.zeros((4, 1)),
    )
    v = jnp.array([10.0, 20.0, 30.0, 40.0])
    np.testing.assert_allclose(_targets(d, v, 0.5), [20.5, 19.0, 4.0, 0.0])
    np.testing.assert_allclose(_targets(d, v, 1.0), [7.0, 6.0, 4.0, 0.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "cocoa"}, "credit.method is 'cocoa'"),
        ({"samples": 0}, "credit.samples is 0"),
        ({"max_ratio": 1.0}, "credit.max_ratio is 1.0"),
        ({"trace": -0.5}, "credit.trace is -0.5"),
        ({"model_rate": -1.0}, "credit.model_rate is -1.0"),
        ({"replay": -1}, "credit.replay is -1; allowed: at least 0"),
        ({"method": "hca_plus", "replay": 8}, "credit.replay is 8; allowed: 0 for hca_plus"),
        ({"method": "trajectory"}, "which has no model"),
    ],
)
def test_bad_settings(changes, message):
    config = SampledCreditConfig(**{"method": "cocoa_reward"} | changes)
    with pytest.raises(ValueError, match=message):
        make_sampled(config, 3, 1, 2)


def test_replay_keeps_the_last_decisions_of_each_kind():
    """Three rings entries; a batch of two decisions of kind 0, then three more, of which one is of kind 1."""
    batch = Decisions(
        obs=jnp.arange(6.0).reshape(2, 3, 1),
        action=10 + jnp.arange(6.0).reshape(2, 3, 1),
        mean=jnp.zeros((2, 3, 1)),
        log_std=jnp.zeros((2, 3, 1)),
        valid=jnp.ones((2, 3), bool),
        reward=jnp.zeros((2, 3)),
        kind_reward=jnp.zeros((2, 3, 2)),
        kind_count=jnp.zeros((2, 3, 2)),
    )
    counts = np.zeros((2, 3, 2), np.float32)
    counts[0, 1, 0], counts[1, 0, 0] = 1, 2
    memory = jax.jit(remember)(empty(2, 3, 1, 1), batch, jnp.asarray(counts))
    np.testing.assert_array_equal(memory.obs[0, :, 0], [1, 3, 0])
    np.testing.assert_array_equal(memory.action[0, :, 0], [11, 13, 0])
    np.testing.assert_array_equal(memory.count, [[1, 2, 0], [0, 0, 0]])
    counts[:] = 0
    counts[0, 0, 0], counts[0, 2, 0], counts[1, 2, 1] = 3, 4, 5
    memory = jax.jit(remember)(memory, batch, jnp.asarray(counts))
    np.testing.assert_array_equal(memory.count, [[4, 2, 3], [5, 0, 0]])  # the oldest gave way
    np.testing.assert_array_equal(memory.obs[..., 0], [[2, 3, 0], [5, 0, 0]])
    np.testing.assert_array_equal(memory.next, [1, 1])
