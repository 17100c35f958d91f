"""Share of predictions that are the reference's shell command but for its arguments: the same programs, options and
pipes in the same order, with files, words and numbers for one another (as NL2Bash's templates; Lin et al. 2018)."""

import re

import datasets
import evaluate

OPERATORS = re.compile(r"(\|\||&&|[|;&<>()`])")
ARGUMENT = "ARG"


class CommandTemplateMatch(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description="predictions and references: texts; of a prediction the first line counts",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict:
        items = [int(template(a) == template(b)) for a, b in zip(predictions, references, strict=True)]
        return {"template_match": sum(items) / len(items), "items": items}


def template(text: str) -> list[str]:
    """The command with `ARG` for every word that is no program, option or operator."""
    line = next((row for row in (part.strip().strip("`") for part in text.splitlines()) if row), "")
    line = re.sub(r"'[^']*'|\"[^\"]*\"", f" {ARGUMENT} ", line)
    words, first = [], True
    for word in OPERATORS.sub(r" \1 ", line).split():
        if OPERATORS.fullmatch(word):
            words.append(word)
            first = word not in ("<", ">")
        elif first or re.match(r"-+[A-Za-z]", word):
            words.append(word)
            first = False
        else:
            words.append(ARGUMENT)
    return words
