import jax
import jax.numpy as jnp
import numpy as np
import pytest

from internal_rl.models.control import FullControl, LowRankControl, apply_control, dense_control
from tests.internal_rl.small import (
    SMOKE,
    all_equations,
    assert_close,
    base_params,
    bind_base,
    bind_meta,
    changed,
    meta_params,
    normal,
    world,
)

BATCH, TIME, WIDTH = 3, 5, SMOKE.model.width
FULL = changed(SMOKE, metacontroller={"rank": 0})
by_rank = pytest.mark.parametrize("config", [SMOKE, FULL], ids=["low-rank", "full"])


def by_hand(e, u):
    """e + U e, one matrix-vector product per token."""
    e, u = np.asarray(e, np.float64), np.asarray(u, np.float64)
    result = np.empty_like(e)
    for index in np.ndindex(*e.shape[:-1]):
        result[index] = e[index] + np.matmul(u[index], e[index])
    return result


def test_low_rank():
    e, a, b = normal(0, BATCH, TIME, 6), normal(1, BATCH, TIME, 2, 6), normal(2, BATCH, TIME, 6, 2)
    control = LowRankControl(a=a, b=b)
    u = np.matmul(np.asarray(b), np.asarray(a))
    assert_close(apply_control(e, control), by_hand(e, u))
    assert_close(dense_control(control), u)


def test_full():
    e, u = normal(0, BATCH, TIME, 6), normal(1, BATCH, TIME, 6, 6)
    found = apply_control(e, FullControl(u=u))
    assert_close(found, by_hand(e, u))
    # Not its transpose, and not the trap of an einsum that sums out the wrong axis (e * rowsum).
    e, u = np.asarray(e), np.asarray(u)
    assert not np.allclose(found, by_hand(e, np.swapaxes(u, -1, -2)), atol=0.1)
    assert not np.allclose(found, e + e * u.sum(-1), atol=0.1)
    assert_close(dense_control(FullControl(u=jnp.asarray(u))), u)


@by_rank
def test_decoder_is_a_hypernetwork(config):
    """`control` never builds U; it has to equal U(z) built by hand, and applied by hand."""
    params = meta_params(config)
    decoder = bind_meta(params, config).decoder
    z, e = normal(3, BATCH, TIME, config.metacontroller.code_dim), normal(4, BATCH, TIME, WIDTH)
    p = jax.tree.map(np.asarray, params["decoder"])
    hidden = np.maximum(np.asarray(z) @ p["hidden"]["kernel"] + p["hidden"]["bias"], 0)
    x = np.concatenate([hidden, np.ones((BATCH, TIME, 1))], axis=-1)  # [B, T, K]
    u = np.zeros((BATCH, TIME, WIDTH, WIDTH))
    for index in np.ndindex(BATCH, TIME):
        if config.metacontroller.rank:
            reads = sum(w * m for w, m in zip(x[index], p["read"], strict=True))
            writes = sum(w * m for w, m in zip(x[index], p["write"], strict=True))
            u[index] = writes @ reads
        else:
            u[index] = sum(w * m for w, m in zip(x[index], p["full"], strict=True))
    explicit = decoder(z)
    assert_close(dense_control(explicit), u)
    expected = by_hand(e, u)
    assert_close(decoder.control(e, z), expected, rtol=1e-3, atol=1e-4)
    assert_close(apply_control(e, explicit), expected, rtol=1e-3, atol=1e-4)
    # A single code for a batch of states, as in rollouts.
    assert_close(decoder.control(e[:, 0], z[:, 0]), expected[:, 0], rtol=1e-3, atol=1e-4)


@by_rank
def test_zero_control_changes_nothing_at_all(config):
    params = meta_params(config)
    last = "write" if config.metacontroller.rank else "full"
    params = params | {
        "decoder": params["decoder"] | {last: jnp.zeros_like(params["decoder"][last])}
    }
    obs, z = normal(0, BATCH, TIME, world().obs_spec.dim), normal(1, BATCH, TIME, 2)

    @jax.jit
    def run(base, meta):
        base = bind_base(base, config)
        _, e = base.lower(obs)
        controlled = bind_meta(meta, config).decoder.control(e, z)
        return (e, base.upper(e)[1]), (controlled, base.upper(controlled)[1])

    plain, controlled = run(base_params(config), params)
    jax.tree.map(np.testing.assert_array_equal, plain, controlled)
    # With a control that is not zero the outputs do change.
    plain, controlled = run(base_params(config), meta_params(config))
    assert np.abs(np.asarray(plain[1].action - controlled[1].action)).max() > 1e-2


@by_rank
def test_control_never_builds_a_matrix_per_token(config):
    width, config = 32, changed(config, model={"width": 32})
    meta = meta_params(config)
    e, z = normal(0, BATCH, TIME, width), normal(1, BATCH, TIME, 2)

    def by_terms(decoder, e, z):
        return decoder.control(e, z)

    def by_matrix(decoder, e, z):
        return apply_control(e, FullControl(u=dense_control(decoder(z))))

    def largest(write):
        def loss(meta, e, z):
            return write(bind_meta(meta, config).decoder, e, z).sum()

        jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(meta, e, z)
        sizes = [
            variable.aval.size
            for equation in all_equations(jaxpr)
            for variable in equation.outvars
            if variable.aval.shape[:2] == (BATCH, TIME)
            or variable.aval.size >= BATCH * TIME * width
        ]
        return max(sizes) / (BATCH * TIME)

    # The full control's parameters alone are more than half as many numbers as a matrix per token.
    assert largest(by_terms) < (width**2 / 4 if config.metacontroller.rank else width**2)
    assert largest(by_matrix) >= width**2  # so that the count above would notice
