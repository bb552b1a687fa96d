"""Environment steps per second: gridworld-pinpad beside navix Empty-8x8 and gymnax FourRooms.

All contenders run in one process on the same device, with uniform random actions, auto-reset, and
the same batch size and number of steps in one `lax.scan`. They take turns in every repeat, so that
other load on the machine hits all of them.

* With observation: every observation is summed into the scan's carry, so none can be optimised
  away. Peer: navix Empty-8x8 (symbolic observation, 192 numbers, fixed start).
* Without observation: only rewards and episode ends are summed. Peer: gymnax FourRooms (fixed
  start).

Ours draws a fresh uniform layout and task at every reset.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnax
import jax
import jax.numpy as jnp

from envs.pinpad.gridworld import GridPinpad, PinpadParams
from envs.pinpad.tasks import POST_A1, TABLE_A2, encode_tasks

NAVIX_HINT = (
    "navix is not installed, so it is left out. Install the extra with: "
    'pip install -c constraints.txt -e ".[bench]"'
)


@dataclass(frozen=True)
class Contender:
    """An environment as two functions on a whole batch.

    `reset(keys)` -> state; `step(keys, state, actions)` -> (state, observation, [B] score), where
    the score contains the reward and the end of the episode.
    """

    name: str
    num_actions: int
    reset: Callable[[Any], Any]
    step: Callable[[Any, Any, Any], tuple[Any, Any, Any]]


def _gymnax(name: str, env: Any, params: Any) -> Contender:
    def step(keys: Any, state: Any, actions: Any) -> tuple[Any, Any, Any]:
        batched = jax.vmap(env.step, in_axes=(0, 0, 0, None))
        obs, state, reward, terminated, truncated, _ = batched(keys, state, actions, params)
        return state, obs, reward + (terminated | truncated).astype(reward.dtype)

    def reset(keys: Any) -> Any:
        return jax.vmap(env.reset, in_axes=(0, None))(keys, params)[1]

    return Contender(name, env.num_actions, reset, step)


def _pinpad(name: str, env: GridPinpad, tasks: tuple[str, ...], max_steps: int) -> Contender:
    encoded = encode_tasks(tasks, env.num_objects)
    return _gymnax(name, env, PinpadParams(encoded, max_steps_in_episode=max_steps))


def _four_rooms() -> Contender:
    return _gymnax("gymnax FourRooms", *gymnax.make("FourRooms-misc"))


def _navix() -> Contender | None:
    try:
        import navix  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    env = navix.make("Navix-Empty-8x8-v0")

    def step(keys: Any, timestep: Any, actions: Any) -> tuple[Any, Any, Any]:
        del keys  # navix keeps its keys in the state
        timestep = jax.vmap(env.step)(timestep, actions)
        score = timestep.reward + timestep.is_done().astype(timestep.reward.dtype)
        return timestep, timestep.observation, score

    num_actions = len(env.action_set)
    return Contender("navix Empty-8x8", num_actions, jax.vmap(env.reset), step)


def _program(contender: Contender, batch: int, steps: int, observe: bool) -> Callable[[Any], Any]:
    """(key, state) -> (key, state, sum): `steps` steps of `batch` environments, compiled."""

    def body(carry: Any, _: None) -> tuple[Any, None]:
        key, state, total = carry
        key, action_key, step_key = jax.random.split(key, 3)
        actions = jax.random.randint(action_key, (batch,), 0, contender.num_actions)
        keys = jax.random.split(step_key, batch)
        state, obs, score = contender.step(keys, state, actions)
        total = total + jnp.sum(score, dtype=jnp.float32)
        if observe:
            total = total + jnp.sum(obs, dtype=jnp.float32)
        return (key, state, total), None

    @jax.jit
    def run(carry: Any) -> Any:
        return jax.lax.scan(body, (*carry, jnp.float32(0)), None, length=steps)[0]

    return run


def _time(
    programs: dict[str, Any], contenders: dict[str, Contender], work: int, batch: int, n: int
):
    """Steps per second of each contender in each of n interleaved repeats."""
    carries, rates = {}, {name: [] for name in programs}
    for name, run in programs.items():
        key, reset_key = jax.random.split(jax.random.key(0))
        state = jax.jit(contenders[name].reset)(jax.random.split(reset_key, batch))
        carry = (key, state)
        for _ in range(2):  # the second call may compile again, where a reset has weak types
            carry = jax.block_until_ready(run(carry))[:2]
        carries[name] = carry
    for _ in range(n):
        for name, run in programs.items():
            start = time.perf_counter()
            *carry, _ = jax.block_until_ready(run(tuple(carries[name])))
            rates[name].append(work / (time.perf_counter() - start))
            carries[name] = carry
    return rates


def _report(title: str, rates: dict[str, list[float]], peer: str | None) -> list[dict[str, Any]]:
    print(f"\n{title}")
    print(f"{'':44}{'median':>11}{'min':>11}{'max':>11}   ratio to peer (min–max)")
    rows = []
    for name, values in rates.items():
        row = {"name": name, "median": statistics.median(values), "min": min(values)}
        row |= {"max": max(values), "setting": title, "steps_per_second": values}
        text = f"{name:44}{row['median']:11,.0f}{row['min']:11,.0f}{row['max']:11,.0f}"
        if peer in rates and name != peer:
            ratios = [ours / theirs for ours, theirs in zip(values, rates[peer], strict=True)]
            row |= {"peer": peer, "ratio": statistics.median(ratios)}
            text += f"   {row['ratio']:.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(text)
        rows.append(row)
    return rows


def main(
    batch_sizes: tuple[int, ...] = (256, 2048),
    steps: int = 200,
    repeats: int = 9,
    output: Path | None = None,
) -> None:
    """Environment steps per second, with and without observation, beside navix and gymnax.

    Args:
        batch_sizes: environments stepped together.
        steps: steps of each environment per repeat, in one scan.
        repeats: interleaved repeats; the median, minimum and maximum are printed.
        output: also write all numbers to this JSON file.
    """
    for name, values in (("batch_sizes", batch_sizes), ("steps", [steps]), ("repeats", [repeats])):
        if not values or min(values) < 1:
            raise ValueError(f"{name}={values}: allowed are positive numbers")
    ours = [
        _pinpad("pinpad 4×4, 4 objects, 1 wall, egocentric", GridPinpad(4, 4, 1), TABLE_A2, 24),
        _pinpad("pinpad 7×7, 8 objects, 4 walls, egocentric", GridPinpad(7, 8, 4), POST_A1, 100),
        _pinpad(
            "pinpad 7×7, 8 objects, 4 walls, onehot", GridPinpad(7, 8, 4, "onehot"), POST_A1, 100
        ),
    ]
    navix = _navix()
    if navix is None:
        print(NAVIX_HINT)
    settings = (
        ("with observation", True, [*ours, navix] if navix else ours, "navix Empty-8x8"),
        ("without observation", False, [*ours[:2], _four_rooms()], "gymnax FourRooms"),
    )
    print(_environment())
    rows = []
    for observed, flag, field, peer in settings:
        contenders = {contender.name: contender for contender in field}
        for batch in batch_sizes:
            programs = {name: _program(c, batch, steps, flag) for name, c in contenders.items()}
            rates = _time(programs, contenders, batch * steps, batch, repeats)
            title = f"steps/s {observed}, batch {batch}, {steps} steps, {repeats} repeats"
            rows += _report(title, rates, peer)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps({"environment": _environment(), "rows": rows}, indent=2))


def _environment() -> str:
    versions = []
    for package in ("jax", "gymnax", "navix"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    device = jax.devices()[0]
    return f"{device.device_kind} ({platform.machine()}), {', '.join(versions)}"
