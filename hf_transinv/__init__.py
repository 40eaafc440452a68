"""Transfer learning that carries teachers' invariances over to a student. Data walks down one street:

data -> augment -> models (student, teachers) -> objectives -> trainer -> checkpoint -> card -> Hub

Importing it registers the 32 px architectures (`wrn40_2_cifar`, `resnet32_cifar`, ...) with timm.
"""

from hf_transinv import models as models
from hf_transinv.errors import InputError as InputError
