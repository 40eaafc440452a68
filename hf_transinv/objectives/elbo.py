"""The evidence lower bound of a variational autoencoder (Kingma and Welling, ICLR 2014), for `models.vae.ConvVAE`.

    -ELBO(x) = |x - x^|^2 / (2 s^2) + KL(q(h | x) || N(0, I)) + constant,
    KL = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - ln sigma_j^2)

with pixels of standard deviation s given the latents. It is scaled by 2 s^2 over the number of pixel values, so that
its first term is the mean squared error and learning rates do not depend on the size of the images.

Symbols: q(h | x) the encoder, its mu `mean` and ln sigma^2 `log_variance`; x^ `reconstruction`; s
`vae_pixel_sd`. The network that trains is the player "student", whose steps the trainer counts; it classifies nothing.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hf_transinv.models.classifier import Classifier
from hf_transinv.models.conv_vae import ConvVAE
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.turns import Batch

CITATION = """@inproceedings{kingma2014vae,
  title     = {Auto-Encoding Variational {B}ayes},
  author    = {Kingma, Diederik P. and Welling, Max},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2014}
}"""


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)) in nats, summed over all but the first axis: [B, ...] -> [B]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)


class VAEObjective(Objective):
    """min over both halves of the network of -ELBO, scaled.

    Args:
        vae: the network that trains.
    """

    name = "vae"
    citation = CITATION
    turns = (("student",),)

    def __init__(self, vae: ConvVAE) -> None:
        self.vae = vae
        self.players = {"student": vae}

    @property
    def students(self) -> Mapping[str, Classifier]:
        """None: no classifier comes out of it."""
        return {}

    def draw(self, player: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Standard normal noise for the latents, [B, C, h, w], on the CPU."""
        return torch.randn(shape[0], *self.vae.latent_shape(*shape[2:]), generator=generator)

    def loss(self, player: str, nets: Mapping[str, nn.Module], batch: Batch, draws: Tensor) -> dict[str, Tensor]:
        images, share = batch.images, batch.share
        noise = draws.to(images.device, non_blocking=True)
        reconstruction, mean, log_variance = nets["student"](images, noise)
        squared_error = (reconstruction.float() - images).square().flatten(1).mean(1).sum() * share
        kl = gaussian_kl(mean.float(), log_variance.float()).sum() * share
        weight = 2 * self.vae.config.vae_pixel_sd**2 / images[0].numel()
        return {
            "total": squared_error + weight * kl,
            "squared_error": squared_error.detach(),
            "kl": kl.detach(),
        }
