"""The replay buffer: whose turn it is to augment a chunk, what copies hold, and that a resumed one goes on alike."""

import pytest
import torch
from torch import nn

from hf_transinv.augment.replay import TODAY, ReplayBuffer
from hf_transinv.errors import InputError
from hf_transinv.training.checkpointing import load_state, save_state
from tests.oracles import teachaugment as oracle


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def number(module, value):
    """Mark what is to be recognised in a copy."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)


def after(steps, copy_steps=2, capacity=3):
    """A buffer and its module, whose parameters are the number of the step."""
    module = network()
    buffer = ReplayBuffer(module, copy_steps, capacity)
    for step in range(1, steps + 1):
        number(module, step)
        buffer.after_step(module)
    return buffer, module


def values(buffer, places, module):
    """The step at which each of these models stood."""
    stacked = buffer.stacked(torch.tensor(places), module)
    assert {name: x.shape[1:] for name, x in stacked.items()} == {n: p.shape for n, p in module.named_parameters()}
    assert all((x.flatten(1) == x.flatten(1)[:, :1]).all() for x in stacked.values())
    return stacked["0.weight"][:, 0, 0].tolist()


class TestCopies:
    def test_when_they_are_made(self):
        assert [after(steps)[0].num_made for steps in range(7)] == [0, 0, 1, 1, 2, 2, 3]

    def test_what_they_hold(self):
        buffer, module = after(5)
        assert values(buffer, [1, 0, TODAY, 1], module) == [4, 2, 5, 4]

    def test_the_oldest_makes_room(self):
        buffer, module = after(11)
        assert values(buffer, [0, 1, 2], module) == [8, 10, 6]

    def test_they_never_learn(self):
        buffer, module = after(4)
        assert not list(buffer.parameters())
        assert not any(x.requires_grad for x in buffer.stacked(torch.tensor([0, TODAY]), module).values())
        number(module, 99.0)
        assert values(buffer, [0, 1], module) == [2, 4]


class TestPriorities:
    @pytest.mark.parametrize(
        ("steps", "ages"), [(2, [1, None, None]), (5, [2, 1, None]), (6, [3, 2, 1]), (9, [1, 3, 2]), (10, [2, 1, 3])]
    )
    def test_by_age(self, steps, ages):
        """The newest copy is of age 1; today's model counts 1."""
        expected = [0.0 if age is None else 0.9**age for age in ages] + [1.0]
        assert after(steps)[0].priorities().tolist() == pytest.approx(expected)

    def test_share_of_the_chunks(self):
        buffer, _ = after(6)
        place = buffer.draw(30_000, 30_000, seeded()).place
        shares = [(place == p).double().mean().item() for p in (0, 1, 2, TODAY)]
        assert shares == pytest.approx(oracle.priorities([3, 2, 1], 0.9), abs=0.01)


class TestDraws:
    def test_nothing_to_draw_without_a_copy(self):
        generator, buffer = seeded(), after(1)[0]
        state = generator.get_state()
        assert buffer.draw(8, 4, generator) is None and torch.equal(generator.get_state(), state)

    @pytest.mark.parametrize("batch", [128, 100, 10, 3])
    def test_chunks_are_those_of_torch(self, batch):
        buffer, _ = after(4)
        draws = buffer.draw(batch, 16, seeded())
        sizes = [len(chunk) for chunk in torch.arange(batch).chunk(16)]
        assert draws.chunk.unique_consecutive(return_counts=True)[1].tolist() == sizes
        for chunk in draws.chunk.unique():
            assert len(draws.place[draws.chunk == chunk].unique()) == 1

    @pytest.mark.parametrize("rows", [slice(0, 128), slice(0, 64), slice(5, 43), slice(7, 8)])
    def test_runs(self, rows):
        """Every row once, in groups of one size, one chunk and one model each."""
        draws = after(6)[0].draw(100, 16, seeded())[rows]
        runs = draws.runs()
        everything = torch.cat([group.flatten() for group, _ in runs])
        assert torch.equal(everything.sort().values, torch.arange(len(draws.chunk)))
        for group, places in runs:
            assert (draws.chunk[group] == draws.chunk[group[:, :1]]).all()
            assert (draws.place[group] == places.unsqueeze(1)).all()

    def test_one_run_as_a_rule(self):
        draws = after(6)[0].draw(128, 16, seeded())
        assert [len(part.runs()) for part in (draws, draws[:64], draws[32:64], draws[4:36])] == [1, 1, 1, 2]


class TestState:
    def test_same_tensors_from_the_first_step_to_the_last(self):
        states = [after(steps)[0].state_dict() for steps in (0, 1, 4, 20)]
        assert len({tuple((name, x.shape, x.dtype) for name, x in state.items()) for state in states}) == 1

    def test_resumed_to_the_bit(self, tmp_path):
        whole, module = after(9)
        stopped, _ = after(5)
        path = save_state(tmp_path, 5, {"replay": stopped}, {}, keep=1)
        resumed = ReplayBuffer(network(), 2, 3)
        load_state(path, {"replay": resumed})
        assert resumed.steps == 5
        for step in range(6, 10):
            number(module, step)
            resumed.after_step(module)
        assert torch.equal(resumed.priorities(), whole.priorities())
        for name, expected in whole.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], expected), name
        drawn = [buffer.draw(32, 16, seeded(1)) for buffer in (whole, resumed)]
        assert torch.equal(drawn[0].place, drawn[1].place)


@pytest.mark.parametrize("fields", [{"copy_steps": 0}, {"capacity": 0}, {"decay": 0.0}, {"decay": 1.1}])
def test_refused(fields):
    with pytest.raises(InputError, match="replay buffer"):
        ReplayBuffer(network(), **{"copy_steps": 2, "capacity": 2, "decay": 0.9} | fields)
