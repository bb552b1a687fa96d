import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from internal_rl.config import OptimizerConfig
from internal_rl.demonstrations.contract import masked_mean
from internal_rl.demonstrations.pinpad import PinpadDemonstrations
from internal_rl.stages.optim import make_optimizer
from internal_rl.stages.pretrain import behaviour_loss
from tests.internal_rl.small import SMOKE, assert_close, base_params, bind_base, world


def test_loss_is_the_mean_over_tokens():
    place = world()

    @jax.jit
    def run(params, key):
        batch, _ = PinpadDemonstrations(place).rows((), key, 6, clean=False)
        base = bind_base(params)
        return batch, base(batch.obs, batch.reset), behaviour_loss(base, batch, 0.25)

    batch, out, (loss, metrics) = jax.device_get(run(base_params(), jax.random.key(0)))
    log_probs = special.log_softmax(out.action, axis=-1)
    chosen = np.take_along_axis(log_probs, batch.action[..., None], axis=-1)[..., 0]
    action_nll = -chosen[batch.valid].mean()
    factors = np.split(out.observation, np.cumsum(place.env.factor_sizes)[:-1], axis=-1)
    targets = np.split(batch.next_obs, np.cumsum(place.env.factor_sizes)[:-1], axis=-1)
    obs_nll = -sum(
        (special.log_softmax(f, axis=-1) * t).sum(-1) for f, t in zip(factors, targets, strict=True)
    )[batch.valid].mean()
    assert_close(metrics["action_nll"], action_nll)
    assert_close(metrics["obs_nll"], obs_nll)
    assert_close(loss, action_nll + 0.25 * obs_nll)


def test_masked_mean():
    x = jnp.array([[1.0, 2.0], [3.0, 100.0]])
    assert masked_mean(x, jnp.array([[True, True], [True, False]])) == 2.0
    assert masked_mean(x, jnp.zeros((2, 2), bool)) == 0.0


def rates(cfg, steps, count):
    """Learning rate at each step, read off the updates of a constant gradient."""
    optimizer = make_optimizer(cfg, steps)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((2,))}
    grads = jax.tree.map(jnp.ones_like, params)

    def one(state, _):
        updates, state = optimizer.update(grads, state, params)
        return state, updates

    _, updates = jax.jit(lambda s: jax.lax.scan(one, s, None, length=count))(optimizer.init(params))
    # Adam's step of a constant gradient is the learning rate; the bias is not decayed.
    return -np.asarray(updates["bias"][:, 0]), -np.asarray(updates["kernel"][:, 0, 0])


def test_optimizer_schedules():
    cfg = OptimizerConfig(learning_rate=0.1, weight_decay=0.5)
    bias, kernel = rates(cfg, 10, 4)
    np.testing.assert_allclose(bias, 0.1, rtol=1e-3)
    np.testing.assert_allclose(kernel, 0.1 * (1 + 0.5), rtol=1e-3)  # decoupled decay of a 1
    cosine = OptimizerConfig(learning_rate=0.1, weight_decay=0.0, schedule="cosine", warmup_steps=2)
    bias, _ = rates(cosine, 10, 12)
    half = 0.005 + 0.5 * (0.1 - 0.005)
    np.testing.assert_allclose(
        bias[[0, 1, 2, 6, 10, 11]], [0, 0.05, 0.1, half, 0.005, 0.005], rtol=1e-3, atol=1e-6
    )
    late = dataclasses.replace(cosine, decay_steps=4)
    bias, _ = rates(late, 10, 12)
    np.testing.assert_allclose(
        bias[[0, 1, 2, 6, 8, 10, 11]], [0, 0.05, 0.1, 0.1, half, 0.005, 0.005], rtol=1e-3, atol=1e-6
    )
    longer_than_the_stage = dataclasses.replace(cosine, decay_steps=100)
    np.testing.assert_allclose(rates(longer_than_the_stage, 10, 12), rates(cosine, 10, 12))
    warm = OptimizerConfig(learning_rate=0.1, weight_decay=0.0, warmup_steps=4)
    bias, _ = rates(warm, 10, 6)
    np.testing.assert_allclose(bias, [0, 0.025, 0.05, 0.075, 0.1, 0.1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("clip", "norm"), [(0.0, 5.0), (1.0, 1.0), (10.0, 5.0)])
def test_gradient_clipping(clip, norm):
    """Adam's first moment after one step is 0.1 of the (clipped) gradient."""
    optimizer = make_optimizer(OptimizerConfig(grad_clip=clip), 1)
    params = {"kernel": jnp.zeros((2,))}
    state = optimizer.init(params)
    _, state = optimizer.update({"kernel": jnp.array([3.0, 4.0])}, state, params)
    moments = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if ".mu" in jax.tree_util.keystr(path)
    ]
    np.testing.assert_allclose(np.linalg.norm(moments[0]), 0.1 * norm, rtol=1e-5)


def test_learning_lowers_the_loss():
    """The smoke preset on one fixed batch, so that only a broken gradient fails."""
    place = world()
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2), 40)

    @jax.jit
    def train(params, key):
        batch, _ = PinpadDemonstrations(place).rows((), key, 8, clean=False)

        def one(carry, _):
            params, state = carry
            grad, metrics = jax.grad(
                lambda p: behaviour_loss(bind_base(p), batch, 0.01), has_aux=True
            )(params)
            updates, state = optimizer.update(grad, state, params)
            return (jax.tree.map(jnp.add, params, updates), state), metrics["action_nll"]

        return jax.lax.scan(one, (params, optimizer.init(params)), None, length=40)[1]

    nll = np.asarray(train(base_params(), jax.random.key(0)))
    assert nll[-1] < 0.5 * nll[0]
    assert SMOKE.pretrain.packing
