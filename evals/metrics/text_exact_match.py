"""Share of predictions that are the reference but for case and spaces."""

import datasets
import evaluate


class TextExactMatch(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description="predictions and references: texts",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict:
        items = [int(_plain(a) == _plain(b)) for a, b in zip(predictions, references, strict=True)]
        return {"exact_match": sum(items) / len(items), "items": items}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
