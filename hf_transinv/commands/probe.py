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
from dataclasses import dataclass, replace
from typing import Any, cast

from hf_transinv.augment.corruptions import CORRUPTIONS, check_corruption
from hf_transinv.augment.corruptions.severities import SEVERITIES
from hf_transinv.augment.learned import AugmentationConfig, AugmentationPanel
from hf_transinv.config import DataConfig, OutputConfig, StudentConfig, TrainConfig, as_dict
from hf_transinv.config.checks import choice
from hf_transinv.errors import InputError
from hf_transinv.evaluation import evaluate
from hf_transinv.evaluation.weighed_primitives import weigh_primitives
from hf_transinv.experiment.arguments import told_configs
from hf_transinv.experiment.methods import new_student
from hf_transinv.experiment.presets import parse_run
from hf_transinv.experiment.session import Session
from hf_transinv.figures import plot_probe
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
        matched_drop: points of top-1 that each corruption among the primitives is to cost the student as it starts:
            each is taken at the severity that comes nearest, in the place of its own. What is hard for the student is
            then no reason why one of them wins.
    """

    own: tuple[str, ...] = choice((), CORRUPTIONS, is_closed=False)
    seeds: tuple[int, ...] = (0,)
    matched_drop: float | None = None

    def __post_init__(self) -> None:
        for name in self.own:
            check_corruption(name)
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds {list(self.seeds)}: expected at least one, each once, none negative")
        if self.matched_drop is not None and not 0 < self.matched_drop < 100:
            raise InputError(f"matched_drop is in points of top-1, between 0 and 100, given {self.matched_drop}")


def nearest_severities(clean: float, corrupted: Mapping[str, Mapping[str, Any]], drop: float) -> dict[str, int]:
    """Corruption -> the severity at which it costs the nearest to `drop` points; the lower one of two as near.

    Args:
        clean: top-1 without corruption, in percent.
        corrupted: corruption -> severity, as text -> top-1.
        drop: points of top-1.
    """
    return {
        name: min(SEVERITIES, key=lambda severity: abs(clean - found[str(severity)] - drop))
        for name, found in corrupted.items()
    }


def match(session: Session, student: Classifier, primitives: Sequence[str], drop: float) -> dict[str, Any]:
    """The primitives at the severities that cost a student as much as each other.

    Args:
        session: of the probe; its evaluation images decide.
        student: as it starts.
        primitives: CORRUPTION:SEVERITY each.
        drop: points of top-1.

    Returns:
        {"drop", "clean": top-1 of the student, "costs": CORRUPTION:SEVERITY -> points that it costs}.

    Raises:
        InputError: the student has less than `drop` points to lose.
    """
    names = [name.partition(":")[0] for name in primitives]
    student.to(session.accelerator.device)
    found = evaluate(student, session.data.evaluation, accelerator=session.accelerator, corruptions=names)
    clean, corrupted = found["clean"]["top1"], found["corruptions"]
    if clean <= drop:
        raise InputError(
            f"the student has {clean:.1f} % on clean images and cannot lose {drop:g} points: give a smaller "
            "matched_drop, or a student that is trained (student_init pretrained)"
        )
    chosen = nearest_severities(clean, corrupted, drop)
    costs = {f"{name}:{severity}": clean - corrupted[name][str(severity)] for name, severity in chosen.items()}
    return {"drop": drop, "clean": clean, "costs": costs}


def probe_results(
    rows: Mapping[str, Mapping[str, Any]], teachers: Sequence[str], probe: ProbeConfig, primitives: Sequence[str]
) -> list[dict[str, Any]]:
    """One entry per probe: teacher, seed, p of each primitive, q, and whether the teacher's own corruption leads."""
    results = []
    for place, teacher in enumerate(teachers):
        for seed in probe.seeds:
            learned = rows[f"{teacher} seed {seed}"]["learned"]
            p = dict(zip(primitives, learned["p"][0], strict=True))
            largest = max(p, key=p.__getitem__).partition(":")[0]
            result = {"teacher": teacher, "seed": seed, "largest": largest, "p": p, "q": learned["q"][0]}
            if probe.own:
                result |= {"own": probe.own[place], "own_is_largest": largest == probe.own[place]}
            results.append(result)
    return results


def start_results(
    teachers: Sequence[str], probe: ProbeConfig, hard: Mapping[str, float], keep: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """hard, and one entry per teacher: keep of each primitive, the one it minds least and the one that gains most."""
    found = []
    for place, (teacher, moved) in enumerate(zip(teachers, keep, strict=True)):
        gains = {name: hard[name] - moved[name] for name in moved}
        ends = min(moved, key=moved.__getitem__), max(gains, key=gains.__getitem__)
        least, best = (name.partition(":")[0] for name in ends)
        own = {"own": probe.own[place]} if probe.own else {}
        found.append({"teacher": teacher, **own, "keep": dict(moved), "least_keep": least, "largest_gain": best})
    return {"hard": dict(hard), "teachers": found}


def start_markdown(start: Mapping[str, Any]) -> str:
    """One row per teacher: its own corruption, and what it minds least, with their nats."""
    hard, rows = {name.partition(":")[0]: value for name, value in start["hard"].items()}, []

    def told(name: str, values: Mapping[str, float]) -> str:
        return f"{escape(name)} {values[name]:.2f}" if name in values else "–"

    for found in start["teachers"]:
        keep = {name.partition(":")[0]: value for name, value in found["keep"].items()}
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
    no_corruption = [name for name in augment.primitives if ":" not in name]
    if probe.matched_drop is not None and no_corruption:
        raise InputError(f"matched_drop is for corruptions: primitives {', '.join(no_corruption)} have no severity")
    if train.ema != "none":
        raise InputError(f"ema {train.ema}: a probe asks for p and q, and exports no student; leave it out")
    session = Session("probe", data, train, output, as_dict(*groups))
    session.told += [*told_configs(default_config=default_config), preset]
    matched, start = None, new_student(names, session.label_names, probe.seeds[0])
    if probe.matched_drop is not None:
        matched = match(session, start, augment.primitives, probe.matched_drop)
        augment = replace(augment, primitives=tuple(matched["costs"]))
        costs = ", ".join(f"{name} {cost:.1f}" for name, cost in matched["costs"].items())
        session.told.append(f"matched     to {probe.matched_drop:g} points of {matched['clean']:.1f} %: {costs}")
    judges = cast(Sequence[Teacher], build_teachers(names.teachers, start, names.ema_decay, names.teacher_sizes))
    panel = AugmentationPanel(1, augment)
    hard, keep = weigh_primitives(start, judges, panel, session.data.evaluation, session.accelerator)
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
        weighed = start_results(names.teachers, probe, hard, keep)
        told = {"estimator": augment.estimator, "probes": results, "start": weighed}
        write_json(session.folder / "probe.json", told | ({"matched": matched} if matched else {}))
        shown = f"{probe_markdown(results)}\n{start_markdown(weighed)}"
        atomic_write_text(session.folder / "probe.md", shown)
        plot_probe(results, session.folder / "figures" / "probe.png")
        session.record.update(status="finished")
        print(f"\n{shown}\nFigure, numbers and run.json are in {session.folder}")
    session.leave()
