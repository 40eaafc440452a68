"""The operations of AutoAugment and its successors by PIL itself, one image at a time."""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps


def apply(image, name, parameter, interpolation, fill):
    """`image` uint8 [H, W, 3], the operation's `name` in small letters, `fill` three levels -> uint8 [H, W, 3]."""
    picture = Image.fromarray(image)
    resample = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}[interpolation]

    def affine(*matrix):
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, resample=resample, fillcolor=fill)

    def solarize_add():
        return picture.point([min(255, v + int(parameter)) if v < 128 else v for v in range(256)] * 3)

    results = {
        "identity": lambda: picture,
        "invert": lambda: ImageOps.invert(picture),
        "posterize": lambda: ImageOps.posterize(picture, int(parameter)),
        "solarize": lambda: ImageOps.solarize(picture, parameter),
        "solarize_add": solarize_add,
        "brightness": lambda: ImageEnhance.Brightness(picture).enhance(parameter),
        "contrast": lambda: ImageEnhance.Contrast(picture).enhance(parameter),
        "color": lambda: ImageEnhance.Color(picture).enhance(parameter),
        "sharpness": lambda: ImageEnhance.Sharpness(picture).enhance(parameter),
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "shear_x": lambda: affine(1, parameter, 0, 0, 1, 0),
        "shear_y": lambda: affine(1, 0, 0, parameter, 1, 0),
        "translate_x": lambda: affine(1, 0, parameter, 0, 1, 0),
        "translate_y": lambda: affine(1, 0, 0, 0, 1, parameter),
        "rotate": lambda: picture.rotate(parameter, resample=resample, fillcolor=fill),
    }
    return np.asarray(results[name]())


def cutout(image, top, left, bottom, right, fill):
    """Paint rows top .. bottom and columns left .. right (exclusive), as far as they are in the image."""
    painted = np.array(image)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if top <= y < bottom and left <= x < right:
                painted[y, x] = fill
    return painted
