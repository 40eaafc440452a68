r"""Train a small VAE on any images, for the augmenter of HARD that moves latents (--hard_augmenter vae).

python recipes/train_vae.py --config \
    recipes/configs/cifar_vae.yaml --output_dir outputs/vae
python recipes/train_vae.py --dataset digits/source \
    --image_size 16 --max_steps 300 --vae_width 16
    the embedded digits: a minute on one core

The VAE is in OUTPUT_DIR/vae: config.json and model.safetensors.
"""

from hf_transinv_start import run

if __name__ == "__main__":
    run("train_vae", __doc__)
