"""A toy stage: stochastic gradient steps on a noisy quadratic. Run as a script, it kills itself
where it is told to.

    python -m tests.internal_rl.runs.toy RUN_DIRECTORY {none|chunk|manifest} STEP

`chunk` kills (SIGKILL) between the update and the log line of STEP, `manifest` when the checkpoint
of STEP lies there but is not complete. Prints what was compiled so far, as JSON.
"""

import json
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import struct

from internal_rl.config import Config, RuntimeConfig
from internal_rl.runs import checkpoint, loop, run_dir
from internal_rl.runs.cache import count_compilations, enable_compilation_cache

RUNTIME = RuntimeConfig(log_every=5, checkpoint_every=10, keep_checkpoints=2)
STEPS = 40
TARGET = jnp.float32(3.0)


@struct.dataclass
class ToyState:
    step: jax.Array
    key: jax.Array
    w: jax.Array


def init(seed) -> ToyState:
    key = jax.random.key(seed)
    return ToyState(jnp.int32(0), key, jax.random.normal(key, (4,)))


def update(state: ToyState, target: jax.Array):
    noise = jax.random.normal(jax.random.fold_in(state.key, state.step), state.w.shape)

    def loss_fn(w):
        return jnp.mean((w - target + noise) ** 2)

    loss, grad = jax.value_and_grad(loss_fn)(state.w)
    metrics = {"loss": loss, "count": jnp.int32(3), "big": loss > 1.0}
    return state.replace(step=state.step + 1, w=state.w - 0.1 * grad), metrics


def train(run, state=None, **kwargs) -> ToyState:
    settings = {"total_steps": STEPS, "runtime": RUNTIME, "tensorboard": False, "progress": False}
    settings |= {"headline": "loss", "frozen": TARGET} | kwargs
    return loop.run("toy", init(0) if state is None else state, update, run=run, **settings)


def main(path: Path, kill_at: str, step: int) -> None:
    enable_compilation_cache()
    resume = path.exists()
    run = run_dir.open_run(path, "toy") if resume else run_dir.create(path, "toy", Config())

    def die():
        print(json.dumps(vars(counts)), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def extra(state):
        if kill_at == "chunk" and int(state.step) == step:
            die()
        return {}

    write_json = checkpoint.write_json

    def dying_write(target, data):
        if (
            kill_at == "manifest"
            and target == run.checkpoints_dir.resolve() / str(step) / "manifest.json"
        ):
            die()
        write_json(target, data)

    checkpoint.write_json = dying_write
    with count_compilations() as counts:
        train(run, extra_metrics=extra, resume=resume)
    print(json.dumps(vars(counts)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
