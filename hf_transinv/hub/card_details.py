"""What timm's cards have under "Model Details": the kind and size of the model, its papers, its data."""

import re

from hf_transinv.formats.markdown import escape, number, plain
from hf_transinv.hub.card_about import dataset_link, start, teacher_link
from hf_transinv.hub.recorded_run import Run

REPOSITORY = "https://github.com/hf-transinv/hf_transinv"
_TITLE = re.compile(r"^\s*title\s*=\s*\{(.*)\},?\s*$", re.M)
_ARXIV = re.compile(r"\barXiv:(\d{4}\.\d{4,5})\b")


def listed(run: Run) -> str:
    """A list; without what is not known."""
    student = run.student
    stats = {
        "Params (M)": None if student.num_parameters is None else f"{student.num_parameters / 1e6:.2f}",
        "GMACs": None if student.gmacs is None else number(student.gmacs),
        "Image size": " x ".join(map(str, student.input_size)) or None,
        "Classes": None if student.num_classes is None else str(student.num_classes),
    }
    known = [f"  - {name}: {value}" for name, value in stats.items() if value is not None]
    papers = [f"  - {paper}" for citation in run.citations if (paper := _paper(citation))]
    lines = ["- **Model Type:** Image classification", *(["- **Model Stats:**", *known] if known else [])]
    lines += ["- **Papers:**", *papers] if papers else []
    lines.append(f"- **Dataset:** {dataset_link(run)}")
    if begun := start(run):
        lines.append(f"- **Started from:** {begun}")
    if run.teachers:
        lines.append(f"- **Teachers:** {', '.join(map(teacher_link, run.teachers))}")
    lines.append(f"- **Trained with:** [hf\\_transinv]({REPOSITORY})")
    return "\n".join(lines)


def install(run: Run) -> str:
    """Whether hf_transinv has to be installed to load the model, and how."""
    command = f"`pip install git+{REPOSITORY}`"
    if run.student.library == "timm" and run.student.is_own_architecture:
        which = "Its architecture is" if run.student.architecture else "Architectures of this project are"
        return (
            f"{which} registered with timm by `hf_transinv`, which has to be installed ({command}) and imported first."
        )
    libraries = "timm or transformers" if run.student.library == "timm" else "transformers"
    return f"There is no need to install `hf_transinv`: plain {libraries} loads it."


def _paper(citation: str) -> str:
    """The title of a BibTeX entry, linked where it names arXiv; empty where it has none."""
    found, preprint = _TITLE.search(citation), _ARXIV.search(citation)
    if found is None:
        return ""
    title = escape(plain(re.sub(r"[{}]", "", found[1])))
    return f"[{title}](https://arxiv.org/abs/{preprint[1]})" if preprint else title
