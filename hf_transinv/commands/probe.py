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

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from hf_transinv.augment.corruptions import CORRUPTIONS, check_corruption
from hf_transinv.augment.corruptions.severities import SEVERITIES
from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.config.checks import choice
from hf_transinv.errors import InputError
from hf_transinv.evaluation.weighed_primitives import Weighed, weigh_primitives
from hf_transinv.experiment.arguments import told_configs
from hf_transinv.experiment.methods import new_student
from hf_transinv.experiment.presets import parse_run
from hf_transinv.experiment.session import Session
from hf_transinv.figures import plot_probe
from hf_transinv.figures.probe_bars import by_corruption
from hf_transinv.files import atomic_write_text, write_json
from hf_transinv.formats.markdown import escape, table
from hf_transinv.models.classifier import Classifier
from hf_transinv.models.teacher import Teacher, build_teachers
from hf_transinv.objectives.supervised import Supervised
from hf_transinv.objectives.transinv import TransInv, TransInvConfig
from hf_transinv.resolve.shipped import config_folder


@dataclass
class ProbeConfig:
    """What is probed.

    Attributes:
        own: the corruption that each teacher is robust to, in the order of teachers; marked in figure and table.
        seeds: each teacher is probed once with each.
        matched_rise: nats by which each corruption among the primitives is to raise the cross-entropy of the student
            as it starts: each is taken at the severity that does, whole or between two, in the place of its own. None
            of them then begins as harder than the others.
    """

    own: tuple[str, ...] = choice((), CORRUPTIONS, is_closed=False)
    seeds: tuple[int, ...] = (0,)
    matched_rise: float | None = None

    def __post_init__(self) -> None:
        for name in self.own:
            check_corruption(name)
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds {list(self.seeds)}: expected at least one, each once, none negative")
        if self.matched_rise is not None and not 0 < self.matched_rise < math.inf:
            raise InputError(f"matched_rise is in nats, above 0, given {self.matched_rise}")


def severity_of(rises: Sequence[float], rise: float) -> float | None:
    """The lowest severity, in hundredths, that costs so much; None: none does.

    Args:
        rises: what severities 1 to 5 cost; between two whole ones the cost is linear, as it is of a mixture of both.
        rise: the cost that is asked for.
    """
    before = 0.0
    for below, cost in enumerate(rises):
        if cost >= rise:
            return max(0.01, round(below + (rise - before) / (cost - before), 2))
        before = cost
    return None


def match(session: Session, student: Classifier, primitives: Sequence[str], rise: float) -> dict[str, Any]:
    """The primitives at the severities that cost a student as much as each other.

    Args:
        session: of the probe; its evaluation images decide.
        student: as it starts.
        primitives: CORRUPTION:SEVERITY each.
        rise: of the student's cross-entropy, in nats.

    Returns:
        {"rise", "clean": cross-entropy of the student, "primitives": CORRUPTION:SEVERITY of each}.

    Raises:
        InputError: a corruption does not cost the student so much at any severity.
    """
    names = list(by_corruption(dict.fromkeys(primitives)))
    asked = tuple(f"{name}:{severity}" for name in names for severity in SEVERITIES)
    panel = AugmentationPanel(1, AugmentationConfig(primitives=asked))
    found = weigh_primitives(student, [], panel, session.data.evaluation, session.accelerator)
    rises = {name: [found.hard[f"{name}:{severity}"] - found.clean for severity in SEVERITIES] for name in names}
    chosen = {name: severity_of(of_name, rise) for name, of_name in rises.items()}
    weak = ", ".join(f"{name} {max(rises[name]):.3f}" for name, severity in chosen.items() if severity is None)
    if weak:
        raise InputError(
            f"matched_rise {rise:g}: some corruptions raise the student's cross-entropy of {found.clean:.2f} nats by "
            f"less at any severity ({weak}): give no more than that, or a student that is trained "
            "(student_init pretrained)"
        )
    return {"rise": rise, "clean": found.clean, "primitives": [f"{name}:{chosen[name]:g}" for name in names]}


def weigh_start(
    session: Session, names: StudentConfig, augment: AugmentationConfig, probe: ProbeConfig
) -> tuple[AugmentationConfig, dict[str, Any] | None, Weighed]:
    """What there is before anything is learned; the networks, all teachers at once, are gone when it is known.

    Returns:
        The augmentation, its primitives matched where that is asked for; what `match` says; and what primitives do.
    """
    matched, student = None, new_student(names, session.label_names, probe.seeds[0])
    if probe.matched_rise is not None:
        matched = match(session, student, augment.primitives, probe.matched_rise)
        augment = replace(augment, primitives=tuple(matched["primitives"]))
        shown = ", ".join(matched["primitives"])
        session.told.append(f"matched     {probe.matched_rise:g} nats above {matched['clean']:.2f}: {shown}")
    teachers = cast(Sequence[Teacher], build_teachers(names.teachers, student, names.ema_decay, names.teacher_sizes))
    panel = AugmentationPanel(1, augment)
    return augment, matched, weigh_primitives(student, teachers, panel, session.data.evaluation, session.accelerator)


def probe_results(
    rows: Mapping[str, Mapping[str, Any]], teachers: Sequence[str], probe: ProbeConfig, primitives: Sequence[str]
) -> list[dict[str, Any]]:
    """One entry per probe: teacher, seed, p of each primitive, q, and whether the teacher's own corruption leads."""
    results = []
    for place, teacher in enumerate(teachers):
        for seed in probe.seeds:
            learned = rows[f"{teacher} seed {seed}"]["learned"]
            p = dict(zip(primitives, learned["p"][0], strict=True))
            of_name = by_corruption(p)
            largest = max(of_name, key=of_name.__getitem__)
            result = {"teacher": teacher, "seed": seed, "largest": largest, "p": p, "q": learned["q"][0]}
            if probe.own:
                result |= {"own": probe.own[place], "own_is_largest": largest == probe.own[place]}
            results.append(result)
    return results


def leading_teachers(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Corruption -> the own corruption of the teacher who gives it the largest p, by the mean over seeds.

    A corruption that is mild to every teacher, or slow to learn, has a large p under all of them. Unlike the largest p
    of one teacher, this leaves that out. Own corruptions among the primitives; empty unless teachers differ in theirs.
    """
    own = {result["teacher"]: result["own"] for result in results if "own" in result}

    def mean_p(teacher: str, name: str) -> float:
        found = [by_corruption(result["p"])[name] for result in results if result["teacher"] == teacher]
        return sum(found) / len(found)

    known = {name for result in results for name in by_corruption(result["p"])}
    names = dict.fromkeys(name for name in own.values() if name in known) if len(set(own.values())) > 1 else {}
    return {name: own[max(own, key=lambda teacher: mean_p(teacher, name))] for name in names}


def start_results(teachers: Sequence[str], probe: ProbeConfig, weighed: Weighed) -> dict[str, Any]:
    """hard, and one entry per teacher: keep of each primitive, the one it minds least and the one that gains most."""
    found = []
    for place, (teacher, moved) in enumerate(zip(teachers, weighed.keep, strict=True)):
        keep = by_corruption(moved)
        gains = by_corruption({name: weighed.hard[name] - moved[name] for name in moved})
        own = {"own": probe.own[place]} if probe.own else {}
        ends = {"least_keep": min(keep, key=keep.__getitem__), "largest_gain": max(gains, key=gains.__getitem__)}
        found.append({"teacher": teacher, **own, "keep": moved, **ends})
    return {"hard": weighed.hard, "teachers": found}


def start_markdown(start: Mapping[str, Any]) -> str:
    """One row per teacher: its own corruption, and what it minds least, with their nats."""
    hard, rows = by_corruption(start["hard"]), []

    def told(name: str, values: Mapping[str, float]) -> str:
        return f"{escape(name)} {values[name]:.2f}" if name in values else "–"

    for found in start["teachers"]:
        keep = by_corruption(found["keep"])
        gains, own = {name: hard[name] - keep[name] for name in keep}, found.get("own", "")
        shown = (own, keep), (found["least_keep"], keep), (own, gains), (found["largest_gain"], gains)
        rows.append([escape(found["teacher"]), *(told(name, values) for name, values in shown)])
    heads = ["teacher", "KL: own", "least KL", "gain: own", "largest gain"]
    text = table(heads, rows, numeric_from=len(heads))
    known = [found for found in start["teachers"] if "own" in found]
    if known:
        least, largest = (sum(found[key] == found["own"] for found in known) for key in ("least_keep", "largest_gain"))
        text += f"\n\nThe teacher's own corruption has the least KL for {least} of {len(known)} teachers, "
        text += f"the largest gain for {largest}."
    return f"Before anything is learned, in nats; gain: the student's cross-entropy less the teacher's KL.\n\n{text}\n"


def probe_markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """One row per probe: the teacher, its own corruption with its p, and the three largest p."""
    rows = []
    for result in results:
        p = by_corruption(result["p"])
        largest = sorted(p, key=p.__getitem__, reverse=True)[:3]
        own = result.get("own")
        own_cells = [escape(own), f"{p.get(own, 0.0):.2f}"] if own else ["–", "–"]
        shown = ", ".join(f"{escape(name)} {p[name]:.2f}" for name in largest)
        rows.append([escape(result["teacher"]), str(result["seed"]), *own_cells, shown, f"{result['q']:.2f}"])
    text = table(["teacher", "seed", "own corruption", "p", "largest p", "q"], rows, numeric_from=5)
    hits = [result["own_is_largest"] for result in results if "own" in result]
    if hits:
        text += f"\n\nThe teacher's own corruption has the largest p in {sum(hits)} of {len(hits)} probes."
    if most := leading_teachers(results):
        hits = [name == of_teacher for name, of_teacher in most.items()]
        text += f" Of all teachers, its own gives a corruption the largest p (mean of the seeds) for {sum(hits)} of "
        text += f"{len(hits)} corruptions."
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
    by_corruption(dict.fromkeys(augment.primitives))  # refused before anything is read
    no_corruption = [name for name in augment.primitives if ":" not in name]
    if probe.matched_rise is not None and no_corruption:
        raise InputError(f"matched_rise is for corruptions: primitives {', '.join(no_corruption)} have no severity")
    if train.ema != "none":
        raise InputError(f"ema {train.ema}: a probe asks for p and q, and exports no student; leave it out")
    session = Session("probe", data, train, output, as_dict(*groups))
    session.told += [*told_configs(default_config=default_config), preset]
    augment, matched, weighed = weigh_start(session, names, augment, probe)
    for teacher in names.teachers:
        for seed in probe.seeds:
            student = new_student(names, session.label_names, seed)
            panel = AugmentationPanel(1, augment)
            judge = build_teachers([teacher], student, names.ema_decay, names.teacher_sizes)
            judge.to(session.accelerator.device)
            objective = TransInv(Supervised(student, train.label_smoothing), panel, judge, method)
            session.fit(f"{teacher} seed {seed}", objective, data.crop, data.flip, seed)

    if session.record:
        results = probe_results(session.rows, names.teachers, probe, augment.primitives)
        before = start_results(names.teachers, probe, weighed)
        told = {"estimator": augment.estimator, "probes": results, "start": before}
        told |= {"leading_teachers": leading_teachers(results)}
        write_json(session.folder / "probe.json", told | ({"matched": matched} if matched else {}))
        shown = f"{probe_markdown(results)}\n{start_markdown(before)}"
        atomic_write_text(session.folder / "probe.md", shown)
        plot_probe(results, session.folder / "figures" / "probe.png")
        session.record.update(status="finished")
        print(f"\n{shown}\nFigure, numbers and run.json are in {session.folder}")
    session.leave()
