"""Learning-aware agents: inner steps per second, growth with M·T and B, memory of the long context.

An inner step is one step of one chain with both players acting. "play" is meta-episodes against naive learners that
update; "update" adds the meta agent's gradient step. Memory is what XLA's memory analysis of the compiled program counts
besides arguments and results; the state that a policy carries from step to step is counted apart.
"""

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax

from agents.learning_aware import population
from agents.learning_aware.policies import Policy
from agents.learning_aware.shaping import against_naive
from configs import social as presets
from internal_rl.social.config import GameConfig, NaiveConfig, PolicyConfig, SocialConfig
from internal_rl.social.pipeline import parts


def _config(game: str, policy: str, k: int, batch: int, inner_episodes: int) -> SocialConfig:
    base = presets.get("ipd-shaping-hawk-laptop", SocialConfig)
    hawk = PolicyConfig(kind="hawk")
    if game == "cleanup":
        base = replace(
            base,
            game=GameConfig("cleanup", 64),
            naive=NaiveConfig(rule="actor_critic", policy=hawk),
        )
    own = hawk if policy == "hawk" else PolicyConfig()
    pool = replace(base.pool, meta_episodes=k, batch=batch, inner_episodes=inner_episodes)
    return replace(base, policy=own, pool=pool)


Clock = Literal["wall", "cpu"]


def _seconds(run: Callable[..., Any], arguments: tuple, repeats: int, clock: Clock) -> float:
    """Of one call: the median of `repeats` times, each over enough calls to fill a tenth of a second."""
    read = time.perf_counter if clock == "wall" else time.process_time

    def spent(calls: int) -> float:
        start = read()
        for _ in range(calls):
            jax.block_until_ready(run(*arguments))
        return read() - start

    spent(1)  # its memory is not there yet
    calls = math.ceil(0.1 / max(spent(1), 1e-4))
    return statistics.median(spent(calls) / calls for _ in range(repeats))


def _measure(config: SocialConfig, repeats: int, clock: Clock) -> dict[str, float]:
    game, policy, learner = parts(config)
    pool = config.pool
    state = population.init(pool, policy, learner, jax.random.key(0))
    sizes = {"inner_episodes": pool.inner_episodes, "batch": pool.batch}
    own, start = (jax.tree.map(lambda x: x[0], tree) for tree in (state.params, state.naive))
    keys = jax.random.split(jax.random.key(1), pool.meta_episodes)

    def play(keys: jax.Array, own: Any, start: Any) -> jax.Array:
        one = lambda k: against_naive(k, game, policy, own, learner, start, **sizes)[0]  # noqa: E731
        return jax.vmap(one)(keys).reward.sum()

    update = population.make_update(pool, game, policy, learner)
    play_program = jax.jit(play).lower(keys, own, start).compile()
    update_program = jax.jit(update).lower(state).compile()
    length = game.episode_length * pool.inner_episodes
    steps = pool.meta_episodes * pool.batch * length
    return {
        "chains": pool.meta_episodes * pool.batch,
        "batch": pool.batch,
        "length": length,
        "play_steps_per_s": steps / _seconds(play_program, (keys, own, start), repeats, clock),
        "update_steps_per_s": steps / _seconds(update_program, (state,), repeats, clock),
        "play_mib": _mebibytes(play_program),
        "update_mib": _mebibytes(update_program),
        # The rest, a step counter, is one for all chains.
        "carry_bytes_per_chain": _carried_bytes(policy, 2) - _carried_bytes(policy, 1),
    }


def _carried_bytes(policy: Policy, batch: int) -> int:
    carried = jax.eval_shape(lambda: policy.init_carry(batch))
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(carried))


def _mebibytes(program: jax.stages.Compiled) -> float:
    memory = program.memory_analysis()
    return memory.temp_size_in_bytes / 2**20 if memory else math.nan


def main(
    inner_episodes: tuple[int, ...] = (5, 10, 20, 40),
    batches: tuple[int, ...] = (4, 16, 64),
    cleanup_inner_episodes: tuple[int, ...] = (2, 4, 8),
    cleanup_batches: tuple[int, ...] = (4, 16, 64),
    meta_episodes: int = 2,
    repeats: int = 3,
    clock: Clock = "wall",
    games: tuple[Literal["ipd", "cleanup"], ...] = ("ipd", "cleanup"),
    compile_only: tuple[str, ...] = (),
    output: Path | None = None,
) -> None:
    """Inner steps/s and memory of IPD (T = 10) and CleanUp-lite (T = 64), against M·T and B.

    Args:
        inner_episodes: M, in the iterated prisoner's dilemma at B = 16.
        batches: B, in the iterated prisoner's dilemma at M = 10.
        cleanup_inner_episodes: M in CleanUp-lite at B = 16. With 1 the compiler drops the naive learner's only update.
        cleanup_batches: B in CleanUp-lite at M = 2.
        meta_episodes: K.
        repeats: the median of these is printed.
        clock: wall, or seconds of this process on all its cores, for a machine that others use, too.
        games: which of the two.
        compile_only: presets of `social train` whose update is compiled, but not run, for its memory; nothing else is
            measured then.
        output: also write all numbers to this JSON file.
    """
    if compile_only:
        return _print_memory(compile_only, output)
    lengths, widths = (inner_episodes, cleanup_inner_episodes), (batches, cleanup_batches)
    for values in (*lengths, *widths, (meta_episodes,), (repeats,)):
        if not values or min(values) < 1:
            raise ValueError(f"a size is {values}; allowed: positive numbers")
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {clock} seconds")
    print(
        f"{'game and policy':24}{'M·T':>6}{'B':>5}{'play /s':>12}{'update /s':>12}"
        f"{'play MiB':>10}{'update MiB':>12}{'carry B':>9}"
    )
    measured: dict[tuple, dict[str, Any]] = {}
    sweeps = [("ipd", "tabular", "length", [(16, m) for m in inner_episodes])]
    sweeps += [("ipd", "hawk", "length", [(16, m) for m in inner_episodes])]
    sweeps += [("ipd", "hawk", "batch", [(b, 10) for b in batches])]
    sweeps += [("cleanup", "hawk", "length", [(16, m) for m in cleanup_inner_episodes])]
    sweeps += [("cleanup", "hawk", "batch", [(b, 2) for b in cleanup_batches])]
    for game, policy, axis, points in sweeps:
        if game not in games:
            continue
        own = []
        for batch, m in points:
            point = (game, policy, batch, m)
            if point not in measured:
                numbers = _measure(_config(game, policy, meta_episodes, batch, m), repeats, clock)
                measured[point] = {"game": game, "policy": policy} | numbers
            row = measured[point]
            own.append(row)
            print(
                f"{game + ' ' + policy:24}{row['length']:6}{row['batch']:5}"
                f"{row['play_steps_per_s']:12,.0f}{row['update_steps_per_s']:12,.0f}"
                f"{row['play_mib']:10.2f}{row['update_mib']:12.2f}{row['carry_bytes_per_chain']:9}",
                flush=True,
            )
        if len(own) > 1:
            for what in ("play", "update"):
                print(
                    f"{'':24}{what}: time ~ {axis}^{_growth(own, axis, _seconds_of(what)):.2f}, "
                    f"memory ~ {axis}^{_growth(own, axis, lambda r, w=what: r[f'{w}_mib']):.2f}"
                )
    _write(list(measured.values()), output)


def _print_memory(names: tuple[str, ...], output: Path | None) -> None:
    rows: list[dict[str, Any]] = []
    for name in names:
        config = presets.get(name, SocialConfig)
        game, policy, learner = parts(config)
        update = population.make_update(config.pool, game, policy, learner)
        key = jax.random.key(0)
        state = jax.eval_shape(lambda: population.init(config.pool, policy, learner, key))  # noqa: B023
        size = _mebibytes(jax.jit(update).lower(state).compile())
        rows.append({"preset": name, "update_mib": size})
        print(f"{name:28}{size / 1024:10.2f} GiB in one update of one seed", flush=True)
    _write(rows, output)


def _write(rows: list[dict[str, Any]], output: Path | None) -> None:
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(rows, indent=2))


def _seconds_of(what: str) -> Callable[[dict[str, Any]], float]:
    return lambda row: row["chains"] * row["length"] / row[f"{what}_steps_per_s"]


def _growth(rows: list[dict], axis: str, value: Callable[[dict], float]) -> float:
    """Exponent between the first and the last row, NaN where nothing is there to grow."""
    first, last = rows[0], rows[-1]
    if not (value(first) > 0 and value(last) > 0):
        return math.nan
    return math.log(value(last) / value(first)) / math.log(last[axis] / first[axis])
