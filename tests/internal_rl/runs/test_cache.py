import jax
import jax.numpy as jnp
import pytest

from internal_rl.runs.cache import count_compilations, enable_compilation_cache

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def _restore_options():
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("INTERNAL_RL_CACHE", raising=False)
    assert enable_compilation_cache().is_relative_to(tmp_path / "xdg" / "internal-rl")
    monkeypatch.setenv("INTERNAL_RL_CACHE", str(tmp_path / "mine"))
    folder = enable_compilation_cache()
    assert folder.is_relative_to(tmp_path / "mine")
    assert jax.config.jax_compilation_cache_dir == str(folder)


def test_a_place_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERNAL_RL_CACHE", str(tmp_path / "file"))
    before = jax.config.jax_compilation_cache_dir
    assert enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir == before


def test_counting():
    x = jnp.arange(3.0)
    with count_compilations() as counts:
        double = jax.jit(lambda x: x * 2.0)
        double(x)
        once = counts.programs
        double(x)
    assert once >= 1
    assert counts.programs == once
    jax.jit(lambda x: x * 3.0)(x)
    assert counts.programs == once  # the counter is closed
