r"""Evaluate any checkpoint on clean images, under the corruptions of CIFAR-C and ImageNet-C, and under augmentations.

python recipes/evaluate.py --model OUT/student \
    --dataset uoft-cs/cifar100 --label_column fine_label
    a folder, a Hub id or a timm name, under all corruptions at all severities

transinv evaluate --mixed_precision bf16 \
    --model google/vit-base-patch16-224 --dataset ILSVRC/imagenet-1k \
    --eval_split validation --streaming --image_size 224 \
    --corrupted_folder ImageNet-C
    the corrupted images as their authors published them

python recipes/evaluate.py --model OUT/student \
    --dataset uoft-cs/cifar100 --label_column fine_label \
    --eval_corruptions none --augment pad_crop grayscale color_jitter
    the test sets of Augmentation Invariant Training (table 5), and how far
    they move the answers (figure 5)

python recipes/evaluate.py --model timm/resnet50.a1_in1k \
    --dataset ILSVRC/imagenet-1k --eval_split validation --streaming \
    --protocol published --eval_corruptions none
    resized and cropped as the checkpoint says: the figure that its authors
    give
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("evaluate", __doc__)
