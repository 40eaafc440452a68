r"""Train a small VAE on any images, for the augmenter of HARD that moves latents (--hard_augmenter vae).

accelerate launch recipes/train_vae.py --config \
    recipes/configs/cifar_vae.yaml --output_dir outputs/vae
accelerate launch recipes/train_vae.py --dataset digits/source \
    --image_size 16 --max_steps 300 --vae_width 16
    the embedded digits: a minute on one core

The VAE is in OUTPUT_DIR/vae: config.json and model.safetensors.
"""

from hf_transinv.commands.train_vae import main
from hf_transinv.experiment.launch import clear_errors

if __name__ == "__main__":
    with clear_errors():
        main(__doc__)
