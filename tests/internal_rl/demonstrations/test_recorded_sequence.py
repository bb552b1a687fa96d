"""Data sets that are lists, objects or generators."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from envs.world import ActionSpec, ObservationSpec
from internal_rl.demonstrations.check import check_demonstrations
from internal_rl.demonstrations.episode import Episode
from internal_rl.demonstrations.folder import open_folder
from internal_rl.demonstrations.recorded import open_recorded
from internal_rl.demonstrations.sequence import from_sequence, write
from internal_rl.errors import UserError
from tests.internal_rl.demonstrations.known import LENGTHS, episode

OBS, ACTION = ObservationSpec(dim=3), ActionSpec(dim=2, low=-0.5, high=0.5)
EPISODES = [episode(e, steps, labels=True) for e, steps in enumerate(LENGTHS)]


def lists(fields):
    """As a data set of Hugging Face hands its items out."""
    return {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in fields.items()
    }


def plural(fields):
    """As Minari and gymnasium call them."""
    names = {"obs": "observations", "action": "actions", "reward": "rewards"}
    return {names.get(name, name): value for name, value in fields.items()}


FORMS = {
    "episodes": lambda fields: Episode(**fields),
    "dictionaries": lambda fields: fields,
    "plural": plural,
    "lists": lists,
    "objects": lambda fields: SimpleNamespace(**plural(fields)),
}


class Items:
    """Nothing but a length and items."""

    def __init__(self, form, fields=EPISODES):
        self.items = [FORMS[form](one) for one in fields]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(EPISODES, tmp_path_factory.mktemp("data") / "data", OBS, ACTION, {"by": "test"})


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_what_a_folder_gives(form, folder):
    made = from_sequence(Items(form), OBS, ACTION, horizon=4, packing=True)
    opened = open_recorded(folder, (OBS, ACTION), horizon=4, packing=True, on_device=True)
    jax.tree.map(np.testing.assert_array_equal, made.data, opened.data)
    assert made.obs_statistics == opened.obs_statistics
    for name in ("episodes", "mean_length", "std_length", "num_goals", "horizon", "packing"):
        assert getattr(made, name) == getattr(opened, name)


def test_the_contract_is_kept():
    made = from_sequence(Items("dictionaries"), OBS, ACTION, horizon=6)
    assert check_demonstrations(made, OBS, ACTION, horizon=6, num_goals=2) == []


def test_equal_data_is_equal():
    one, two = (from_sequence(Items(form), OBS, ACTION, horizon=4) for form in ("lists", "plural"))
    assert one == two
    assert hash(one) == hash(two)
    changed = [*EPISODES[:-1], EPISODES[0]]
    assert from_sequence(Items("plural", changed), OBS, ACTION, horizon=4) != one


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the data set has no episodes; allowed are 1 or more"),
        ([{"obs": [0]}], "item 0: a dict without 'actions' or 'action'; it has obs"),
        ([EPISODES[0], 7], "item 1: a int without 'observations' or 'obs'"),
        ([{**EPISODES[0], "obs": np.zeros((3, 3))}], "item 0: obs has 3 rows and action 3; allow"),
        ([EPISODES[0], episode(1, 5)], "item 1: optional fields are none; allowed are those of"),
    ],
)
def test_what_is_no_data_set_is_refused(items, message):
    with pytest.raises(UserError, match=message):
        from_sequence(items, OBS, ACTION, horizon=4)


def test_other_numbers_are_refused():
    with pytest.raises(UserError, match="goals go up to 1; the world's go up to 0"):
        from_sequence(EPISODES, OBS, ACTION, horizon=4, num_goals=1)
    with pytest.raises(UserError, match="horizon is 0; allowed is 1 or more"):
        from_sequence(EPISODES, OBS, ACTION, horizon=0)


def test_iterables_are_written_one_at_a_time(tmp_path):
    def generate():
        for fields in EPISODES:
            assert not (tmp_path / "data").exists()
            yield fields

    path = write(generate(), tmp_path / "data", OBS, ACTION)
    assert open_folder(path).lengths.tolist() == list(LENGTHS)
    with pytest.raises(UserError, match="episode 1: a str without 'observations' or 'obs'"):
        write([EPISODES[0], "b"], tmp_path / "other", OBS, ACTION)
    with pytest.raises(UserError, match="no episodes for"):
        write([], tmp_path / "other", OBS, ACTION)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
