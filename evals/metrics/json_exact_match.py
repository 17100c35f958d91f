"""Share of predictions that are the reference's JSON value and nothing else."""

import json

import datasets
import evaluate


class JsonExactMatch(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description="predictions and references: texts, the references valid JSON",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict:
        items = [int(_value(a) == _value(b)) for a, b in zip(predictions, references, strict=True)]
        return {"exact_match": sum(items) / len(items), "items": items}


def _value(text: str) -> object:
    """The parsed value; a text that is not JSON equals only itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return ("not JSON", text)
