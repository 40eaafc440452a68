"""The small VAE: shapes, the round trip through its folder, what is refused; diffusers' behind the same door."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from hf_transinv.errors import InputError
from hf_transinv.models.conv_vae import ConvVAE, VAEConfig, is_vae_folder, load_vae, open_autoencoder, save_vae
from hf_transinv.models.diffusers_vae import DiffusersVAE
from hf_transinv.objectives.elbo import VAEObjective, gaussian_kl
from hf_transinv.objectives.turns import Batch, only_training

TINY = {"vae_latent_channels": 3, "vae_width": 4, "vae_halvings": 2}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(*shape, seed=0):
    return torch.rand(shape, generator=seeded(seed))


def tiny(**fields):
    torch.manual_seed(0)
    vae = ConvVAE(VAEConfig(**{**TINY, **fields}))
    vae.latent_scale.fill_(2.5)
    return vae.eval()


class TestConvVAE:
    @pytest.mark.parametrize("halvings", [1, 2, 3])
    def test_shapes(self, halvings):
        vae, images = tiny(vae_halvings=halvings), pixels(2, 3, 16, 24)
        latents = vae.encode(images)
        assert latents.shape == (2, *vae.latent_shape(16, 24)) == (2, 3, 16 // 2**halvings, 24 // 2**halvings)
        assert vae.decode(latents, (16, 24)).shape == images.shape

    def test_the_scale_is_undone_by_the_decoder(self):
        vae, images = tiny(), pixels(2, 3, 8, 8)
        reconstruction, mean, log_variance = vae(images, torch.zeros(2, 3, 2, 2))
        torch.testing.assert_close(vae.decode(vae.encode(images), (8, 8)), reconstruction)
        torch.testing.assert_close(vae.encode(images), 2.5 * mean)
        noisy, *_ = vae(images, torch.ones(2, 3, 2, 2))
        expected = (vae.decoder(mean + (log_variance / 2).exp()) + 1) / 2
        torch.testing.assert_close(noisy, expected)

    def test_images_do_not_depend_on_each_other(self):
        vae, images = tiny().train(), pixels(4, 3, 8, 8)
        torch.testing.assert_close(vae.encode(images)[1:2], vae.encode(images[1:2]), rtol=1e-5, atol=1e-6)

    def test_gradients_reach_the_images(self):
        vae, images = tiny(), pixels(1, 3, 4, 4).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda x: vae.double().decode(vae.encode(x), (4, 4)), images)

    def test_sides_that_cannot_be_halved(self):
        with pytest.raises(InputError, match="divisible by 4, not 8 x 10"):
            tiny().encode(pixels(1, 3, 8, 10))

    def test_latents_of_other_images(self):
        with pytest.raises(InputError, match=r"of \(8, 8\) images, not of \(16, 16\)"):
            tiny().decode(torch.zeros(1, 3, 2, 2), (16, 16))


class TestObjective:
    def test_kl_against_its_definition(self):
        """E_q[ln q - ln N(0, I)] by torch.distributions, one image at a time."""
        mean, log_variance = torch.randn(3, 2, 2, 2, generator=seeded()), torch.randn(3, 2, 2, 2, generator=seeded(1))
        q = torch.distributions.Normal(mean, (log_variance / 2).exp())
        prior = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
        expected = torch.distributions.kl_divergence(q, prior)
        found = gaussian_kl(mean, log_variance)
        assert found.tolist() == pytest.approx([one.sum().item() for one in expected], rel=1e-5)
        assert gaussian_kl(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0

    def test_loss_by_its_definition(self):
        """Scaled back by pixels / (2 s^2) it is the negative evidence lower bound, but for a constant."""
        vae, images = tiny(vae_pixel_sd=0.2), pixels(4, 3, 8, 8)
        objective = VAEObjective(vae)
        noise = objective.draw("student", images.shape, seeded(2))
        batch = Batch(images, torch.zeros(4, dtype=torch.long), 4)
        total = objective.loss("student", objective.players, batch, noise)["total"].item() * 192 / (2 * 0.2**2)
        expected = 0.0
        for b in range(4):
            reconstruction, mean, log_variance = vae(images[b : b + 1], noise[b : b + 1])
            likelihood = torch.distributions.Normal(reconstruction, 0.2).log_prob(images[b : b + 1])
            constant = torch.distributions.Normal(0.0, 0.2).log_prob(torch.tensor(0.0)) * 192
            expected += (constant - likelihood.sum() + gaussian_kl(mean, log_variance)).item() / 4
        assert total == pytest.approx(expected, rel=1e-4)

    def test_micro_batches_add_up(self):
        objective, images = VAEObjective(tiny()), pixels(6, 3, 8, 8)
        labels, noise = torch.zeros(6, dtype=torch.long), objective.draw("student", (6, 3, 8, 8), seeded(2))

        def total(rows, scale=1):
            batch = Batch(images[rows], labels[rows], 6, scale)
            return objective.loss("student", objective.players, batch, noise[rows])["total"].item()

        whole = total(slice(0, 6))
        assert total(slice(0, 2)) + total(slice(2, 6)) == pytest.approx(whole, rel=1e-5)
        assert (total(slice(0, 3), 2) + total(slice(3, 6), 2)) / 2 == pytest.approx(whole, rel=1e-5)

    def test_training_lowers_the_error(self):
        vae = tiny()
        objective, optimizer = VAEObjective(vae), torch.optim.Adam(vae.parameters(), lr=1e-2)
        ramp = torch.linspace(0, 1, 8).expand(8, 8) * torch.linspace(0.1, 1, 16).view(16, 1, 1, 1)
        batch = Batch(ramp.expand(16, 3, 8, 8), torch.zeros(16, dtype=torch.long), 16)
        errors = []
        for step in range(60):
            with only_training("student", objective.players):
                losses = objective.loss(
                    "student", objective.players, batch, objective.draw("student", (16, 3, 8, 8), seeded(step))
                )
                losses["total"].backward()
            optimizer.step()
            optimizer.zero_grad()
            errors.append(losses["squared_error"].item())
        assert errors[-1] < 0.2 * errors[0]
        assert objective.students == {}


class TestFolder:
    def test_round_trip_to_the_bit(self, tmp_path):
        vae, images = tiny(), pixels(2, 3, 8, 8)
        folder = save_vae(vae, tmp_path / "deep" / "vae", {"results": {"psnr": 20.0}})
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
        assert json.loads((folder / "config.json").read_text())["results"] == {"psnr": 20.0}
        assert list(folder.parent.iterdir()) == [folder]
        for opened in (load_vae(folder), open_autoencoder(str(folder))):
            assert not opened.training and opened.config == vae.config
            assert torch.equal(opened.encode(images), vae.encode(images))
            assert torch.equal(opened.decode(opened.encode(images), (8, 8)), vae.decode(vae.encode(images), (8, 8)))

    def test_an_older_one_is_replaced_whole(self, tmp_path):
        save_vae(tiny(), tmp_path / "vae")
        save_vae(tiny(vae_width=6), tmp_path / "vae")
        assert load_vae(tmp_path / "vae").config.vae_width == 6
        assert [path.name for path in tmp_path.iterdir()] == ["vae"]

    def test_nothing_else_is_overwritten(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(InputError, match="is not a VAE of this library"):
            save_vae(tiny(), tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_a_failure_leaves_the_older_one(self, tmp_path):
        save_vae(tiny(), tmp_path / "vae")
        before = load_file(tmp_path / "vae" / "model.safetensors")
        with pytest.raises(TypeError):
            save_vae(tiny(vae_width=6), tmp_path / "vae", {"results": object()})
        assert [path.name for path in tmp_path.iterdir()] == ["vae"]
        after = load_file(tmp_path / "vae" / "model.safetensors")
        assert all(torch.equal(value, after[name]) for name, value in before.items())

    @pytest.mark.parametrize("damage", ["config", "weights", "missing", "other"])
    def test_damage_is_named(self, tmp_path, damage):
        folder = save_vae(tiny(), tmp_path / "vae")
        if damage == "config":
            (folder / "config.json").write_text("{")
        elif damage == "weights":
            (folder / "model.safetensors").write_bytes(b"nonsense")
        elif damage == "missing":
            (folder / "model.safetensors").unlink()
        else:
            (folder / "config.json").write_text(json.dumps({"hf_transinv_vae": 1, "architecture": {"width": 3}}))
        with pytest.raises(InputError, match="holds no VAE that can be loaded"):
            load_vae(folder)

    def test_another_format_is_refused(self, tmp_path):
        (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
        assert not is_vae_folder(tmp_path)
        with pytest.raises(InputError, match=r"recipes/train_vae\.py makes one"):
            load_vae(tmp_path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"vae_width": 0}, "vae_width must be at least 1"), ({"vae_pixel_sd": 0.0}, r"vae_pixel_sd must be in \(0, 1\]")],
)
def test_impossible_values_are_refused(fields, said):
    with pytest.raises(InputError, match=said):
        VAEConfig(**fields)


def test_without_diffusers_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)  # what `import diffusers` finds where it is not installed
    with pytest.raises(InputError, match=r"pip install hf_transinv\[vae\]"):
        open_autoencoder("stabilityai/sd-vae-ft-mse")


class TestDiffusers:
    @pytest.fixture
    def network(self):
        from diffusers import AutoencoderKL  # seconds to import, and optional

        torch.manual_seed(0)
        return AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            scaling_factor=0.4,
            shift_factor=0.3,
        ).eval()

    def test_normalisation_and_scale(self, network):
        vae, images = DiffusersVAE(network, shortest_side=8), pixels(2, 3, 8, 8)
        with torch.no_grad():
            mean = network.encode(2 * images - 1).latent_dist.mean
            torch.testing.assert_close(vae.encode(images), (mean - 0.3) * 0.4)
            pictures = (network.decode(mean).sample + 1) / 2
            torch.testing.assert_close(vae.decode(vae.encode(images), (8, 8)), pictures, rtol=1e-4, atol=1e-5)

    def test_small_images_are_enlarged_and_come_back(self, network):
        vae, images = DiffusersVAE(network, shortest_side=16), pixels(1, 3, 8, 12)
        assert vae.working_size(8, 12) == (16, 24) and vae.working_size(17, 32) == (18, 32)
        latents = vae.encode(images)
        assert latents.shape == (1, 4, 8, 12) and vae.decode(latents, (8, 12)).shape == images.shape

    def test_it_is_opened_from_safetensors_alone(self, network, tmp_path):
        network.save_pretrained(tmp_path / "good")
        opened, images = open_autoencoder(str(tmp_path / "good")), pixels(1, 3, 128, 128)
        with torch.no_grad():
            expected = DiffusersVAE(network).encode(images)
            torch.testing.assert_close(opened.encode(images), expected)
        network.save_pretrained(tmp_path / "pickle", safe_serialization=False)
        with pytest.raises(InputError, match="with safetensors weights"):
            open_autoencoder(str(tmp_path / "pickle"))
