"""run.json -> README.md of the student: what it is, its teachers, what it was measured at, how to load it."""

from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_transinv.models.classifier import Classifier

_TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

`{{ architecture }}`, {{ classes }} classes, trained on `{{ dataset }}` with hf_transinv: {{ method }}.

```python
import timm{% if own %}
import hf_transinv  # registers {{ architecture }}{% endif %}

model = timm.create_model("local-dir:student", pretrained=True).eval()  # on the Hub: "hf-hub:USER/NAME"
```

{% if learned_rows %}
| teacher | r | q |{% for name in primitives %} p: {{ name }} |{% endfor %}
|---|---|---|{% for name in primitives %}---|{% endfor %}
{% for row in learned_rows %}| {{ row | join(" | ") }} |
{% endfor %}
r: how often the teacher's augmentation is chosen; q: how often it deforms an image; p: with which primitive.

{% endif %}## Results

{{ table }}

Top-1 in percent on the split the run evaluated, last epoch; {{ images_seen }} images seen, seed {{ seed }}.
"""


def student_card(
    title: str, method: str, run: dict[str, Any], row: dict[str, Any], table: str, student: Classifier
) -> str:
    """Render the card of one student.

    Args:
        title: its heading.
        method: in words.
        run: the content of run.json.
        row: this student's row of it.
        table: the Markdown table of all rows.
        student: tells its architecture and classes.
    """
    network = student.network
    is_timm = student.image_processor is None
    architecture = network.pretrained_cfg["architecture"] if is_timm else type(network).__name__
    config, results = run["config"], row["results"]
    clean = EvalResult(
        task_type="image-classification",
        dataset_type=str(config["dataset"]),
        dataset_name=str(config["dataset"]),
        metric_type="accuracy",
        metric_value=round(results["clean"]["top1"] / 100, 6),
    )
    data = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        license="apache-2.0",
        tags=["image-classification", "timm", "transformers", "hf_transinv"],
        model_name=title,
        eval_results=[clean],
    )
    card = ModelCard.from_template(
        data,
        template_str=_TEMPLATE,
        title=title,
        method=method,
        architecture=architecture,
        own=architecture.endswith("_cifar"),
        classes=student.num_classes,
        dataset=config["dataset"],
        primitives=config.get("primitives", []),
        learned_rows=_learned_rows(row["learned"], config.get("teachers", [])),
        table=table,
        images_seen=row["images_seen"],
        seed=config["seed"],
    )
    return str(card)


def _learned_rows(learned: dict[str, Any], teachers: list[str]) -> list[list[str]]:
    """A row of strings a teacher: its name, r, q and p; none when nothing of the kind was learned."""
    if "p" not in learned:
        return []
    r = [f"{value:.2f}" for value in learned["r"]] if "r" in learned else ["-"] * len(teachers)
    return [
        [f"`{teacher}`", r[k], f"{learned['q'][k]:.2f}", *(f"{value:.2f}" for value in learned["p"][k])]
        for k, teacher in enumerate(teachers)
    ]


def learned_text(learned: dict[str, Any], config: dict[str, Any]) -> str:
    """r, q and p in lines for the terminal; empty when nothing of the kind was learned."""
    names = config.get("primitives", [])
    lines = [
        f"{teacher.strip('`')}\n    r {r}  q {q}  p: "
        + "  ".join(f"{name} {value}" for name, value in zip(names, p, strict=True))
        for teacher, r, q, *p in _learned_rows(learned, config.get("teachers", []))
    ]
    return "\n".join([*lines, ""]) if lines else ""
