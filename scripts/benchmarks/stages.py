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
from internal_rl import build
from internal_rl.config import Config
from internal_rl.demonstrations.contract import Demonstrations, HostDemonstrations
from internal_rl.errors import UserError
from internal_rl.stages import discover, pretrain, reinforce


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
    world = build.pretrain_world(config.env)
    source = _on_device(build.demonstrations(config, world, clean=False))
    network = build.base_network(config.model, world)
    state = jax.jit(lambda key: pretrain.init(config.pretrain, network, key))(jax.random.key(0))
    weights = _matrix_weights(state.params)
    update = pretrain.make_update(config.pretrain, network, source)
    seconds, metrics = _time(update, state, source.data, steps, repeats)
    tokens = float(metrics["tokens"].mean())
    flops = 6 * weights * tokens * steps
    return _rate("pretrain", "tokens", tokens, steps, seconds, flops / seconds / peak)


def _discover(config: Config, steps: int, repeats: int, peak: float) -> Rate:
    world = build.pretrain_world(config.env)
    main, tail = build.discovery_demonstrations(config, world)
    source, models, cfg = _on_device(main), build.models(config, world), config.discover
    base = jax.jit(models.base.init)(jax.random.key(0))
    state = jax.jit(lambda key: discover.init(cfg, models, key, base))(jax.random.key(0))
    update = discover.make_update(cfg, models, world, source, tail)
    seconds, _ = _time(update, state, (base, source.data), steps, repeats)
    # Padding counts here: every row is one trajectory, and its padded steps are computed, too. Every candidate of the
    # contest has rows of its own. What the encoder reads besides the rows (its view) is not counted.
    tokens = cfg.batch_size * world.horizon * cfg.candidates
    depth, candidates = models.base.depth, cfg.candidates
    upper = _matrix_weights(base) * (depth - models.layer) / depth
    one = state.params
    if candidates > 1:
        one = jax.tree.map(lambda x: x[0], one)
    flops = 2 * _matrix_weights(base) + 2 * upper + 6 * _matrix_weights(one)
    share = flops * tokens * steps / seconds / peak
    name = "discover" if candidates == 1 else f"discover, {candidates} candidates"
    return _rate(name, "tokens", tokens, steps, seconds, share)


def _reinforce(config: Config, steps: int, repeats: int) -> Rate:
    cfg = replace(config.reinforce, method="internal")
    world = reinforce.training_world(build.heldout_world(config.env), cfg)
    models = build.models(replace(config, reinforce=cfg), world)
    keys = jax.random.split(jax.random.key(0))
    frozen = reinforce.Frozen(models.base.init(keys[0]), models.meta.init(keys[1]))
    state = reinforce.init(cfg, models, jax.random.key(1))
    update = reinforce.make_update(cfg, models, world)
    seconds, metrics = _time(update, state, frozen, steps, repeats)
    env_steps = float(metrics["episode_length"].mean()) * cfg.batch_size
    return _rate("reinforce", "env steps", env_steps, steps, seconds, None)


def _on_device(found: Demonstrations | HostDemonstrations) -> Demonstrations:
    if not isinstance(found, Demonstrations):
        raise UserError(
            "data.device_gib: the benchmark reads demonstrations on the device; allowed: at least the size of the data"
        )
    return found


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
