"""What pyproject.toml cannot say: configurations and small teachers lie beside the package, and travel in it."""

from setuptools import find_packages, setup

CONFIGS = {
    "hf_transinv.assets.configs": "recipes/configs",
    "hf_transinv.assets.accelerate": "recipes/accelerate",
}
TEACHERS = {
    f"hf_transinv.assets.model_cards.{name}": f"model_cards/{name}"
    for name in ("digits_elastic", "digits_light", "cifar10_noise_wrn16_2")
}

setup(
    packages=[*find_packages(include=["hf_transinv*"]), *CONFIGS, *TEACHERS],
    py_modules=["hf_transinv_start"],
    package_dir=CONFIGS | TEACHERS,
    package_data={
        "hf_transinv": ["data/digits/*", "templates/*", "py.typed"],
        **{name: ["*.yaml"] for name in CONFIGS},
        **{name: ["config.json", "model.safetensors", "run.json"] for name in TEACHERS},
    },
)
