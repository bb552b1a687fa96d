"""Throughput of the three training stages: tokens/s and environment steps/s, against this machine's own matmul rate.

Model FLOPs are counted from the parameters that a token passes (2 per weight forward, 4 backward for what is trained, 2
backward for what is only passed through), so the utilisation leaves out attention scores, data generation and norms.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

import configs
from internal_rl.config import Config
from internal_rl.models.networks import base_network, metacontroller_network
from internal_rl.stages import discover, pretrain, reinforce
from internal_rl.world import pretrain_world


@dataclass(frozen=True)
class Rate:
    """One measured stage."""

    name: str
    unit: str
    per_second: float
    milliseconds_per_step: float
    utilisation: float | None


def main(preset: str = "gridworld-laptop", steps: int = 10, repeats: int = 5) -> None:
    """Measure pretrain, discover and reinforce of a preset; the median of `repeats` chunks of `steps` steps each."""
    config = configs.get(preset)
    peak = matmul_flops()
    print(f"{jax.devices()[0].device_kind}: float32 matmul {peak / 1e9:.0f} GFLOP/s")
    rates = [
        _pretrain(config, steps, repeats, peak),
        _discover(config, steps, repeats, peak),
        _reinforce(config, steps, repeats),
    ]
    for rate in rates:
        share = "" if rate.utilisation is None else f", {100 * rate.utilisation:.0f} % of matmul"
        print(
            f"{rate.name:10} {rate.per_second:12,.0f} {rate.unit}/s "
            f"({rate.milliseconds_per_step:.1f} ms per step{share})"
        )
    print(json.dumps({rate.name: rate.per_second for rate in rates}))


def matmul_flops(size: int = 1024, repeats: int = 20) -> float:
    """Float32 matmul rate of the device in FLOP/s: the hardware limit that the stages are held against."""
    x = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda x: x @ x / size)
    product(x).block_until_ready()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def _pretrain(config: Config, steps: int, repeats: int, peak: float) -> Rate:
    state = jax.jit(lambda key: pretrain.init(config, key))(jax.random.key(0))
    weights = _matrix_weights(state.params)
    seconds, metrics = _time(pretrain.make_update(config), state, None, steps, repeats)
    tokens = float(metrics["tokens"].mean())
    flops = 6 * weights * tokens * steps
    return _rate("pretrain", "tokens", tokens, steps, seconds, flops / seconds / peak)


def _discover(config: Config, steps: int, repeats: int, peak: float) -> Rate:
    world = pretrain_world(config.env)
    base_net = base_network(config, world.obs_spec, world.action_spec)
    base = jax.jit(base_net.init)(jax.random.key(0))
    state = jax.jit(lambda key: discover.init(config, key))(jax.random.key(0))
    seconds, _ = _time(discover.make_update(config), state, base, steps, repeats)
    # Padding counts here: every row is one trajectory, and its padded steps are computed, too. Every candidate of the
    # contest has rows of its own. What the encoder reads besides the rows (its view) is not counted.
    tokens = config.discover.batch_size * world.horizon * config.discover.candidates
    depth, candidates = config.model.depth, config.discover.candidates
    upper = _matrix_weights(base) * (depth - config.model.controlled_layer) / depth
    one = state.params
    if candidates > 1:
        one = jax.tree.map(lambda x: x[0], one)
    flops = 2 * _matrix_weights(base) + 2 * upper + 6 * _matrix_weights(one)
    share = flops * tokens * steps / seconds / peak
    name = "discover" if candidates == 1 else f"discover, {candidates} candidates"
    return _rate(name, "tokens", tokens, steps, seconds, share)


def _reinforce(config: Config, steps: int, repeats: int) -> Rate:
    world = pretrain_world(config.env)
    keys = jax.random.split(jax.random.key(0))
    base = base_network(config, world.obs_spec, world.action_spec).init(keys[0])
    frozen = reinforce.Frozen(base, metacontroller_network(config).init(keys[1]))
    config = replace(config, reinforce=replace(config.reinforce, method="internal"))
    state = reinforce.init(config, jax.random.key(1))
    seconds, metrics = _time(reinforce.make_update(config), state, frozen, steps, repeats)
    env_steps = float(metrics["episode_length"].mean()) * config.reinforce.batch_size
    return _rate("reinforce", "env steps", env_steps, steps, seconds, None)


def _time(
    update: Callable, state: Any, frozen: Any, steps: int, repeats: int
) -> tuple[float, dict[str, jax.Array]]:
    """Median seconds of a compiled chunk of `steps` updates, and the last chunk's metrics [steps]."""

    @jax.jit
    def chunk(state, frozen):
        return jax.lax.scan(lambda s, _: update(s, frozen), state, None, length=steps)

    state, metrics = jax.block_until_ready(chunk(state, frozen))
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        state, metrics = jax.block_until_ready(chunk(state, frozen))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), metrics


def _rate(
    name: str, unit: str, per_step: float, steps: int, seconds: float, share: float | None
) -> Rate:
    return Rate(name, unit, per_step * steps / seconds, 1e3 * seconds / steps, share)


def _matrix_weights(params: Any) -> int:
    return sum(int(jnp.size(x)) for x in jax.tree.leaves(params) if jnp.ndim(x) >= 2)
