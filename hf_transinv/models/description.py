"""A network in one line: what it is, and what happens to images on their way into it."""

from hf_transinv.models.classifier import Classifier


def describe(classifier: Classifier, image_size: int | None) -> str:
    """What a network is, and how images of a size are prepared for it.

    Args:
        classifier: the network.
        image_size: side of the images that it is given, in pixels; None: prepared as the checkpoint says.
    """
    count = sum(parameter.numel() for parameter in classifier.parameters())
    height, width = classifier.input_size
    size = f"{height} px" if height == width else f"{width}x{height} px"
    is_same = image_size is None or (image_size, image_size) == classifier.input_size
    reach = f"{size} as they are" if is_same else f"{image_size} px resized to {size} ({classifier.interpolation})"
    statistics = (classifier.mean, classifier.std)
    mean, std = (", ".join(f"{value:.3g}" for value in values.flatten().tolist()) for values in statistics)
    order = "" if classifier.channel_order == "rgb" else f", {classifier.channel_order.upper()}"
    return (
        f"{classifier.source or 'a network'}, {count / 1e6:.2f} M parameters, {classifier.num_classes} classes; "
        f"images {reach}{order}, mean {mean}, std {std}"
    )
