r"""Train a teacher by supervised learning, robust to the corruptions that are given.

transinv train-teacher --dataset digits/source --student wrn10_1_cifar \
    --corruption gaussian_noise --num_train_epochs 30 \
    --output_dir outputs/noise_teacher
"""

from hf_transinv.augment.policies import CorruptionConfig
from hf_transinv.config import DataConfig, MixingConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.experiment.arguments import told_configs
from hf_transinv.experiment.methods import check_sampler, new_student
from hf_transinv.experiment.presets import parse_run
from hf_transinv.experiment.publish import publish
from hf_transinv.experiment.session import Session
from hf_transinv.experiment.student_checks import check_student
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.training.averaging import keep_average
from hf_transinv.training.interpolation import keep_start


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    kinds = [DataConfig, StudentConfig, TrainConfig, OutputConfig, CorruptionConfig, MixingConfig]
    groups, preset = parse_run(kinds, description=description)
    data, names, train, output, robust, mixing = groups
    check_sampler(data, mixing)
    check_student(names, train)
    policies = (robust.policy(),) if robust.corruption else ()
    session = Session("train_teacher", data, train, output, as_dict(*groups), 2 if mixing.mixes else 1)
    session.mixing = mixing
    session.told += [*told_configs(), preset]
    student = new_student(names, session.label_names, train.seed)
    objective: Objective = Supervised(student, train.label_smoothing, policies)
    if train.interpolate is not None:
        objective = keep_start(objective)
    if train.ema != "none":
        objective = keep_average(objective, names.ema_decay)
    session.fit("teacher", objective, data.crop, data.flip)
    print(publish(session, objective))
