r"""Probe what teachers pass on: the primitives are corruptions of fixed strength, and only p and q are learned.

Section 4.1 of the TransInv paper: a student is trained with one teacher at a
time, and the corruption that ends up with the largest p should be the one
that the teacher is robust to (figure 3).

transinv probe
    the embedded default: two small teachers for digits
transinv probe --mixed_precision bf16 --config cifar100_probe \
    --teachers outputs/noise_teacher/student outputs/snow_teacher/student \
    --own gaussian_noise snow --seeds 0 1 2
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_transinv.augment.corruptions import CORRUPTIONS, check_corruption
from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.config.checks import choice
from hf_transinv.errors import InputError
from hf_transinv.experiment.arguments import told_configs
from hf_transinv.experiment.methods import new_student
from hf_transinv.experiment.presets import parse_run
from hf_transinv.experiment.session import Session
from hf_transinv.figures import plot_probe
from hf_transinv.files import atomic_write_text, write_json
from hf_transinv.formats.markdown import escape, table
from hf_transinv.models.teacher import build_teachers
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv, TransInvConfig
from hf_transinv.resolve.shipped import config_folder


@dataclass
class ProbeConfig:
    """What is probed.

    Attributes:
        own: the corruption that each teacher is robust to, in the order of teachers; marked in figure and table.
        seeds: each teacher is probed once with each.
    """

    own: tuple[str, ...] = choice((), CORRUPTIONS, is_closed=False)
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for name in self.own:
            check_corruption(name)
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds {list(self.seeds)}: expected at least one, each once, none negative")


def probe_results(
    rows: Mapping[str, Mapping[str, Any]], teachers: Sequence[str], own: Sequence[str], config: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One entry per probe: teacher, seed, p of each primitive, q, and whether the teacher's own corruption leads."""
    results = []
    for place, teacher in enumerate(teachers):
        for seed in config["seeds"]:
            learned = rows[f"{teacher} seed {seed}"]["learned"]
            p = dict(zip(config["primitives"], learned["p"][0], strict=True))
            largest = max(p, key=p.__getitem__).partition(":")[0]
            result = {"teacher": teacher, "seed": seed, "largest": largest, "p": p, "q": learned["q"][0]}
            if own:
                result |= {"own": own[place], "own_is_largest": largest == own[place]}
            results.append(result)
    return results


def probe_markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """One row per probe: the teacher, its own corruption with its p, and the three largest p."""
    rows = []
    for result in results:
        p = {name.partition(":")[0]: value for name, value in result["p"].items()}
        largest = sorted(p, key=p.__getitem__, reverse=True)[:3]
        own = result.get("own")
        own_cells = [escape(own), f"{p.get(own, 0.0):.2f}"] if own else ["–", "–"]
        shown = ", ".join(f"{escape(name)} {p[name]:.2f}" for name in largest)
        rows.append([escape(result["teacher"]), str(result["seed"]), *own_cells, shown, f"{result['q']:.2f}"])
    text = table(["teacher", "seed", "own corruption", "p", "largest p", "q"], rows, numeric_from=5)
    hits = [result["own_is_largest"] for result in results if "own" in result]
    if hits:
        text += f"\n\nThe teacher's own corruption has the largest p in {sum(hits)} of {len(hits)} probes."
    return f"{text}\n"


def main(description: str = __doc__ or "") -> None:
    """The whole command.

    Args:
        description: for --help.
    """
    default_config = config_folder() / "digits_probe.yaml"
    groups, preset = parse_run(
        [DataConfig, StudentConfig, TrainConfig, TransInvConfig, AugmentationConfig, OutputConfig, ProbeConfig],
        default_config=default_config,
        description=description,
    )
    data, names, train, method, augment, output, probe = groups
    if probe.own and len(probe.own) != len(names.teachers):
        raise InputError(f"own names {len(probe.own)} corruptions for {len(names.teachers)} teachers: one for each")
    if train.ema != "none":
        raise InputError(f"ema {train.ema}: a probe asks for p and q, and exports no student; leave it out")
    session = Session("probe", data, train, output, as_dict(*groups))
    session.told += [*told_configs(default_config=default_config), preset]
    for teacher in names.teachers:
        for seed in probe.seeds:
            student = new_student(names, session.label_names, seed)
            panel = AugmentationPanel(1, augment)
            judge = build_teachers([teacher], student, names.ema_decay, names.teacher_sizes)
            judge.to(session.accelerator.device)
            objective = TransInv(Supervised(student, train.label_smoothing), panel, judge, method)
            session.fit(f"{teacher} seed {seed}", objective, data.crop, data.flip, seed)

    if session.record:
        config = session.record.content["config"]
        results = probe_results(session.rows, names.teachers, probe.own, config)
        write_json(session.folder / "probe.json", {"estimator": augment.estimator, "probes": results})
        shown = probe_markdown(results)
        atomic_write_text(session.folder / "probe.md", shown)
        plot_probe(results, session.folder / "figures" / "probe.png")
        session.record.update(status="finished")
        print(f"\n{shown}\nFigure, numbers and run.json are in {session.folder}")
    session.leave()
