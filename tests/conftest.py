"""Strict settings for every test.

Warnings are errors (pyproject.toml), JAX refuses implicit rank and dtype promotion, and there are
two CPU devices, so that sharding is exercised. `pytest --typecheck` also checks every jaxtyping
annotation of our packages.
"""

import os

# Both are read when jax is first imported, so they come before it.
os.environ["JAX_PLATFORMS"] = "cpu"
XLA_FLAGS = (
    "--xla_force_host_platform_device_count=2",
    # Tests compile much and compute little. Together these two make compiling seven times as fast.
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
)
os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *XLA_FLAGS)).strip()

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# No deadline: the first example of a test compiles. Derandomised: CI fails where we would.
hypothesis.settings.register_profile("repo", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repo")

PACKAGES = ("agents", "configs", "envs", "internal_rl")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--typecheck",
        action="store_true",
        help="check shapes, dtypes and types of our packages at run time (jaxtyping + beartype)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--typecheck"):
        from jaxtyping import install_import_hook

        import tests.typechecker  # noqa: F401 - the hook itself imports no more than `tests`

        install_import_hook(PACKAGES, "tests.typechecker.check")
