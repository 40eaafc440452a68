"""HARD's augmenters: the spline against its definition, a displacement of zero, gradients, replay."""

import pytest
import torch

from hf_transinv.augment.hard_augmenters import AugmenterConfig, LatentShift, build_augmenter
from hf_transinv.augment.thin_plate import control_points, pixel_centres, thin_plate_basis, warp_thin_plate
from hf_transinv.errors import InputError
from hf_transinv.models.conv_vae import ConvVAE, VAEConfig, save_vae
from tests.oracles import thin_plate as oracle

KINDS = ("affine", "thin_plate", "vae")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=seeded(seed), dtype=dtype)


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory):
    torch.manual_seed(3)
    vae = ConvVAE(VAEConfig(vae_latent_channels=3, vae_width=4, vae_halvings=1))
    vae.latent_scale.fill_(1.7)
    return str(save_vae(vae, tmp_path_factory.mktemp("vae") / "vae"))


@pytest.fixture
def build(vae_folder):
    def build_one(kind, size=(8, 8), **fields):
        torch.manual_seed(0)
        named = {"hard_vae": vae_folder} if kind == "vae" else {}
        options = {"hard_init_scale": 0.5, "hard_latent_dim": 5, "hard_hidden_dim": 7} | fields
        return build_augmenter(AugmenterConfig(hard_augmenter=kind, **named, **options), size)

    return build_one


class TestThinPlate:
    @pytest.mark.parametrize(("side", "size"), [(2, (5, 5)), (3, (6, 4)), (4, (5, 7))])
    def test_against_the_slow_spline(self, side, size):
        images = pixels(2, 2, *size, dtype=torch.float64)
        displacements = 0.6 * pixels(2, side**2, 2, seed=1, dtype=torch.float64) - 0.3
        actual = warp_thin_plate(images, displacements, thin_plate_basis(side, *size))
        rows = zip(images.tolist(), displacements.tolist(), strict=True)
        expected = torch.tensor([oracle.warp(image, moved, side) for image, moved in rows], dtype=torch.float64)
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)

    def test_the_control_points_go_exactly_where_they_are_sent(self):
        """On an image whose pixel centres are control points: all of 3 x 3 pixels of a spline with 5 x 5 points."""
        points, centres = control_points(5), pixel_centres(3, 3) * 3 / 4
        at = [int((points - centre).abs().sum(1).argmin()) for centre in centres]
        assert all(torch.equal(points[j], centre) for j, centre in zip(at, centres, strict=True))
        fine = thin_plate_basis(5, 4, 4)  # pixel centres at -3/4 .. 3/4: none is a control point of 5 x 5
        displacements = pixels(25, 2, seed=2, dtype=torch.float64)
        spline = oracle.spline([tuple(p) for p in points.tolist()], displacements[:, 0].tolist())
        for j, point in enumerate(points.tolist()):
            assert spline(point) == pytest.approx(displacements[j, 0].item(), abs=1e-9)
        expected = [spline(tuple(place)) for place in pixel_centres(4, 4).tolist()]
        assert (fine @ displacements)[:, 0].tolist() == pytest.approx(expected, abs=1e-9)

    def test_an_affine_displacement_is_reproduced(self):
        """A spline through the points of an affine map is that map, everywhere: no bending."""
        points, places, matrix = control_points(4), pixel_centres(6, 9), pixels(2, 2, seed=3, dtype=torch.float64)
        found = thin_plate_basis(4, 6, 9) @ (points @ matrix + 0.3)
        torch.testing.assert_close(found, places @ matrix + 0.3, rtol=1e-10, atol=1e-10)

    def test_gradients(self):
        basis = thin_plate_basis(3, 4, 5)
        images = pixels(2, 1, 4, 5, dtype=torch.float64).requires_grad_()
        displacements = (0.4 * pixels(2, 9, 2, seed=1, dtype=torch.float64) - 0.2).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, d: warp_thin_plate(x, d, basis), (images, displacements))


@pytest.mark.parametrize("kind", KINDS)
class TestEveryAugmenter:
    @pytest.mark.parametrize("sees_image", [False, True])
    def test_a_displacement_of_zero_is_the_identity(self, build, kind, sees_image):
        still = {"hard_linear_range": 0.0, "hard_shift_range": 0.0, "hard_displacement_range": 0.0}
        augmenter = build(kind, hard_sees_image=sees_image, hard_latent_range=0.0, **still)
        images = pixels(3, 3, 8, 8)
        torch.testing.assert_close(
            augmenter(images, augmenter.draw(images.shape, seeded())), images, atol=1e-5, rtol=0
        )

    def test_images_move_and_stay_in_range(self, build, kind):
        augmenter, images = build(kind, hard_init_scale=3.0, hard_latent_range=20.0), pixels(6, 3, 8, 8)
        moved = augmenter(images, augmenter.draw(images.shape, seeded()))
        assert moved.shape == images.shape and moved.min() >= 0 and moved.max() <= 1
        assert all((moved[b] - images[b]).abs().max() > 1e-3 for b in range(6))

    def test_parts_of_a_batch_are_the_batch(self, build, kind):
        augmenter, images = build(kind, hard_sees_image=True), pixels(6, 3, 8, 8)
        draws = augmenter.draw(images.shape, seeded(1))
        parts = [augmenter(images[rows], draws[rows]) for rows in (slice(0, 2), slice(2, 6))]
        torch.testing.assert_close(torch.cat(parts), augmenter(images, draws), rtol=1e-5, atol=1e-5)

    def test_replay(self, build, kind):
        augmenter, images = build(kind), pixels(3, 3, 8, 8)
        first, again, other = (augmenter.draw(images.shape, seeded(seed)) for seed in (1, 1, 2))
        assert torch.equal(augmenter(images, first), augmenter(images, again))
        assert not torch.equal(augmenter(images, first), augmenter(images, other))

    @pytest.mark.parametrize("sees_image", [False, True])
    def test_gradients_to_phi(self, build, kind, sees_image):
        """Against finite differences along a random direction, in float64."""
        augmenter = build(kind, hard_sees_image=sees_image).double()
        images = 0.2 + 0.6 * pixels(2, 3, 8, 8, dtype=torch.float64)
        z, weights = augmenter.draw(images.shape, seeded(1)).double(), pixels(2, 3, 8, 8, seed=4, dtype=torch.float64)
        parameters = list(augmenter.parameters())
        directions = [torch.randn(p.shape, generator=seeded(k), dtype=p.dtype) for k, p in enumerate(parameters)]

        def along(step):
            with torch.no_grad():
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter += step * direction
                value = (augmenter(images, z) * weights).sum().item()
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter -= step * direction
            return value

        (augmenter(images, z) * weights).sum().backward()
        slope = sum((p.grad * d).sum().item() for p, d in zip(parameters, directions, strict=True))
        assert slope == pytest.approx((along(1e-6) - along(-1e-6)) / 2e-6, rel=1e-4, abs=1e-6)
        assert all(p.grad.abs().max() > 0 for p in parameters)

    def test_half_precision_does_not_reach_the_pixels(self, build, kind):
        augmenter, images = build(kind), pixels(2, 3, 8, 8)
        draws = augmenter.draw(images.shape, seeded(1))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(augmenter(images, draws), augmenter(images, draws).float())
            inside = augmenter(images, draws)
        assert torch.equal(inside, augmenter(images, draws))


def test_affine_translation_by_hand(build):
    """A network that answers only with its bias: the picture is read half an image to the right."""
    augmenter = build("affine", (4, 4), hard_shift_range=1.0)
    with torch.no_grad():
        augmenter.displacement.last.weight.zero_()
        augmenter.displacement.last.bias.copy_(torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0, 0.0]).atanh())
    images = pixels(1, 3, 4, 4)
    moved = augmenter(images, torch.zeros(1, 5))
    torch.testing.assert_close(moved[..., :3], images[..., 1:], atol=1e-5, rtol=0)  # 0.5 of half of 4 px is 1 px
    assert moved[..., 3].abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["affine", "thin_plate"])
def test_a_warp_that_sees_the_image_differs_between_images(build, kind):
    z = torch.zeros(2, 5)
    images = pixels(2, 3, 8, 8)
    for sees_image in (False, True):
        augmenter = build(kind, hard_sees_image=sees_image)
        one, other = augmenter.displacement(images, z)
        assert torch.allclose(one, other, atol=1e-6) is not sees_image


class TestLatentShift:
    def test_by_its_definition(self, build):
        augmenter, images = build("vae"), pixels(2, 3, 8, 8)
        z = augmenter.draw(images.shape, seeded(1))
        vae = augmenter.autoencoder
        latents = vae.encode(images)
        hidden = (augmenter.from_latents(latents) + augmenter.from_z(z).view(2, 7, 1, 1)).clamp(min=0)
        moved = latents + torch.tanh(augmenter.last(hidden))
        expected = (images + vae.decode(moved, (8, 8)) - vae.decode(latents, (8, 8))).clamp(0, 1)
        torch.testing.assert_close(augmenter(images, z), expected)

    def test_the_vae_holds_still_and_stays_out_of_checkpoints(self, build):
        augmenter, images = build("vae"), pixels(2, 3, 8, 8)
        vae = augmenter.autoencoder
        before = {name: value.clone() for name, value in vae.state_dict().items()}
        optimizer = torch.optim.SGD(augmenter.parameters(), lr=1.0, weight_decay=0.1)
        augmenter.train()
        augmenter(images, augmenter.draw(images.shape, seeded())).square().sum().backward()
        optimizer.step()
        assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
        assert not vae.training and all(p.grad is None and not p.requires_grad for p in vae.parameters())
        assert {name.partition(".")[0] for name in augmenter.state_dict()} == {"from_latents", "from_z", "last"}

    def test_the_vae_moves_with_it(self, build):
        augmenter = build("vae").to(torch.float64)
        assert isinstance(augmenter, LatentShift)
        assert {p.dtype for p in augmenter.autoencoder.parameters()} == {torch.float64}


def test_a_thin_plate_is_for_one_image_size(build):
    with pytest.raises(InputError, match=r"images of \(8, 8\) pixels, not \(6, 8\)"):
        build("thin_plate")(pixels(1, 3, 6, 8), torch.zeros(1, 5))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hard_augmenter": "spline"}, "not one of affine, thin_plate, vae"),
        ({"hard_padding": "wrap"}, "not one of zeros, border, reflection"),
        ({"hard_augmenter": "vae"}, "needs hard_vae"),
        ({"hard_vae": "folder"}, "only that one takes it"),
        ({"hard_control_points": 1}, "at least 2, given 1"),
        ({"hard_shift_range": -0.1}, "hard_shift_range must be at least 0"),
        ({"hard_latent_range": float("nan")}, "hard_latent_range.*nan"),
        ({"hard_latent_dim": 0}, "at least 1"),
    ],
)
def test_impossible_values_are_refused(fields, said):
    with pytest.raises(InputError, match=said):
        AugmenterConfig(**fields)
