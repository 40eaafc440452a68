"""A learned augmentation among the tools of others: its generator, workers, transforms, columns of data sets."""

import copy
import pickle

import datasets
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from hf_transinv.augment.learned import AugmentationConfig
from hf_transinv.augment.learned_augmentation import LearnedAugmentation
from tests.augment.learned_pair import TEACHERS, build, bytes_, floats, panel, picture, seeded

# The generator


def test_the_same_seed_gives_the_same_images():
    images, augment = floats(40), build(seed=5)
    first, second = augment(images), augment(images)
    assert not torch.equal(first, second)
    assert torch.equal(augment.seed(5)(images), first) and torch.equal(augment(images), second)
    assert not torch.equal(build(seed=6)(images), first)
    state = torch.get_rng_state()
    augment(images)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(augment.seed(5)(images), first)


def test_without_a_seed_torch_gives_one():
    images, made = floats(40), panel()

    def unseeded(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return [LearnedAugmentation(made, TEACHERS)(images) for _ in range(2)]

    (first, second), again = unseeded(1), unseeded(1)
    assert torch.equal(first, again[0]) and not torch.equal(first, second)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda augment: pickle.loads(pickle.dumps(augment))])
def test_a_copy_goes_on_as_the_original_would(copied):
    images, augment = floats(40), build()
    augment(images)
    other = copied(augment)
    assert other.teachers == TEACHERS and other.generator is not augment.generator
    expected = augment(images)
    assert torch.equal(other(images), expected)
    assert torch.equal(augment(images), other(images))
    assert other.generator.initial_seed() == 3


class Grey(Dataset):
    """The same image, again and again."""

    def __init__(self, transform) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(bytes_(1)[0])


def epochs(seed: int, order: int) -> list[Tensor]:
    loader = DataLoader(Grey(build(seed, q=1.0)), batch_size=1, num_workers=2, generator=seeded(order))
    return [torch.cat(list(loader)) for _ in range(2)]


def test_no_two_workers_and_no_two_epochs_draw_the_same():
    first, second = epochs(1, 0)
    assert len(torch.cat([first, second]).flatten(1).unique(dim=0)) == 32
    again = epochs(1, 0)
    assert torch.equal(again[0], first) and torch.equal(again[1], second)
    assert not torch.equal(epochs(2, 0)[0], first) and not torch.equal(epochs(1, 1)[0], first)


# Among the transforms of others


def test_it_stands_in_a_compose():
    image = bytes_(1)[0]
    after = v2.ToDtype(torch.float32, scale=True)
    expected = build(q=1.0)(image)
    compose = v2.Compose([v2.Identity(), build(q=1.0), after])
    assert torch.equal(compose(image), after(expected))
    shown = v2.Compose([build(q=1.0), v2.ToImage()])(picture(image))
    assert isinstance(shown, tv_tensors.Image) and torch.equal(shown.as_subclass(Tensor), expected)
    wrapped = v2.Compose([build(q=1.0)])(tv_tensors.Image(image))
    assert isinstance(wrapped, tv_tensors.Image) and torch.equal(wrapped.as_subclass(Tensor), expected)
    with_label = v2.Compose([build(q=1.0), after])(tv_tensors.Image(image), 7)
    assert with_label[1] == 7 and torch.equal(with_label[0].as_subclass(Tensor), after(expected))


def test_it_is_a_transform_of_a_data_set():
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    pictures = [picture(image) for image in bytes_(4)]
    rows = datasets.Dataset.from_dict({"img": pictures, "label": [0, 1, 2, 3]}, features)
    expected, again = build(q=1.0), build(q=1.0)
    for deformed in (rows.with_transform(build(q=1.0, image_column="img")), rows):
        if deformed is rows:
            rows.set_transform(build(q=1.0, image_column="img"))
        batch = deformed[:3]
        assert batch["label"] == [0, 1, 2] and deformed[3]["label"] == 3
        for found, image in zip(batch["img"], pictures, strict=False):
            assert found.tobytes() == expected(image).tobytes()
        expected = again
    columns = build(q=1.0)({"image": bytes_(4), "label": [1]})
    assert torch.equal(columns["image"], build(q=1.0)(bytes_(4))) and columns["label"] == [1]


def test_what_it_is_can_be_read():
    p, q, r, *_ = build().selection()
    shown = repr(build())
    for k, name in enumerate(TEACHERS):
        most = AugmentationConfig().primitives[int(p[k].argmax())]
        assert f"{name}: r {r[k]:.2f}, q {q[k]:.2f}, most often {most} (p {p[k].max():.2f})" in shown
