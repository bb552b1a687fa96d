"""Strict settings for every test.

Warnings are errors (pyproject.toml), JAX refuses implicit rank and dtype promotion, and there are
two CPU devices, so that sharding is exercised. `pytest --typecheck` also checks every jaxtyping
annotation of our packages.

Compiling is what costs, so every program is kept in one compilation cache for the session, which all
test processes and their subprocesses share; the user's own is left alone.
"""

import gc
import importlib
import os
import tempfile

# Both are read when jax is first imported, so they come before it.
os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile much and compute little: optimisation level 0 without the newer code generator for
# fusions makes compiling seven times as fast. Test processes share the cores, so neither compiling nor
# matrix products use several threads.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=2"
    + " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    + " --xla_cpu_parallel_codegen_split_count=1 --xla_cpu_multi_thread_eigen=false"
)

import hypothesis
import jax
import pytest

# Tracing leaves large structures behind that all stay: to look through them again and again takes a tenth of the time.
gc.set_threshold(100_000, 20, 100)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# No deadline: the first example of a test compiles. Derandomised: CI fails where we would.
hypothesis.settings.register_profile("repo", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repo")

PACKAGES = ("agents", "configs", "envs", "internal_rl")
LIBRARIES = (
    "distrax",
    "flax.nnx",
    "gymnax",
    "imageio.v3",
    "matplotlib.figure",
    "optax",
    "orbax.checkpoint",
)
LIBRARIES += ("safetensors.flax", "scipy.optimize", "tensorboardX", "tyro")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--typecheck",
        action="store_true",
        help="check shapes, dtypes and types of our packages at run time (jaxtyping + beartype)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--typecheck"):
        from jaxtyping import install_import_hook

        # While the hook loads a module of ours, it looks for bytecode of its own of all that this imports, and compiles
        # over a thousand library modules anew where there is none.
        for library in LIBRARIES:
            importlib.import_module(library)
        import tests.typechecker  # noqa: F401 - the hook itself imports no more than `tests`

        install_import_hook(PACKAGES, "tests.typechecker.check")
    if not os.environ.get("INTERNAL_RL_CACHE"):  # xdist's processes inherit it
        # A subprocess that outlives its test may still write there at the end.
        folder = tempfile.TemporaryDirectory(
            prefix="internal-rl-tests-", ignore_cleanup_errors=True
        )
        os.environ["INTERNAL_RL_CACHE"] = folder.name
        config.add_cleanup(folder.cleanup)
        config.add_cleanup(lambda: os.environ.pop("INTERNAL_RL_CACHE"))
    from internal_rl.runs.cache import enable_compilation_cache

    enable_compilation_cache()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `-n 2 --dist loadgroup`: a file stays in one process, because its tests share compiled functions.

    All files that use the trained runs form one group, so that they are trained once; it is the longest, so it goes
    first.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    shared = {item.path for item in items if "runs" in getattr(item, "fixturenames", ())}
    for item in items:
        group = "runs" if item.path in shared else item.path.relative_to(config.rootpath).as_posix()
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.path not in shared)
