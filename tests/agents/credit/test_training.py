"""Every estimator through the training loop, exact twins, shadow runs and gradient metrics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.credit import METHODS, CreditConfig, TrainConfig, World, WorldSpec, make_model
from agents.credit.features import features_init
from agents.credit.policy import mlp_policy, tabular_policy
from agents.credit.quality import gradient_quality
from agents.credit.shadow import make_measure, parallel_model
from agents.credit.train import make_evaluate, make_init, make_update
from agents.credit.trajectory import rollouts
from envs.credit import KeyToDoor, enumerate_mdp

ENV = KeyToDoor(length=5, ignore_door=True)
PARAMS = ENV.default_params
WORLD = World(ENV, PARAMS, 5)
SPEC = WorldSpec(9, 4, ENV.reward_values(PARAMS))
TRAIN = TrainConfig(batches=4, policy_width=8, eval_episodes=16)
POLICY = mlp_policy(9, 4, 8)


def model_of(method, kind="learned", **changes):
    config = CreditConfig(
        method=method, model=kind, hindsight_width=8, value_width=8, action_samples=0
    )
    config = dataclasses.replace(config, **changes)
    mdp = enumerate_mdp(ENV, PARAMS).astype(jnp.float32)
    blank = features_init(jax.random.key(0), "gate", 9, 4, 128)
    return make_model(config, SPEC, mdp, blank)


def train(model, rate=1e-2, steps=2, config=TRAIN, world=WORLD, seeds=2, **options):
    init = make_init(config, POLICY, model, rate)
    update = make_update(config, world, POLICY, model, rate, **options)

    @jax.jit
    def run(keys):
        def step(state, _):
            return jax.vmap(update)(state)

        return jax.lax.scan(step, jax.vmap(init)(keys), None, length=steps)

    return run(jax.random.split(jax.random.key(0), seeds))


def test_every_method_learns_from_a_batch():
    """All methods, learned and exact, in one program: finite tables, states that change, no reward
    without an outcome."""
    models = {f"{kind} {m}": model_of(m, kind) for m in METHODS for kind in ("learned", "exact")}
    together = parallel_model(models, "learned cocoa_reward")

    @jax.jit
    def run(key):
        acting = POLICY.acting(POLICY.init(key), 0.05)
        batch, _ = rollouts(ENV, PARAMS, acting, key, 5, 8)
        before = together.init(key)
        after, metrics = together.update(before, batch, acting, key)
        # Without a reward most tables are zero.
        most = jnp.argmax(jnp.sum(batch.reward, axis=1))
        one = jax.tree.map(lambda x: x[most], batch)
        tables = {name: model.table(after[name], one, key) for name, model in models.items()}
        return before, after, metrics, tables

    before, after, metrics, tables = run(jax.random.key(0))
    assert int(metrics["unmatched_rewards"]) == 0
    for name, table in tables.items():
        assert table.shape == (5, 4), name
        assert np.isfinite(table).all(), name
        assert np.abs(table).max() > 0, name
        if "reinforce" not in name:
            pairs = zip(jax.tree.leaves(before[name]), jax.tree.leaves(after[name]), strict=True)
            assert any((np.asarray(x) != np.asarray(y)).any() for x, y in pairs), name


def test_exact_models_count_what_their_tables_lack():
    model, key = model_of("q_critic", "exact"), jax.random.key(0)
    acting = POLICY.acting(POLICY.init(key), 0.05)

    @jax.jit
    def counts(key):
        batch, _ = rollouts(ENV, PARAMS, acting, key, 5, 3)
        odd = batch.replace(
            reward=batch.reward.at[0, 1].add(0.3), obs=batch.obs.at[1, 2:4, 0].add(0.01)
        )
        return [model.update(model.init(key), b, acting, key)[1] for b in (batch, odd)]

    fine, odd = counts(key)
    assert (int(fine["unmatched_rewards"]), int(fine["unknown_states"])) == (0, 0)
    assert (int(odd["unmatched_rewards"]), int(odd["unknown_states"])) == (1, 2)


def test_training_steps():
    state, metrics = train(model_of("cocoa_reward"))
    assert (np.asarray(state.step) == 2).all()
    for name, value in metrics.items():
        assert np.isfinite(value).all(), name
    one, two = (np.asarray(state.policy[0][0]["w"])[i] for i in range(2))
    assert (one != two).any()  # seeds differ


def test_vmapped_seeds_learn_what_each_learns_alone():
    """All methods at once: on the CPU seeds learn one after the other."""
    models = {name: model_of(name) for name in METHODS} | {"exact": model_of("q_critic", "exact")}
    together = parallel_model(models, "cocoa_reward")
    init = make_init(TRAIN, POLICY, together, 1e-2)
    update = make_update(TRAIN, WORLD, POLICY, together, 1e-2)
    start = jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(0), 2))
    after, metrics = jax.jit(jax.vmap(update))(start)
    alone = jax.jit(update)
    for seed in range(2):
        expected, numbers = alone(jax.tree.map(lambda x, i=seed: x[i], start))
        expected = (expected.policy, expected.credit, numbers)
        found = jax.tree.map(lambda x, i=seed: x[i], (after.policy, after.credit, metrics))
        for path, (one, other) in _pairs(found, expected):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=path)


def test_one_at_a_time_is_the_same_on_every_backend(monkeypatch):
    """As a loop (CPU), vmapped (elsewhere), and under two vmaps."""
    model = model_of("q_critic")
    init = make_init(TRAIN, POLICY, model, 1e-2)
    update = make_update(TRAIN, WORLD, POLICY, model, 1e-2)
    start = jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(0), 4))
    loop, _ = jax.jit(jax.vmap(update))(start)
    square = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), start)
    nested, _ = jax.jit(jax.vmap(jax.vmap(update)))(square)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    vmapped, _ = jax.jit(jax.vmap(make_update(TRAIN, WORLD, POLICY, model, 1e-2)))(start)
    flat = jax.tree.map(lambda x: x.reshape(4, *x.shape[2:]), nested)
    for other in (flat, vmapped):
        pairs = _pairs((loop.policy, loop.credit), (other.policy, other.credit))
        for path, (one, two) in pairs:
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5, err_msg=path)


def _pairs(one, other):
    leaves = jax.tree_util.tree_leaves_with_path(one)
    for (path, a), b in zip(leaves, jax.tree.leaves(other), strict=True):
        yield jax.tree_util.keystr(path), (np.asarray(a), np.asarray(b))


def test_exact_cocoa_solves_the_task():
    config = dataclasses.replace(TRAIN, entropy=0.0, eval_episodes=64)
    state, _ = train(model_of("cocoa_reward", "exact"), steps=150, config=config)
    found = jax.jit(jax.vmap(make_evaluate(config, WORLD, POLICY)))(state)
    assert (np.asarray(found["eval_treasure"]) > 0.9).all()
    assert (np.asarray(found["eval_distractors"]) > 0.9).all()


def test_burn_in_learns_nothing():
    model = model_of("q_critic")
    early, _ = train(model, steps=1, burn_in=1)
    init = jax.jit(jax.vmap(make_init(TRAIN, POLICY, model, 1e-2)))
    start = init(jax.random.split(jax.random.key(0), 2))
    for one, other in zip(
        jax.tree.leaves((early.policy, early.credit)),
        jax.tree.leaves((start.policy, start.credit)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    later, _ = train(model, steps=2, burn_in=1)
    assert any(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(jax.tree.leaves(later.policy), jax.tree.leaves(start.policy), strict=True)
    )


def test_rewards_switch():
    """The treasure's sign changes at batch 2, and nothing else does."""
    after = ENV.make_params(treasure=(-0.2,))
    world = dataclasses.replace(WORLD, params_after=after)
    config = dataclasses.replace(TRAIN, switch_at=2)
    model = model_of("reinforce")
    _, plain = train(model, rate=0.0, steps=4)
    _, switched = train(model, rate=0.0, steps=4, config=config, world=world)
    change = np.asarray(switched["return"] - plain["return"])
    np.testing.assert_array_equal(change[:2], 0)
    treasure = np.asarray(plain["train_treasure"])
    np.testing.assert_allclose(change[2:], -0.4 * 23 / 5 * treasure[2:], atol=1e-5)


def test_first_state_only_trains_one_decision():
    config = dataclasses.replace(TRAIN, first_state_only=True, entropy=0.0, epsilon=0.0)
    mdp = enumerate_mdp(ENV, PARAMS).astype(jnp.float32)
    table = tabular_policy(mdp)
    model = model_of("reinforce")
    update = make_update(config, WORLD, table, model, 1e-2)
    state = make_init(config, table, model, 1e-2)(jax.random.key(1))
    after, _ = jax.jit(update)(state)
    # AdamW moves every logit with a gradient by the learning rate, and decays none of the zeros.
    moved = np.abs(np.asarray(after.policy[0])).max(1) > 0
    np.testing.assert_array_equal(np.flatnonzero(moved), [0])


def test_shadow_models_learn_what_they_learn_alone_and_do_not_act():
    models = {"main": model_of("q_critic", "exact"), "cocoa_reward": model_of("cocoa_reward")}
    together = parallel_model(models, "main")
    with pytest.raises(ValueError, match="main is 'absent'"):
        parallel_model(models, "absent")
    alone, _ = train(models["main"], steps=3, config=dataclasses.replace(TRAIN, resample=False))
    both, _ = train(together, steps=3, config=dataclasses.replace(TRAIN, resample=False))
    for a, b in zip(jax.tree.leaves(alone.policy[0]), jax.tree.leaves(both.policy[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    mdp = enumerate_mdp(ENV, PARAMS).astype(jnp.float32)
    measure = jax.jit(make_measure(TRAIN, WORLD, POLICY, models, mdp, True))
    found = measure(jax.tree.map(lambda x: x[0], both))
    assert float(found["variance_db/main"]) < -40  # no variance at the first decision
    assert np.isfinite(found["snr_db/cocoa_reward"])


def test_exact_models_need_no_update_before_they_are_measured():
    models = {
        "main": model_of("q_critic", "exact"),
        "exact_hca_plus": model_of("hca_plus", "exact"),
    }
    mdp = enumerate_mdp(ENV, PARAMS).astype(jnp.float32)
    found = []
    for idle in ((), ("exact_hca_plus",)):
        state, metrics = train(parallel_model(models, "main", idle), steps=3)
        assert ("unknown_states/exact_hca_plus" in metrics) == (not idle)
        measure = jax.jit(make_measure(TRAIN, WORLD, POLICY, models, mdp, True, idle))
        found.append(measure(jax.tree.map(lambda x: x[0], state)))
        assert ("unknown_states/exact_hca_plus" in found[-1]) == bool(idle)
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name], err_msg=name)
    with pytest.raises(ValueError, match="main is 'main'; allowed: exact_hca_plus"):
        parallel_model(models, "main", ("main",))


@pytest.mark.parametrize("method", ["cocoa_reward", "reinforce", "advantage"])
def test_sampled_variance_agrees_with_the_exact_one(method):
    """4,096 sampled gradients give the variance of all enumerated ones within its interval."""
    from agents.credit.quality import flat_gradients, ratios
    from agents.credit.train import tables_of
    from agents.credit.trajectory import from_paths
    from envs.credit.enumeration import enumerate_paths

    mdp = enumerate_mdp(ENV, PARAMS).astype(jnp.float32)
    policy = tabular_policy(mdp)
    logits = 0.5 * jax.random.normal(jax.random.key(2), (mdp.num_states, 4))
    model, key = model_of(method, "exact"), jax.random.key(3)
    paths = enumerate_paths(mdp)

    @jax.jit
    def run(logits):
        acting = policy.acting(logits, 0.05)
        credit, _ = model.update(model.init(key), None, acting, key)

        def gradients(batch):
            tables = tables_of(model, credit, batch, key)
            return flat_gradients(policy, logits, 0.05, batch, tables, False)

        batch, _ = rollouts(ENV, PARAMS, acting, key, 5, 4096)
        found = gradient_quality(policy, logits, 0.05, model, credit, batch, mdp, key, False)
        pi = jnp.exp(acting(jnp.asarray(mdp.observations)))
        weight, every = paths.probability(pi), gradients(from_paths(mdp, paths, pi))
        truth = weight @ every
        return gradients(batch), found, truth, ratios(truth, truth, every, weight)

    single, found, truth, exact = run(logits)
    power = float(jnp.sum(truth**2))
    squares = np.square(np.asarray(single - truth[None])).sum(1)
    error = squares.std() / np.sqrt(len(squares)) / power
    sampled = 10 ** (float(found["variance_db"]) / 10)
    enumerated = 10 ** (float(exact["variance_db"]) / 10)
    assert abs(sampled - enumerated) < 5 * error
    assert float(found["bias_db"]) < -60  # float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "cocoa"}, "credit.method is 'cocoa'"),
        ({"model": "guessed"}, "credit.model is 'guessed'"),
        ({"trace": 1.5}, "credit.trace is 1.5"),
        ({"policy_rate": -1.0}, "credit.policy_rate is -1.0"),
        ({"method": "reinforce", "action_samples": 2}, "credit.action_samples is 2"),
        ({"perturbation": 0.1}, "credit.perturbation is 0.1"),
        ({"hindsight_loss": "regression"}, "credit.hindsight_loss is 'regression'; .*successor"),
        *(
            (
                {"method": method, "hindsight_loss": "successor"},
                f"credit.hindsight_loss is 'successor'; allowed: classification, .* for {method}",
            )
            for method in METHODS
            if method != "cocoa_reward"
        ),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        make_model(CreditConfig(**changes), SPEC)


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match="needs the tables of a finite MDP"):
        make_model(CreditConfig(model="exact"), SPEC)
    with pytest.raises(ValueError, match="needs trained features"):
        make_model(CreditConfig(method="cocoa_feature"), SPEC).init(jax.random.key(0))
