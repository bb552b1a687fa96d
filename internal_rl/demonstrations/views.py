"""What the encoder reads in discovery where it is not the trajectory that is to be explained. Not in the paper.

The encoder knows the future, so it can describe a sub-goal by anything that gives it away: the place it lies at, the
direction, the number of steps until it is reached. On known tasks all of these lower the loss; on unknown ones only a
code of the object itself is of use. A view hides what is not to be coded: a world's `view` symmetries (places and
directions on a grid); `encoder_stretch` blurs durations in any world.

Letters: R rows, T horizon, V tokens of the view, O observation size.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from internal_rl.config import DiscoverConfig
from internal_rl.demonstrations.contract import Batch, Demonstrations, EncoderView
from internal_rl.errors import UserError


def asks_for_view(cfg: DiscoverConfig) -> bool:
    """Whether the encoder reads something else than the rows."""
    return cfg.encoder_view != "same" or cfg.encoder_stretch > 0


def discovery_batch(
    key: jax.Array,
    world: Any,
    demonstrations: Demonstrations,
    data: Any,
    rows: int,
    cfg: DiscoverConfig,
) -> Batch:
    """Trajectories of D*, one per row, with the views that the encoder reads."""
    batch, _ = demonstrations.rows(data, key, rows, clean=True)
    # Folded in, so that the trajectories are the same whatever the encoder reads.
    return with_view(jax.random.fold_in(key, 1), world, batch, cfg)


def with_view(key: jax.Array, world: Any, batch: Batch, cfg: DiscoverConfig) -> Batch:
    """Rows of one trajectory each, with the view that `cfg` asks for, if any."""
    if not asks_for_view(cfg):
        return batch
    key_symmetry, key_stretch = jax.random.split(key)
    rows, steps = batch.valid.shape
    frames = steps + 1
    length = jnp.sum(batch.valid, axis=1, dtype=jnp.int32)[:, None] + int(cfg.encoder_end)
    time = jnp.broadcast_to(jnp.arange(frames, dtype=jnp.int32), (rows, frames))
    valid, token = time < length, time[:, :-1]
    if cfg.encoder_stretch:
        tokens = cfg.encoder_stretch * steps
        starts = stretched_starts(key_stretch, length, frames, tokens)
        time, token = stretch(starts, tokens)
        valid, token = jnp.ones(time.shape, bool), token[:, :-1]
    if cfg.encoder_view == "symmetric":
        source = whole_frames(batch) if batch.source is None else batch.source
        obs = world.view(key_symmetry, source, time)
    else:
        obs = frames_at(batch, time)
    return dataclasses.replace(batch, view=EncoderView(obs, valid, token))


def check_view(world: Any, cfg: DiscoverConfig) -> None:
    """Raise `UserError` if `cfg` asks for symmetries that the world does not have."""
    if cfg.encoder_view == "symmetric" and not hasattr(world, "view"):
        raise UserError(
            "discover.encoder_view is 'symmetric'; allowed: 'same', since this world has no member `view`"
        )


def whole_frames(batch: Batch) -> jax.Array:
    """Observations o_1, …, o_{T+1} [R, T+1, *O] of rows of one trajectory each; the last one is repeated in the
    padding."""
    steps = batch.valid.shape[1]
    return frames_at(batch, jnp.broadcast_to(jnp.arange(steps + 1), (len(batch.valid), steps + 1)))


def frames_at(batch: Batch, time: jax.Array) -> jax.Array:
    """Observations o_1, …, o_{T+1} of rows of one trajectory each, at `time` [R, V]."""
    frames = jnp.concatenate([batch.obs, batch.next_obs[:, -1:]], axis=1)
    # After a shorter trajectory's last step only `next_obs` knows what it led to.
    length = jnp.sum(batch.valid, axis=1, dtype=jnp.int32)[:, None]
    step = jnp.minimum(time, length - 1)
    at = lambda x, t: jax.vmap(lambda row, index: row[index])(x, t)  # noqa: E731
    end = (time >= length).reshape(*time.shape, *(1,) * (frames.ndim - 2))
    return jnp.where(end, at(batch.next_obs, step), at(frames, step))


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
