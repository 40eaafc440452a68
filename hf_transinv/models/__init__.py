"""Students and teachers; importing it registers the 32 px architectures with timm."""

from hf_transinv.models import cifar_resnet, wide_resnet
from hf_transinv.models.classifier import Classifier, open_classifier
from hf_transinv.models.teacher import EMATeacher, Teacher, build_teachers, place_teachers

__all__ = [
    "Classifier",
    "EMATeacher",
    "Teacher",
    "build_teachers",
    "cifar_resnet",
    "open_classifier",
    "place_teachers",
    "wide_resnet",
]
