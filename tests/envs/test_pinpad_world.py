"""Gridworld-pinpad as a world: what is more than the environment itself."""

import jax
import jax.numpy as jnp
import numpy as np

from envs.pinpad.expert import generate
from envs.pinpad.gridworld import GridPinpad
from envs.pinpad.tables import TABLE_A2
from envs.pinpad.world import PinpadWorld, symmetric_observations

KEY = jax.random.key(3)


def test_every_token_of_a_trajectory_moves_alike():
    """Against the observation of a grid that was moved before anything was observed."""
    size = 4
    place = PinpadWorld(GridPinpad(size, 4, 1, observation="onehot"), TABLE_A2, 16)

    @jax.jit
    def run(key):
        data, _ = generate(
            key, place.env, place.tasks, 8, place.horizon, epsilon=0.0, tie_breaking="uniform"
        )
        time = jnp.broadcast_to(jnp.arange(place.horizon + 1), (8, place.horizon + 1))
        return data, symmetric_observations(place.env, data, time, jnp.arange(8, dtype=jnp.int32))

    data, view = jax.device_get(run(KEY))
    # Elements in the order of the docstring: bit 0 rows, bit 1 columns, bit 2 transpose.
    for element in range(8):
        table = np.arange(size**2).reshape(size, size)
        if element & 1:
            table = table[::-1]
        if element & 2:
            table = table[:, ::-1]
        if element & 4:
            table = table.T
        # A cell of the old grid lands where `table` holds its number.
        lands = np.argsort(table.ravel())
        for t in range(int(data.length[element]) + 1):
            expected = place.env.observe(
                jnp.asarray(lands[data.objects[element]], jnp.int32),
                jnp.asarray(lands[data.walls[element]], jnp.int32),
                jnp.asarray(lands[data.agent[element, t]], jnp.int32),
            )
            np.testing.assert_array_equal(view[element, t], expected)
