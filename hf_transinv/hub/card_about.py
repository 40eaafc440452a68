"""The sentences of a card: what the student is, how it was trained, on which machine, with which limits.

Text that comes from outside (names of models, data sets, labels) passes through `escape` or `code`. Where nothing was
recorded, a function returns an empty text, and the card says nothing.
"""

from hf_transinv.augment.policies import POLICIES
from hf_transinv.config import MixingConfig
from hf_transinv.formats.markdown import code, duration, escape, hub_link, plain, steps, words
from hf_transinv.hub.recorded_row import METRICS, Row
from hf_transinv.hub.recorded_run import Hardware, Run, Student, Teacher
from hf_transinv.objectives.objective import Objective
from hf_transinv.objectives.registry import LEARNED, METHODS

_SHOWN_LABELS = 12


def dataset_link(run: Run) -> str:
    """The data set, with a link where it is on the Hub."""
    if run.dataset.kind == "hub":
        return hub_link(run.dataset.name, "datasets/")
    return code(run.dataset.name) + (", the embedded UCI digits" if run.dataset.kind == "embedded" else "")


def teacher_link(teacher: Teacher) -> str:
    """A teacher, with a link where it is on the Hub."""
    if teacher.hub_id:
        return hub_link(teacher.hub_id)
    return "the student's own average (EMA)" if teacher.name == "ema" else code(teacher.name)


def start(run: Run) -> str:
    """What the student's weights started from, where that was a teacher or a repository."""
    if run.student.base_model:
        return hub_link(run.student.base_model)
    return f"the teacher {teacher_link(run.start_teacher)}" if run.start_teacher else ""


def label_list(student: Student) -> str:
    """The classes' names, the first few when there are many."""
    names, num_classes = student.label_names, student.num_classes
    if not names or not num_classes:
        return ""
    shown = names if len(names) <= _SHOWN_LABELS else names[: _SHOWN_LABELS // 2]
    rest = num_classes - len(shown)
    return ", ".join(map(escape, shown)) + (f" and {rest} more" if rest else "")


def method(run: Run) -> str:
    """What the student was trained to do, and on which images."""
    known: dict[str, type[Objective]] = {**METHODS, **LEARNED}
    sentences = [known[name].summary for name in run.methods if name in known]
    if named := [phrase for name in run.policies if name in POLICIES and (phrase := POLICIES[name].phrase)]:
        sentences.append(f"Its training images were augmented by {words(named)}.")
    if run.trained_on:
        sentences.append(f"It was trained to be robust to {words(_corruptions(run.trained_on))}.")
    if run.config.linear_probe_share:
        share = f"{100 * run.config.linear_probe_share:.4g} %"
        sentences.append(f"In the first {share} of the steps its classifier head alone was trained (LP-FT).")
    if run.config.interpolate is not None and run.student.ema_decay is None:
        sentences.append(
            f"The weights of its backbone are {100 * (1 - run.config.interpolate):.4g} % those it started from and "
            f"{100 * run.config.interpolate:.4g} % those it was trained to (after WiSE-FT)."
        )
    if run.student.ema_decay is not None:
        sentences.append(
            "Its weights are the exponential moving average of those that were trained (decay "
            f"{run.student.ema_decay:g})."
        )
    return " ".join(sentences)


def regularisers(mixing: MixingConfig) -> str:
    """How its images were mixed and erased, and its classes weighted."""
    sentences = []
    if mixing.mixes:
        alphas = {"MixUp": mixing.mixup, "CutMix": mixing.cutmix}
        named = [f"{name} (alpha {alpha:.4g})" for name, alpha in alphas.items() if alpha]
        sentences.append(f"Its training images were mixed in pairs by {words(named)}.")
    if mixing.random_erasing:
        sentences.append(f"A rectangle was erased from {100 * mixing.random_erasing:.4g} % of its training images.")
    if mixing.class_weights:
        sentences.append("Its cross-entropy was weighted by the inverse frequency of the classes.")
    if mixing.sampler:
        sentences.append("It was shown every class equally often.")
    return " ".join(sentences)


def training(run: Run) -> str:
    """How long it was trained, on how many images, with which settings, on which machine."""
    row, config = run.main, run.config
    images = f" of {config.batch_size} images" if config.batch_size is not None else ""
    whole = [f"{row.steps:,} steps{images}"] if row.steps is not None else []
    if row.images_seen is not None:
        of = f", from {run.dataset.train_rows:,} training images" if run.dataset.train_rows else ""
        whole = [f"{' '.join(whole)} ({row.images_seen:,} in all{of})"]
    if config.optimizer is not None and config.learning_rate is not None:
        whole.append(f"{escape(config.optimizer)} with a learning rate of {config.learning_rate}")
    if config.seed is not None:
        whole.append(f"seed {config.seed}")
    sentences = [f"{', '.join(whole)}."] if whole else []
    if config.corruption and config.clean_share is not None:
        names, severities = words(_corruptions(config.corruption)), steps(config.severities)
        share = f"{100 * (1 - config.clean_share):.0f} %"
        sentences.append(f"{share} of the images were corrupted: {names}, severity {severities}.")
    if config.label_noise:
        share = f"{100 * config.label_noise:.4g} %"
        sentences.append(f"{share} of the training labels were replaced by labels drawn uniformly from all classes.")
    sentences += [
        f"The run was extended at step {one.at_step:,} to {one.to_steps:,} steps; from there on its learning rate was "
        "that of a run of this length."
        for one in run.extensions
    ]
    sentences += _chosen(row)
    if row.train_seconds:
        machine = hardware(run.hardware)
        sentences.append(f"It took {duration(row.train_seconds)}{f' on {machine}' if machine else ''}.")
    return " ".join(sentences)


def _chosen(row: Row) -> list[str]:
    """Which student the validation part chose, and whether it ended the training."""
    found = row.validation
    if found is None or found.metric is None or found.step is None or found.value is None:
        return []
    metric, images = METRICS.get(found.metric, found.metric), f"the split {code(found.split)}"
    value = f"{found.value:.4g}" if found.metric == "loss" else f"{found.value:.1f} %"
    which = "This is the student" if found.is_loaded else "This is the last student; the best was that"
    sentences = [f"{which} of step {found.step:,}, the best by {escape(metric)} on {images} ({value})."]
    if found.stopped_early:
        sentences.append(f"The training ended early: {found.patience} measurements in a row were no better.")
    return sentences


def hardware(found: Hardware) -> str:
    """The machine in words."""
    if found.accelerator and found.device != "cpu":
        count = found.processes if found.processes is not None else found.accelerators or 1
        parts = [f"{count} × {found.accelerator}"]
    else:
        cores = [f"{found.cpu_cores} CPU cores"] if found.cpu_cores is not None else []
        parts = [*cores, *([found.machine] if found.machine is not None else [])]
        if found.processes is not None and found.processes > 1:
            parts.append(f"{found.processes} processes")
    if found.mixed_precision != "no":
        parts.append(found.mixed_precision)
    return escape(", ".join(parts))


def command(run: Run) -> str:
    """The command line with what its launcher was given: the precision, and for `transinv` the processes."""
    line, processes, precision = plain(run.command), run.hardware.processes, run.hardware.mixed_precision
    flag = f" --mixed_precision {precision}" if precision != "no" else ""
    if line.startswith("transinv "):
        program, name, *flags = line.split(" ", 2)
        several = f" --num_processes {processes}" if processes is not None and processes > 1 else ""
        return " ".join([program, name + several + flag, *flags])
    if processes != 1 or not line.startswith("recipes/"):
        return line
    return f"accelerate launch{flag} {line}" if flag else f"python {line}"


def limits(run: Run) -> list[str]:
    """What the figures do not say, and what went wrong: one sentence each."""
    row, results = run.main, run.main.results
    found = ["One run with one seed: nothing here says how much another would differ."]
    if not results.corruptions and not results.augmented:
        found.append("Measured on clean images only.")
    if run.trained_on:
        them = "it" if len(run.trained_on) == 1 else "them"
        found.append(
            f"Trained on {words(_corruptions(run.trained_on))}: its robustness to {them} says nothing about "
            "corruptions that it has not seen."
        )
    chosen = row.validation
    if chosen is not None and chosen.is_evaluation and (chosen.is_loaded or chosen.stopped_early):
        found.append("The images that it is measured on also chose it: its figures are too high.")
    if chosen is not None and chosen.metric == "corrupted":
        found.append(
            f"It was chosen by its accuracy under {words(_corruptions(chosen.corruptions))}: its figures there say "
            "less about corruptions that it has not seen."
        )
    for teacher in run.teachers:
        if teacher.trained_on:
            found.append(f"{teacher_link(teacher)} was trained on {words(_corruptions(teacher.trained_on))}.")
    if row.images_skipped:
        found.append(f"{row.images_skipped} training images could not be decoded and were left out.")
    found += [f"Warning during training: {escape(warning)}" for warning in row.warnings]
    return found


def _corruptions(names: tuple[str, ...]) -> list[str]:
    return [escape(name.replace("_", " ")) for name in names]
