import gc
import weakref

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from internal_rl.runs import plots


def curves():
    rng = np.random.default_rng(0)
    x = np.arange(1, 21) * 100
    return {
        "internal RL": (x, np.clip(np.linspace(0, 1, 20) + rng.normal(size=(3, 20)) * 0.05, 0, 1)),
        "raw-action RL": (x, np.zeros((3, 20))),
    }


def assert_picture(path):
    """A PNG of reasonable size that is not one flat colour."""
    pixels = np.asarray(Image.open(path).convert("L"))
    assert min(pixels.shape) > 200
    assert pixels.std() > 5


@pytest.mark.parametrize("scale", ["linear", "log", "both"])
@pytest.mark.parametrize("band", ["ci", "quartiles"])
def test_learning_curves(tmp_path, scale, band):
    path = tmp_path / "deep" / "curves.png"
    assert (
        plots.learning_curves(path, curves(), scale=scale, band=band, episodes_per_point=100)
        == path
    )
    assert_picture(path)


def drawn(monkeypatch):
    """Keep the figures that are saved."""
    figures = []
    save = Figure.savefig

    def keep(self, *args, **kwargs):
        figures.append(self)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_the_log_panel_ends_at_one_success(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    plots.learning_curves(tmp_path / "x.png", curves(), episodes_per_point=250)
    linear, log = figures[0].axes
    assert log.get_yscale() == "log"
    assert min(np.min(line.get_ydata()) for line in log.get_lines()) == pytest.approx(1 / 250)
    assert any("1 success in 250 episodes" in text.get_text() for text in log.texts)
    assert min(np.min(line.get_ydata()) for line in linear.get_lines()) == 0.0
    for axes in (linear, log):
        assert axes.get_xlabel() == "training episodes"
        assert "success rate" in axes.get_ylabel()


def test_one_seed_and_all_zero(tmp_path):
    plots.learning_curves(tmp_path / "x.png", {"a": (np.arange(3), np.zeros(3))})
    assert_picture(tmp_path / "x.png")


def test_curves_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="curve a: 4 x-values for y of shape"):
        plots.learning_curves(tmp_path / "x.png", {"a": (np.arange(4), np.zeros((2, 3)))})


def test_switching_trajectories(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    goal = np.array([0, 0, 0, 3, 3, 2, 2, 2, 0, 0])
    beta = np.array([1.0, 0.1, 0.1, 0.9, 0.1, 0.1, 0.6, 0.1, 1.0, 1.0])
    items = [plots.SwitchingTrajectory(beta, goal, 8, f"task {i}") for i in range(3)]
    plots.switching_trajectories(tmp_path / "x.png", items)
    assert_picture(tmp_path / "x.png")
    panel = figures[0].axes[0]
    triangles = next(line for line in panel.get_lines() if line.get_marker() == "v")
    np.testing.assert_array_equal(triangles.get_xdata(), [0, 3, 6])  # padding is left out
    edges = [(p.get_x(), p.get_x() + p.get_width()) for p in panel.patches]
    assert edges == [(-0.5, 2.5), (2.5, 4.5), (4.5, 7.5)]
    colours = [p.get_facecolor() for p in panel.patches]
    assert len(set(colours)) == 3


def test_stage_losses(tmp_path, monkeypatch):
    figures, steps = drawn(monkeypatch), np.arange(10)
    plots.stage_losses(
        tmp_path / "x.png",
        {
            "pretrain": {"loss": (steps, 1 / (1 + steps))},
            "discover": {"kl": (steps, np.ones((2, 10)))},
            "switches": {"f1": (steps, steps / 10)},
        },
        references={"pretrain": {"expert entropy": 0.17}},
        ylabels={"switches": "fraction"},
    )
    assert_picture(tmp_path / "x.png")
    *panels, empty = figures[0].axes
    assert [axes.get_title() for axes in panels] == ["pretrain", "discover", "switches"]
    assert [axes.get_ylabel() for axes in panels] == ["nats per step"] * 2 + ["fraction"]
    assert not empty.get_visible()


def test_figures_do_not_leak(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    plots.learning_curves(tmp_path / "x.png", curves(), scale="linear")
    reference = weakref.ref(figures.pop())
    gc.collect()
    assert reference() is None
    assert matplotlib._pylab_helpers.Gcf.get_num_fig_managers() == 0
