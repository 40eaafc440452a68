"""The MLPs of all primitives of all models in one product for each layer.

A panel has L x K small networks. Called one by one they are hundreds of kernels, each of which is over before the next
one is launched. Here their weights are put together, in the graph: each image is multiplied with all of them, which
costs less than a launch, and keeps the answer of its own.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transinv.augment.fixed_primitives import FixedPrimitive
from hf_transinv.augment.primitives import Primitive


def learned_parameters(
    models: Sequence[Sequence[Primitive]], z: Tensor, model: Tensor, choice: Tensor
) -> list[Tensor | None]:
    """The parameters of each primitive for each image, as if that primitive were the image's own.

    Only those of the primitive that `choice` names are meant; the others come of another primitive's hidden layer.

    Args:
        models: the K primitives of each of L models.
        z: latents, [n, M].
        model: of each image, int64 [n].
        choice: primitive of each image, int64 [n]; K is taken for K - 1.

    Returns:
        For each primitive [n, P], each inside its range; None for a fixed primitive. In the graph of all primitives'
        parameters, also of those that no image chose.
    """
    learned = [index for index, primitive in enumerate(models[0]) if not isinstance(primitive, FixedPrimitive)]
    found: list[Tensor | None] = [None] * len(models[0])
    if not learned:
        return found
    own = [[primitives[index] for index in learned] for primitives in models]
    flat = [primitive for primitives in own for primitive in primitives]
    width = flat[0].hidden.out_features
    sizes = [primitive.last.out_features for primitive in own[0]]
    place = _places(learned, len(models[0]), choice)
    pair = model * len(learned) + place
    hidden = torch.relu(_own_answer(z, [primitive.hidden for primitive in flat], pair, width))
    unit = torch.sigmoid(_own_answer(hidden, [primitive.last for primitive in flat], model, sum(sizes)))
    low, high = torch.cat([*(primitive.low for primitive in own[0]), *(primitive.high for primitive in own[0])]).chunk(
        2
    )
    for index, parameters in zip(learned, torch.lerp(low, high, unit).split(sizes, dim=1), strict=True):
        found[index] = parameters
    return found


def _own_answer(x: Tensor, layers: Sequence[nn.Linear], own: Tensor, width: int) -> Tensor:
    """The answer of the image's own block of outputs: x [n, m], own [n] -> [n, width].

    The outputs of all layers, one after another, are blocks of `width`.
    """
    weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
    answers = F.linear(x, weight, bias).unflatten(1, (-1, width))
    return answers.gather(1, own.view(-1, 1, 1).expand(-1, 1, width)).squeeze(1)


def _places(learned: list[int], num_primitives: int, choice: Tensor) -> Tensor:
    """Each choice's place among the learned primitives; of any other choice, the last."""
    if len(learned) == num_primitives:
        return choice.clamp_max(num_primitives - 1)
    places = [learned.index(index) if index in learned else len(learned) - 1 for index in range(num_primitives)]
    return torch.tensor([*places, len(learned) - 1]).to(choice.device)[choice]
