"""Augmentations: learned ones and their primitives, fixed policies, the corruptions of CIFAR-C and ImageNet-C."""
