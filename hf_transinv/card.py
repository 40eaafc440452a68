"""run.json -> README.md of the student: what it is, its teachers, what it was measured at, how to load it."""

from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_transinv.models.classifier import Classifier

_TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

`{{ architecture }}`, {{ classes }} classes, trained on `{{ dataset }}` with [hf_transinv]: {{ method }}.

```python
import timm{% if own %}
import hf_transinv  # registers {{ architecture }}{% endif %}

model = timm.create_model("local-dir:student", pretrained=True).eval()  # on the Hub: "hf-hub:USER/NAME"
```

{% if learned.get("q") -%}
| teacher | r | q | {% for name in primitives %}p: {{ name }} | {% endfor %}

|---|---|---|{% for name in primitives %}---|{% endfor %}

{% for teacher in teachers -%}
{% set k = loop.index0 -%}
| `{{ teacher }}` | {{ "%.2f"|format(learned.r[k]) if learned.get("r") else "-" }} | {{ "%.2f"|format(learned.q[k]) }} | {% for x in learned.p[k] %}{{ "%.2f"|format(x) }} | {% endfor %}

{% endfor %}
r: how often the teacher's augmentation is chosen; q: how often it deforms an image; p: with which primitive.

{% endif -%}
## Results

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
        teachers=config.get("teachers", []),
        primitives=config.get("primitives", []),
        learned=row["learned"],
        table=table,
        images_seen=row["images_seen"],
        seed=config["seed"],
    )
    return str(card)


def learned_text(learned: dict[str, Any], config: dict[str, Any]) -> str:
    """r, q and p in lines for the terminal; empty when nothing of the kind was learned."""
    lines = []
    for k, teacher in enumerate(config.get("teachers", [])):
        if "p" not in learned:
            break
        r = f"r {learned['r'][k]:.3f}  " if "r" in learned else ""
        p = "  ".join(f"{name} {value:.2f}" for name, value in zip(config["primitives"], learned["p"][k], strict=True))
        lines.append(f"{teacher}\n    {r}q {learned['q'][k]:.2f}  p: {p}\n")
    return "".join(lines)
