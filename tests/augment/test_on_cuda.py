"""Augmentations on a CUDA device beside the CPU: what is drawn on the host is applied alike on both."""

import pytest
import torch

from hf_transinv.augment.corruptions import CORRUPTIONS, corrupt
from hf_transinv.augment.policies import POLICIES, CorruptionConfig, PolicyConfig, build_policies
from hf_transinv.augment.policies.policy import apply_all, draw_all
from hf_transinv.augment.primitive_sets import PRIMITIVES, build_primitive
from hf_transinv.augment.primitives import PrimitiveConfig

DEVICE = "cuda"


def seeded(device="cpu"):
    return torch.Generator(device).manual_seed(0)


def pixels(batch=16):
    return (torch.rand(batch, 3, 32, 32, generator=seeded()) * 255).round() / 255


@pytest.mark.cuda
@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_gives_what_it_gives_on_the_cpu(name):
    # Corruptions that draw nothing on the device, which has other numbers.
    config = PolicyConfig(corruption_policy=CorruptionConfig(corruption=("contrast", "brightness", "pixelate")))
    policies, images = build_policies((name,), config), pixels()
    draws = draw_all(policies, tuple(images.shape), seeded())
    expected = apply_all(policies, images, draws)
    found = apply_all(policies, images.to(DEVICE), draws).cpu()
    # A last bit can move a level of 255, and a threshold.
    far = (found - expected).abs() > 1.5 / 255
    assert far.float().mean() < 0.01


@pytest.mark.cuda
@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_primitive_gives_what_it_gives_on_the_cpu_and_so_do_its_gradients(name):
    options = PrimitiveConfig()
    torch.manual_seed(0)
    primitive = build_primitive(name, options)
    z = torch.randn(16, options.latent_dim, generator=seeded())
    noise = torch.randn(16, 3, 32, 32, generator=seeded()) if primitive.uses_noise else None
    results = []
    for device in ("cpu", DEVICE):
        own = primitive.to(device)
        own.zero_grad(set_to_none=True)
        deformed = own.apply_to(pixels().to(device), own(z.to(device)), None if noise is None else noise.to(device))
        deformed.square().mean().backward()
        results.append([deformed.detach().cpu(), *(weight.grad.cpu() for weight in own.parameters())])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


@pytest.mark.cuda
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_as_strong_as_on_the_cpu(name):
    results = [corrupt(pixels().to(device), name, 3, seeded(device)).cpu() for device in ("cpu", DEVICE)]
    expected, found = results
    assert found.isfinite().all() and 0 <= found.min() <= found.max() <= 1
    assert abs(found.mean() - expected.mean()) < 0.02 and abs(found.std() - expected.std()) < 0.02
