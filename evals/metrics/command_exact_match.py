"""Share of predictions whose first line is the reference command, spaces and a code fence aside."""

import datasets
import evaluate


class CommandExactMatch(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description="predictions and references: texts, the references one command each",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict:
        items = [int(_command(a) == _command(b)) for a, b in zip(predictions, references, strict=True)]
        return {"exact_match": sum(items) / len(items), "items": items}


def _command(text: str) -> str:
    lines = [line.strip().strip("`") for line in text.splitlines()]
    command_lines = [line for line in lines if line and line not in ("bash", "sh")]
    return " ".join(command_lines[0].split()) if command_lines else ""
