"""Time and memory of one training batch of every estimator, against the length of an episode.

A batch is what training does: 8 episodes of key-to-door, an update of the credit model, tables, a
policy step. Memory is what XLA reserves for the program besides its arguments. The hardware limit is
the rate of a large matrix product on all cores: with it, what several seeds can cost at least (wall
time only).
"""

import functools
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from agents.credit.networks import adamw, apply_gradient
from agents.credit.train import (
    TrainState,
    make_init,
    make_update,
    policy_gradient,
    resample,
    tables_of,
)
from agents.credit.trajectory import rollouts
from configs import credit as presets
from internal_rl.config import RuntimeConfig
from internal_rl.credit.run import build_model, build_policy, trained_features
from internal_rl.credit.world import build_world
from internal_rl.runs.seeds import place, seed_mesh, split

from .stages import matmul_flops

PRESET = "cocoa-length-23"
METHODS = (
    "reinforce",
    "advantage",
    "q_critic",
    "trajectory_cv",
    "hca_return",
    "counterfactual_return",
    "cocoa_reward",
    "cocoa_feature",
    "hca_plus",
    "hca",
)


def _setting(length: int, method: str, model: Any) -> tuple[Any, Any, Any, Any]:
    config = presets.get(PRESET, method, model)
    door = config.world.key_to_door.__class__(length=length)
    world = build_world(config.world.__class__(key_to_door=door))
    return config, world, build_model(config.credit, world), build_policy(config, world)


@functools.cache
def _start(length: int, method: str, model: Any, seeds: int) -> TrainState:
    """State before the first batch; several seeds have an axis of their own."""
    config, world, credit, policy = _setting(length, method, model)
    init = make_init(config.train, policy, credit, config.credit.policy_rate)
    key = jax.random.key(0)
    many = seeds > 1
    state = jax.jit(jax.vmap(init))(jax.random.split(key, seeds)) if many else jax.jit(init)(key)
    if method == "cocoa_feature" and model == "learned":
        # Untrained features tell more outcomes apart, and cost more.
        found = trained_features(config, world, policy, state, seeds)
        state = state.replace(credit={**state.credit, "features": found})  # pyright: ignore[reportAttributeAccessIssue]
    return state


def _program(
    length: int, method: str, model: Any, seeds: int, batches: int, runtime: RuntimeConfig
) -> tuple[Any, Any]:
    config, world, credit, policy = _setting(length, method, model)
    update = make_update(config.train, world.world, policy, credit, config.credit.policy_rate)
    mesh = seed_mesh(runtime, seeds)
    states = _start(length, method, model, seeds)
    if seeds > 1:
        states, update = place(states, mesh), jax.vmap(update)

    def run(states: Any) -> Any:
        return jax.lax.scan(lambda s, _: (update(s)[0], None), states, None, length=batches)[0]

    return jax.jit(split(run, mesh)).lower(states).compile(), states


def _matmul_flops_of_a_batch(length: int, method: str, model: Any) -> float:
    """Arithmetic of one batch of one seed in matrix products; everything else is not counted.

    Loops over distinct sequences of observations count as often as batches of an untrained policy
    have them: somewhat too often where the batch is resampled, too rarely for learned features, where
    distinct outcomes multiply them.
    """
    config, world, credit, policy = _setting(length, method, model)
    rate = config.credit.policy_rate
    init = make_init(config.train, policy, credit, rate)
    update = make_update(config.train, world.world, policy, credit, rate)
    acting = policy.acting(policy.init(jax.random.key(0)), config.train.epsilon)

    def episodes(key: Any) -> Any:
        size = config.train.batch_size
        return rollouts(world.world.env, world.world.params, acting, key, length, size)[0].obs

    found = np.asarray(jax.jit(jax.vmap(episodes))(jax.random.split(jax.random.key(1), 64)))
    distinct = statistics.mean(len(np.unique(batch, axis=0)) for batch in found)
    jaxpr = jax.make_jaxpr(update)(jax.eval_shape(init, jax.random.key(0)))
    return _matmul_flops(jaxpr, distinct)


def _matmul_flops(jaxpr: Any, distinct: float) -> float:
    """Of a jaxpr and all that it contains; the body of a while loop counts `distinct` times."""
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            inner = math.prod(shape[axis] for axis in contracted)
            total += 2.0 * inner * math.prod(equation.outvars[0].aval.shape)
        times = {"scan": equation.params.get("length"), "while": distinct}.get(
            equation.primitive.name, 1
        )
        inside = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr)
        total += times * sum(_matmul_flops(found, distinct) for found in inside if _is_jaxpr(found))
    return total


def _is_jaxpr(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def _parts(length: int, method: str, model: Any, seeds: int) -> dict[str, tuple[Any, Any]]:
    """Programs that do one part of a batch each on one device, with their arguments."""
    config, world, credit, policy = _setting(length, method, model)
    train, rate = config.train, config.credit.policy_rate
    optimizer = adamw(rate)
    acting = lambda state: policy.acting(state.policy[0], train.epsilon)  # noqa: E731

    def roll(state: TrainState) -> Any:
        env, params = world.world.env, world.world.params
        return rollouts(env, params, acting(state), state.key, length, train.batch_size)[0]

    def learn(state: TrainState, batch: Any) -> Any:
        return credit.update(state.credit, resample(state.key, batch), acting(state), state.key)[0]

    def table(state: TrainState, batch: Any) -> Any:
        return tables_of(credit, state.credit, batch, state.key)

    def step(state: TrainState, batch: Any, tables: Any) -> Any:
        gradient, _ = policy_gradient(train, policy, state.policy[0], batch, tables)
        return apply_gradient(optimizer, state.policy[0], state.policy[1], gradient)

    start = _start(length, method, model, seeds)
    arguments = (start if seeds > 1 else jax.tree.map(lambda x: x[None], start),)
    found: dict[str, tuple[Any, Any]] = {}
    for name, part in (("episodes", roll), ("tables", table), ("policy step", step)):
        if name == "tables":
            found["model"] = (jax.jit(jax.vmap(learn)), arguments)
        compiled = jax.jit(jax.vmap(part))
        found[name] = (compiled, arguments)
        if name != "policy step":
            arguments = (*arguments, compiled(*arguments))
    return found


def main(
    lengths: tuple[int, ...] = (23, 43, 63, 83, 103),
    methods: tuple[str, ...] = METHODS,
    exact_methods: tuple[str, ...] = ("q_critic", "cocoa_reward"),
    seeds: int = 10,
    batches: int = 5,
    repeats: int = 3,
    clock: Literal["wall", "cpu"] = "wall",
    parts: bool = False,
    cpu_devices: int = presets.get(PRESET).runtime.cpu_devices,
    output: Path | None = None,
) -> None:
    """Milliseconds and MiB of one training batch, for one seed and for several vmapped.

    Args:
        lengths: of key-to-door.
        methods: estimators with learned models.
        exact_methods: estimators with exact models.
        seeds: seeds that are vmapped in the second column.
        batches: training batches per repeat, in one program.
        repeats: the median of these is printed; one seed and several take turns.
        clock: cpu: processor time of all threads, for a machine that is busy with other things; with
            two devices a ratio of 8 then stands for 4 at best.
        parts: also time the parts of a batch alone, on one device; each pays for its own start, so
            they sum to more than the batch.
        cpu_devices: that the seeds are split over on a CPU; by default as the presets do.
        output: also write all numbers to this JSON file.
    """
    for name, values in (("lengths", lengths), ("batches", [batches]), ("repeats", [repeats])):
        if not values or min(values) < 1:
            raise ValueError(f"{name}={values}: allowed are positive numbers")
    runtime = RuntimeConfig(cpu_devices=cpu_devices)
    found = seed_mesh(runtime, seeds).size
    # A rate of all cores says nothing about processor time.
    peak = matmul_flops() if clock == "wall" else math.nan
    print(
        f"{seeds} seeds on {found} devices, {jax.devices()[0].device_kind}, jax {jax.__version__}, "
        f"{clock} time; float32 matmul {peak / 1e9:.0f} GFLOP/s"
    )
    print(
        f"{'':26}{'length':>7}{'1 seed ms':>11}{f'{seeds} seeds ms':>13}{'ratio':>7}{'MiB':>8}"
        f"{'MFLOP':>8}{'of peak, 1':>12}{f'{seeds}':>7}"
    )
    rows = []
    for method, model in [(m, "learned") for m in methods] + [(m, "exact") for m in exact_methods]:
        own = []
        for length in lengths:
            row: dict[str, Any] = {"method": method, "model": model, "length": length}
            programs = [
                _program(length, method, model, count, batches, runtime) for count in (1, seeds)
            ]
            times = _milliseconds(programs, batches, repeats, clock)
            for count, (run, _), ms in zip((1, seeds), programs, times, strict=True):
                row[f"ms_{count}"] = ms
                memory = run.memory_analysis()
                row[f"mib_{count}"] = memory.temp_size_in_bytes / 2**20 if memory else math.nan
                if parts:
                    found_parts = _parts(length, method, model, count)
                    row[f"parts_{count}"] = dict(
                        zip(
                            found_parts,
                            _milliseconds(
                                [
                                    (lambda a, f=f: (jax.block_until_ready(f(*a)), a)[1], a)
                                    for f, a in found_parts.values()
                                ],
                                1,
                                5 * repeats,
                                clock,
                            ),
                            strict=True,
                        )
                    )
            row["ratio"] = row[f"ms_{seeds}"] / row["ms_1"]
            row["matmul_flops"] = _matmul_flops_of_a_batch(length, method, model)
            for count in (1, seeds):
                rate = row["matmul_flops"] * count / (1e-3 * row[f"ms_{count}"])
                row[f"of_peak_{count}"] = rate / peak
            own.append(row)
            print(
                f"{method + ' ' + model:26}{length:7}{row['ms_1']:11.2f}{row[f'ms_{seeds}']:13.2f}"
                f"{row['ratio']:7.1f}{row['mib_1']:8.1f}{row['matmul_flops'] / 1e6:8.1f}"
                f"{row['of_peak_1']:12.0%}{row[f'of_peak_{seeds}']:7.0%}",
                flush=True,
            )
            for name, one in row.get("parts_1", {}).items():
                many = row[f"parts_{seeds}"][name]
                print(f"{'  ' + name:33}{one:11.2f}{many:13.2f}{many / one:7.1f}", flush=True)
        if len(own) > 1:
            first, last = own[0], own[-1]
            growth = math.log(last["ms_1"] / first["ms_1"]) / math.log(
                last["length"] / first["length"]
            )
            print(f"{'':26}time grows as length^{growth:.1f}")
        rows += own
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(rows, indent=2))


def _milliseconds(
    programs: list[tuple[Any, Any]], batches: int, repeats: int, clock: str
) -> list[float]:
    """Median time of each program per batch. They take turns, since a machine's speed may drift."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    states = [jax.block_until_ready(run(start)) for run, start in programs]
    times = [[] for _ in programs]
    for _ in range(repeats):
        for i, (run, _) in enumerate(programs):
            start = now()
            states[i] = jax.block_until_ready(run(states[i]))
            times[i].append(1e3 * (now() - start) / batches)
    return [statistics.median(own) for own in times]
