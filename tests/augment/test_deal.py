"""How images are dealt to models and primitives, against one image after another."""

from types import SimpleNamespace

import pytest
import torch

from hf_transinv.augment.deal import deal_out, inverse, sort_into_groups


@pytest.mark.parametrize("asks_clean", [True, False])
@pytest.mark.parametrize("batch", [1, 5, 40])
def test_a_deal(batch, asks_clean):
    generator = torch.Generator().manual_seed(batch)
    models, primitives = 3, 4
    model = torch.randint(models, (batch,), generator=generator)
    choice = torch.randint(primitives + 1, (batch,), generator=generator)
    share = torch.rand(batch, generator=generator)
    noise_row = torch.where(choice == 2, (choice == 2).cumsum(0) - 1, -1)
    drawn = SimpleNamespace(model=model, choice=choice, share=share, noise_row=noise_row)
    other = SimpleNamespace(**vars(drawn) | {"choice": choice.flip(0)})
    deal, flipped = deal_out([drawn, other], models, primitives, torch.device("cpu"), asks_clean)
    assert flipped.choice.tolist() == choice.flip(0).tolist() and deal.choice.tolist() == choice.tolist()
    order = sorted(range(batch), key=lambda b: (int(choice[b]), int(model[b])))
    assert deal.order.tolist() == order
    assert [order[place] for place in deal.back.tolist()] == list(range(batch))
    for of_sorted, of_image in ((deal.sorted_model, model), (deal.sorted_choice, choice)):
        assert of_sorted.tolist() == [int(of_image[b]) for b in order]
    assert deal.noise_row.tolist() == [max(int(noise_row[b]), 0) for b in order]
    assert list(deal.num_chosen) == [sum(int(c) == i for c in choice) for i in range(primitives + 1)]
    judged = [[b for b in range(batch) if model[b] == k and (asks_clean or choice[b] < 4)] for k in range(models)]
    assert list(deal.num_asked) == [len(rows) for rows in judged]
    assert deal.asked[: sum(deal.num_asked)].tolist() == [b for rows in judged for b in rows]
    assert torch.equal(deal.share, share) and torch.equal(deal.model, model) and torch.equal(deal.choice, choice)


@pytest.mark.parametrize("batch", [0, 1, 40])
def test_groups(batch):
    kind = torch.randint(5, (batch,), generator=torch.Generator().manual_seed(batch)) // 2 * 2  # some do not occur
    order, groups = sort_into_groups(kind, 6)
    assert order.tolist() == sorted(range(batch), key=lambda b: int(kind[b]))
    assert [kind[order[own]].unique().tolist() for own in groups] == [
        [number] if (kind == number).any() else [] for number in range(6)
    ]
    assert order[inverse(order)].tolist() == list(range(batch))
