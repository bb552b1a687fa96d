import dataclasses
import shutil
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import configs
from internal_rl.commands import main as cli
from internal_rl.config import DiscoverConfig
from internal_rl.errors import UserError
from internal_rl.pipeline import load_base, load_frozen, load_params
from internal_rl.runs.checkpoint import Checkpoints, export_params
from internal_rl.runs.run_dir import create, open_run
from internal_rl.stages import discover
from tests.internal_rl.killed import assert_survives_an_error
from tests.internal_rl.models.test_metacontroller import with_gate_logit
from tests.internal_rl.small import (
    SMOKE,
    assert_close,
    assert_trees_equal,
    base_params,
    bind_base,
    bind_meta,
    changed,
    expert,
    meta_params,
    models,
    world,
)

KEY = jax.random.key(5)
ROWS = 6


@partial(jax.jit, static_argnums=0)
def init(config, key, base=None):
    return discover.init(config.discover, models(config), key, base)


@cache
def updater(config):
    source = expert(config)
    update = discover.make_update(config.discover, models(config), world(config), source)
    return jax.jit(lambda state, base: update(state, (base, source.data)))


def batch_of(config):
    source = expert(config)
    return source.rows(source.data, KEY, ROWS, clean=True)[0]


def loss(config, base, meta, batch):
    nets = bind_base(base, config), bind_meta(meta, config)
    return discover.discovery_loss(*nets, batch, KEY, jnp.float32(0.3), config.discover)


def gradients(config, meta):
    """(metrics, gradients of the metacontroller's parameters)."""

    @jax.jit
    def run(base, meta):
        of_loss = jax.grad(partial(loss, config, base), has_aux=True)
        return of_loss(meta, batch_of(config))[::-1]

    return jax.device_get(run(base_params(config), meta))


@cache
def losses(config):
    """Parameters → loss, metrics, the batch, and what the metacontroller finds and the base model does with it."""

    @jax.jit
    def run(base, meta):
        batch = batch_of(config)
        value, metrics = loss(config, base, meta, batch)
        _, e = bind_base(base, config).lower(batch.obs, None, batch.reset)
        found = bind_meta(meta, config).discover(e, batch.valid, KEY)
        controlled = bind_meta(meta, config).decoder.control(e, found.z)
        _, out = bind_base(base, config).upper(controlled, None, batch.reset)
        return value, metrics, batch, found, out

    return lambda meta: jax.device_get(run(base_params(config), meta))


def test_loss_is_action_nll_plus_kl_at_every_token():
    config = changed(SMOKE, discover={"obs_loss_weight": 0.1})
    value, metrics, batch, found, out = losses(config)(meta_params(config))
    log_probs = special.log_softmax(out.action, axis=-1)
    nll = -np.take_along_axis(log_probs, batch.action[..., None], axis=-1)[..., 0][batch.valid]
    variance = np.exp(2 * found.log_std)
    kl = 0.5 * (variance + found.mean**2 - 1 - np.log(variance)).sum(-1)[batch.valid]
    assert_close(metrics["action_nll"], nll.mean())
    assert_close(metrics["kl"], kl.mean())
    assert_close(value, nll.mean() + 0.3 * kl.mean() + 0.1 * metrics["obs_nll"])
    assert_close(metrics["gate"], found.gate[batch.valid].mean())


def test_kl_is_paid_whatever_the_gate_does():
    kl, nll = {}, {}
    for logit in (-60.0, 0.0, 60.0):
        _, metrics, *_ = losses(SMOKE)(with_gate_logit(meta_params(), logit))
        kl[logit], nll[logit] = float(metrics["kl"]), float(metrics["action_nll"])
    assert kl[-60.0] == kl[0.0] == kl[60.0] > 0
    assert len(set(nll.values())) == 3


@pytest.mark.parametrize(("gate", "readout"), [("soft", "bidirectional"), ("hard", "last")])
def test_gradient_reaches_every_parameter(gate, readout):
    config = changed(SMOKE, metacontroller={"gate": gate, "embedding_readout": readout})
    _, grads = gradients(config, meta_params(config))
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_forced_switching_trains_no_switch():
    config = changed(SMOKE, metacontroller={"forced_switching": True})
    metrics, grads = gradients(config, meta_params(config))
    assert metrics["gate"] == 1.0
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(grads["switch"]))
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(grads["encoder"]))


def test_base_model_stays_frozen(runs):
    """Every later stage uses the pretrained base model, bit for bit, and trains it nowhere."""
    pretrained = load_params(runs.base)
    for run in (runs.meta, runs.internal):
        assert_trees_equal(load_base(run), pretrained)
    trained = load_params(runs.meta)
    state = jax.eval_shape(lambda: discover.init(SMOKE.discover, models(), KEY, base_params()))
    assert jax.tree.structure(trained) == jax.tree.structure(
        jax.eval_shape(models().meta.init, KEY)
    )
    assert jax.tree.structure(state.params) == jax.tree.structure(trained)
    # ... while every part of the metacontroller did train.
    key = jax.random.split(jax.random.key(SMOKE.seed), 3)[0]
    fresh = jax.jit(models().meta.init)(key)
    for (path, new), old in zip(
        jax.tree_util.tree_leaves_with_path(trained), jax.tree.leaves(fresh), strict=True
    ):
        assert (np.asarray(new) != np.asarray(old)).any(), jax.tree_util.keystr(path)
    assert_trees_equal(load_frozen(runs.meta).metacontroller, trained)


def test_update_leaves_the_frozen_argument_alone():
    """Co-training is the ablation in which θ does train, so that the comparison can fail."""
    base = base_params()
    before = jax.tree.map(np.asarray, base)
    state, _ = updater(SMOKE)(init(SMOKE, KEY), base)
    assert_trees_equal(jax.tree.map(np.asarray, base), before)
    assert int(state.step) == 1
    cotrain = changed(SMOKE, discover={"cotrain": True, "cotrain_from_scratch": False})
    start = init(cotrain, KEY, base)
    assert_trees_equal(start.params["base"], base)
    after, _ = updater(cotrain)(start, base)
    moved = [
        (np.asarray(new) != np.asarray(old)).any()
        for new, old in zip(
            jax.tree.leaves(after.params["base"]), jax.tree.leaves(base), strict=True
        )
    ]
    assert np.mean(moved) > 0.9  # all but what nothing reads: the Gaussian head, unseen buckets
    assert_trees_equal(jax.tree.map(np.asarray, base), before)


def test_cotraining_from_scratch_forgets_the_pretrained_weights():
    cotrain = changed(SMOKE, discover={"cotrain": True})
    start = init(cotrain, KEY, base_params())
    kernel = ("embed", "kernel")
    assert (start.params["base"][kernel[0]][kernel[1]] != base_params()["embed"]["kernel"]).any()


def test_kl_schedule():
    def weight(cfg, step):
        return float(discover.kl_weight(cfg, jnp.int32(step)))

    constant = DiscoverConfig(kl_weight=0.5)
    assert [weight(constant, step) for step in (0, 10**6)] == [0.5, 0.5]
    rising = DiscoverConfig(
        kl_weight=2.0, kl_warmup_steps=100, kl_warmup_start=0.1, kl_hold_steps=50
    )
    steps = (0, 50, 75, 100, 150, 151, 10**6)
    expected = (0.2, 0.2, 0.65, 1.1, 2.0, 2.0, 2.0)
    np.testing.assert_allclose([weight(rising, step) for step in steps], expected, rtol=1e-6)
    tail = dataclasses.replace(rising, steps=170, tail_steps=15, tail_kl_weight=0.25)
    steps, expected = (50, 100, 154, 155, 169), (0.2, 1.1, 2.0, 0.25, 0.25)
    np.testing.assert_allclose([weight(tail, step) for step in steps], expected, rtol=1e-6)
    falling = dataclasses.replace(tail, tail_kl_decay_steps=9)
    steps, expected = (100, 154, 155, 158, 161, 164, 169), (1.1, 2.0, 2.0, 1.0, 0.5, 0.25, 0.25)
    np.testing.assert_allclose([weight(falling, step) for step in steps], expected, rtol=1e-6)


# All that the laptop preset adds to the paper's discovery.
LAPTOP = [
    *("--discover.candidates", "3", "--discover.select-steps", "6", "--discover.tail-steps", "2"),
    *("--discover.tail-kl-weight", "0.01", "--discover.tail-tie-breaking", "uniform"),
    *("--discover.encoder-view", "symmetric", "--discover.encoder-end"),
    *("--discover.encoder-stretch", "2", "--discover.tie-breaking", "deterministic"),
    *("--metacontroller.gate", "hard"),
]


@pytest.mark.slow
def test_a_contest_is_one_run_with_one_result(runs, tmp_path):
    command = ["discover", "--base", str(runs.base.path), *LAPTOP]
    assert cli.main([*command, "--run", str(tmp_path / "run"), "--no-progress"]) == 0
    run = open_run(tmp_path / "run")
    laptop = configs.get("gridworld-laptop").discover
    same = ("encoder_view", "encoder_end", "encoder_stretch", "tail_tie_breaking", "tie_breaking")
    assert all(getattr(run.config.discover, n) == getattr(laptop, n) for n in same)
    params = load_params(run)
    template = jax.eval_shape(models(run.config).meta.init, KEY)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, template)
    # Exported and imported again it is the same.
    parents = {"pretrain": runs.base}
    imported = create(tmp_path / "imported", "discover", run.config, parents=parents)
    export_params(imported.path / "weights" / "discover.safetensors", params, {})
    assert_trees_equal(load_params(imported), params)
    # Stopped in the contest, it ends the same.
    assert_survives_an_error(command, run, tmp_path / "killed")
    # Had it been stopped before the candidates were compared, it would have no result.
    shutil.rmtree(Checkpoints(run).folder / "8")
    with pytest.raises(UserError, match=r"candidates are not compared before step 6"):
        load_params(run)
