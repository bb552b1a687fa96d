"""The benchmark of credit assignment counts arithmetic as it is done."""

import jax
import jax.numpy as jnp

from scripts.benchmarks import credit as benchmark


def test_matrix_products_are_counted_wherever_they_are():
    x, w = jnp.ones((4, 3)), jnp.ones((3, 5))

    def program(x, w):
        inner = jax.jit(lambda x: x @ w)  # 2 * 4 * 3 * 5
        many = jax.lax.scan(lambda c, _: (c + inner(x).sum(), None), 0.0, None, length=7)[0]
        batched = jnp.einsum("bij,bjk->bik", jnp.ones((2, 4, 3)), jnp.ones((2, 3, 5)))
        loop = jax.lax.while_loop(lambda c: c < 1.0, lambda c: c + inner(x).sum(), 0.0)
        return many, batched, inner(x) * 3.0, loop

    # A while loop counts as often as it is said to run, on average.
    found = benchmark._matmul_flops(jax.make_jaxpr(program)(x, w), 2.5)
    assert found == 120 * (7 + 2 + 1 + 2.5)


def test_a_batch_has_more_of_it_in_longer_episodes():
    short, long = (benchmark._matmul_flops_of_a_batch(n, "reinforce", "learned") for n in (5, 10))
    assert 1.9 < long / short < 2.1
