"""Every family of transformers: opened, exported, and answering alike through the libraries' own pipelines."""

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from hf_transinv.data.decoding import fit
from hf_transinv.hub.export import export_classifier
from hf_transinv.models import Classifier, open_classifier
from tests.models.families import ARCHITECTURES, NAMES, NOT_FOLLOWED, SIDE, TINY, TRANSFORMERS_4, tiny_folder

FACTS = ("num_classes", "input_size", "channel_order", "interpolation", "label_names")


def picture(height, width):
    generator = torch.Generator().manual_seed(height)
    coarse = torch.rand(1, 3, 5, 7, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (255 * fine[0]).round().to(torch.uint8)


def as_pil(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def test_no_family_is_left_out():
    assert set(ARCHITECTURES) <= {*TINY, *NOT_FOLLOWED}
    of_4 = {name for name, why in NOT_FOLLOWED.items() if why == "of transformers 4 alone"}
    assert {*TINY, *NOT_FOLLOWED} - set(ARCHITECTURES) == ({"pp_lcnet"} if TRANSFORMERS_4 else of_4)
    assert not set(TINY) & set(NOT_FOLLOWED)


@pytest.fixture(scope="module", params=[name for name in TINY if name in ARCHITECTURES])
def family(request, tmp_path_factory):
    if request.param == "pvt" and TRANSFORMERS_4:
        pytest.skip("transformers 4 gives every PVT 1,000 classes, whatever its labels")
    folder = tiny_folder(request.param, tmp_path_factory.mktemp(request.param))
    return request.param, folder, open_classifier(str(folder)).eval()


@torch.inference_mode()
def test_as_transformers_and_exported_alike(family, tmp_path):
    """The checkpoint's own processor and forward pass; then the export's, on pictures of its size and of others."""
    name, folder, classifier = family
    network = AutoModelForImageClassification.from_pretrained(folder).eval()
    inputs = AutoImageProcessor.from_pretrained(folder)(as_pil(picture(97, 80)), return_tensors="pt")
    published, logits = classifier.published, network(**inputs)
    logits = logits.last_hidden_state if name == "pp_lcnet" else logits.logits
    assert logits.shape == (1, 3) and classifier.label_names == NAMES
    if published.obstacle is None:
        ours = classifier(published(picture(97, 80))[None] / 255)
        torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4 * float(logits.std()))
    else:
        assert name == "textnet" and "different sizes" in published.obstacle

    exported = export_classifier(classifier, tmp_path / "student", image_size=SIDE)
    again = open_classifier(str(exported)).eval()
    assert again.published.obstacle is None and again.published.size == (SIDE, SIDE)
    assert {fact: getattr(again, fact) for fact in FACTS} == {
        **{fact: getattr(classifier, fact) for fact in FACTS},
        "interpolation": "bilinear",
    }
    assert torch.equal(again.mean, classifier.mean) and torch.equal(again.std, classifier.std)

    processor = AutoImageProcessor.from_pretrained(exported)
    square = picture(SIDE, SIDE)
    given = processor(as_pil(square), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(given, classifier.prepare(square[None] / 255), rtol=1e-5, atol=1e-6)
    # PPLCNet's processor, the only one that normalises BGR, rounds the longer side that others cut off.
    for height, width in ((97, 80), (80, 96), (3 * SIDE, 2 * SIDE))[name == "pp_lcnet" and 2 :]:
        given = processor(as_pil(picture(height, width)), return_tensors="pt")["pixel_values"]
        own = classifier.prepare(fit(picture(height, width), SIDE)[None] / 255)
        assert ((given - own).abs() * classifier.std * 255).max() < 1.01
    if name == "pp_lcnet":  # which transformers' own pipeline does not understand: it has no "logits"
        return
    answers = pipeline("image-classification", model=str(exported))(as_pil(square))
    own = classifier(square[None] / 255).softmax(1)[0]
    torch.testing.assert_close(
        torch.tensor([next(a["score"] for a in answers if a["label"] == label) for label in NAMES]),
        *(own,),
        rtol=1e-4,
        atol=1e-5,
    )


def test_transformers_cuts_one_pixel_off_where_three_of_four_are_cut_away(tmp_path):
    """What hf_transinv.models.exported says: of 67 pixels transformers takes 1 to 64, torchvision and timm 2 to 65."""
    classifier = open_classifier(str(tiny_folder("resnet", tmp_path / "resnet")))
    processor = AutoImageProcessor.from_pretrained(export_classifier(classifier, tmp_path / "student"))
    image = picture(SIDE, SIDE + 3)
    given = processor(as_pil(image), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(given, classifier.prepare(image[None, :, :, 1:-2] / 255))
    assert torch.equal(fit(image, SIDE), image[:, :, 2:-1])


@pytest.mark.parametrize(
    ("name", "architecture"),
    [(name, other) for name, several in ARCHITECTURES.items() if name in TINY for other in several[1:]],
)
@torch.inference_mode()
def test_the_architecture_that_a_checkpoint_names(name, architecture, tmp_path):
    """Some types have several; all are given pictures alike, and exported as what they are."""
    folder = tiny_folder(name, tmp_path / name, architecture=architecture)
    classifier = open_classifier(str(folder)).eval()
    assert type(classifier.network).__name__ == architecture
    assert type(open_classifier(str(folder), pretrained=False).network).__name__ == architecture
    inputs = AutoImageProcessor.from_pretrained(folder)(as_pil(picture(97, 80)), return_tensors="pt")
    logits = AutoModelForImageClassification.from_pretrained(folder).eval()(**inputs).logits
    ours = classifier(classifier.published(picture(97, 80))[None] / 255)
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4 * float(logits.std()))
    again = open_classifier(str(export_classifier(classifier, tmp_path / "student")))
    assert type(again.network).__name__ == architecture


@pytest.mark.skipif(TRANSFORMERS_4, reason="transformers 4 has no processor that normalises BGR")
def test_normalised_bgr_is_exported_as_such(tmp_path):
    """BGR with statistics: only PPLCNet's processor says it, for any network."""
    opened = open_classifier(str(tiny_folder("resnet", tmp_path / "resnet"))).eval()
    facts = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "input_size": (SIDE, SIDE), "num_classes": 3}
    student = Classifier(opened.network, **facts, channel_order="bgr", image_processor=opened.image_processor)
    exported = export_classifier(student, tmp_path / "student")
    again = open_classifier(str(exported))
    assert again.channel_order == "bgr" and torch.equal(again.mean, student.mean) and again.input_size == (SIDE, SIDE)
    processor = AutoImageProcessor.from_pretrained(exported)
    image = picture(2 * SIDE, 3 * SIDE)
    given = processor(as_pil(image), return_tensors="pt")["pixel_values"]
    own = student.prepare(fit(image, SIDE)[None] / 255)
    assert ((given - own).abs() * student.std * 255).max() < 1.01
