"""Train a teacher: supervised, robust to the corruptions that are named.

accelerate launch recipes/train_teacher.py --dataset digits/source --student wrn10_1_cifar \
    --corruption gaussian_noise --num_train_epochs 30 --output_dir outputs/noise_teacher
"""

from dataclasses import dataclass

from hf_transinv.augment.policies import RandomCorruption
from hf_transinv.command_line import parse
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.launch import clear_errors
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.publish import publish
from hf_transinv.run import Session, new_student


@dataclass
class CorruptionConfig:
    """What the teacher is made robust to.

    Attributes:
        corruption: names of corruptions; an image gets one of them; none: a plain teacher.
        clean_share: share of the training images that stay clean.
        severities: of the corruptions in training, each equally likely.
        frost_folder: the authors' pictures of frost; default: synthetic ones.
    """

    corruption: tuple[str, ...] = ()
    clean_share: float = 0.5
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    frost_folder: str | None = None

    def policy(self) -> RandomCorruption | None:
        """The corruption of training images, or None."""
        if not self.corruption:
            return None
        return RandomCorruption(self.corruption, self.clean_share, self.severities, self.frost_folder)


def main() -> None:
    groups = parse([DataConfig, StudentConfig, TrainConfig, OutputConfig, CorruptionConfig], description=__doc__)
    data, names, train, output, robust = groups
    policy = robust.policy()
    session = Session("train_teacher", data, train, output, as_dict(*groups))
    student = new_student(names, session.data.label_names, train.seed)
    objective = Supervised(student, train.label_smoothing, policy)
    session.fit("teacher", objective, data.crop, data.flip)
    print(publish(session, objective))


if __name__ == "__main__":
    with clear_errors():
        main()
