"""What the encoder reads in discovery where it is not the trajectory that is to be explained. Not in the paper.

The encoder knows the future, so it can describe a sub-goal by anything that gives it away: the place it lies at, the
direction, the number of steps until it is reached. On known tasks all of these lower the loss; on unknown ones only a
code of the object itself is of use. A view hides what is not to be coded: `symmetric` places and directions;
`encoder_stretch` blurs durations.

Letters: R rows, T horizon, V tokens of the view, O observation size.
"""

import flax.struct
import jax
import jax.numpy as jnp

from envs.pinpad.expert import Trajectories
from envs.pinpad.layout import apply_symmetry
from internal_rl.config import DiscoverConfig
from internal_rl.world import World

SYMMETRIES = 8


@flax.struct.dataclass
class EncoderView:
    """Trajectories as the encoder reads them, one per row."""

    obs: jax.Array
    """[R, V, O]: o_1, …, o_{T+1}. The last one shows what the last action led to; `encoder_end` tells if it is valid."""
    valid: jax.Array
    """[R, V], False on padding."""
    token: jax.Array
    """[R, T] int32: the token of the view that stands for step t, its first where there are several."""


def encoder_view(
    key: jax.Array, world: World, trajectories: Trajectories, cfg: DiscoverConfig
) -> EncoderView | None:
    """The view that `cfg` asks for, one row per trajectory [R]; None where the encoder reads the trajectory itself."""
    if cfg.encoder_view == "same" and not cfg.encoder_stretch:
        return None
    key_symmetry, key_stretch = jax.random.split(key)
    rows, frames = trajectories.agent.shape
    length = trajectories.length[:, None] + int(cfg.encoder_end)
    time = jnp.broadcast_to(jnp.arange(frames, dtype=jnp.int32), (rows, frames))
    valid, token = time < length, time[:, :-1]
    if cfg.encoder_stretch:
        starts = stretched_starts(key_stretch, length, frames, cfg.encoder_stretch * world.horizon)
        time, token = stretch(starts, cfg.encoder_stretch * world.horizon)
        valid, token = jnp.ones(time.shape, bool), token[:, :-1]
    element = jnp.zeros((rows,), jnp.int32)
    if cfg.encoder_view == "symmetric":
        element = jax.random.randint(key_symmetry, (rows,), 0, SYMMETRIES)
    return EncoderView(symmetric_observations(world, trajectories, time, element), valid, token)


def stretched_starts(key: jax.Array, length: jax.Array, frames: int, tokens: int) -> jax.Array:
    """First token [R, frames] of every frame when `length` [R, 1] frames fill `tokens` tokens.

    Every frame gets one token and an exponentially distributed share of the others. Frames in the padding start
    at `tokens`.
    """
    index = jnp.arange(frames, dtype=jnp.int32)[None]
    exists = index < length
    share = jnp.where(exists, jax.random.exponential(key, exists.shape), 0.0)
    until = jnp.cumsum(share, axis=1)
    before = (until - share) / until[:, -1:]
    spare = (tokens - length).astype(share.dtype)
    start = index + jnp.floor(before * spare).astype(jnp.int32)
    return jnp.where(exists, start, tokens)


def stretch(starts: jax.Array, tokens: int) -> tuple[jax.Array, jax.Array]:
    """Frame of every token [R, tokens], and a token of every frame [R, frames], from the starts [R, frames]."""
    slots = jnp.arange(tokens, dtype=jnp.int32)
    frame = jax.vmap(lambda row: jnp.searchsorted(row, slots, side="right"))(starts) - 1
    return frame.astype(jnp.int32), jnp.minimum(starts, tokens - 1)


def symmetric_observations(
    world: World, trajectories: Trajectories, time: jax.Array, element: jax.Array
) -> jax.Array:
    """Observations [R, V, O] at `time` [R, V], the grid of trajectory r moved by the symmetry `element` [R]."""
    rows, tokens = time.shape

    def move(cells: jax.Array) -> jax.Array:
        return apply_symmetry(cells, element[:, None], world.env.grid_size)

    def at_every_token(cells: jax.Array) -> jax.Array:
        return jnp.broadcast_to(move(cells)[:, None], (rows, tokens, cells.shape[1]))

    return world.env.observe(
        at_every_token(trajectories.objects),
        at_every_token(trajectories.walls),
        move(jnp.take_along_axis(trajectories.agent, time, axis=1)),
    )
