"""The conversations that a retraining learns: what is new, may be learned, and fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from moltlm.data import pairs as pair_data
from moltlm.data.conversations import importers
from moltlm.data.conversations.marks import is_judgement
from moltlm.data.conversations.report import ImportReport, lines
from moltlm.data.conversations.turns import REJECTED_ANSWER
from moltlm.data.errors import BadInput
from moltlm.data.rows import read_rows
from moltlm.data.types import Exchange
from moltlm.pipeline.artifact_files import intact
from moltlm.pipeline.run import Run
from moltlm.pipeline.service import set_aside
from moltlm.pipeline.service.cycles import OUTDATED, all_finished, finished
from moltlm.pipeline.service.origin import NEW
from moltlm.pipeline.service.set_aside import id_of
from moltlm.pipeline.stages import material, pairs

README = "README.md"  # `molt init` puts one beside the conversations
LEARNED = "learned before, or set aside"
REFUTED = "worse answer than another to the same prompt"


def unseen_exchanges(
    run: Run, dropped: dict[str, int], passed_over: dict[str, str], say: Callable[[str], None] | None = None
) -> list[Exchange]:
    """A sample of the exchanges that no earlier cycle was trained on and that are not set aside. Counts what the
    importer dropped and what is LEARNED, and names the files that it could not read. An empty folder holds none.

    Args:
        say: shows what was read; by default the run's console.
    """
    config, report = run.config, ImportReport()
    learned_ids = {id_of(item) for item in _finished(run)}
    learned_ids |= {row.id for row in set_aside.read(config).values() if not row.allow}
    if "pairs" in run.fixed:  # what `molt run` has learned from the same files
        learned = pairs.load_pairs(run.fixed["pairs"], "train")
        learned_ids |= {id_of(pair_data.exchange_of(pair)) for pair in learned}
    read = _read(run, report, passed_over)
    unseen = _without(read, learned_ids, dropped)
    sampled = material.sample(unseen, config.conversations.limit, config.run.seed)
    for line in lines(report.facts()):
        (say or run.console.say)(f"  {line}")
    dropped.update(report.dropped)
    passed_over.update({name: why for name, why in report.skipped.items() if Path(name).name != README})
    return sampled


def _without(exchanges: Iterator[Exchange], learned_ids: set[str], dropped: dict[str, int]) -> Iterator[Exchange]:
    for item in exchanges:
        if id_of(item) in learned_ids:
            dropped[LEARNED] = dropped.get(LEARNED, 0) + 1
        else:
            yield item


def why_nothing(left_out: Mapping[str, int]) -> str:
    """Why answers that were read are not new: the count of each reason, and what is missing where all of them are bad;
    "" if none was read."""
    counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    if not counts:
        return ""
    bad = all(reason == REJECTED_ANSWER or is_judgement(reason) for reason, count in left_out.items() if count)
    missing = " A bad answer is learned only beside a better one to the same question: chosen beside rejected."
    return f" Left out: {counts}.{missing if bad else ''}"


def _read(run: Run, report: ImportReport, passed_over: dict[str, str]) -> Iterator[Exchange]:
    """Everything in `retrain.conversations` and `retrain.sources`. A source without conversations is passed over."""
    config, voice = run.config, material.voice(pairs.load_persona(run))
    folder, sources = config.retrain.conversations, config.retrain.sources
    is_empty = folder.is_dir() and not any(file.is_file() and file.name != README for file in folder.rglob("*"))
    if not is_empty and (folder.exists() or not sources):
        yield from importers.read([folder], config.conversations, report, voice)
    for source in sources:
        try:
            yield from importers.read([source], config.conversations, report, voice)
        except BadInput as error:  # a night without sessions is none to fail
            passed_over[str(source)] = error.what


def usable(run: Run, exchanges: list[Exchange], dropped: dict[str, int]) -> list[Exchange]:
    """Those that are short enough, and not near anything that is measured. Counts the rest."""
    limit = run.config.pairs.max_prompt_tokens
    exchanges, dropped[REFUTED] = pair_data.without_refuted(exchanges, earlier=_finished(run))
    fitting = [item for item in exchanges if pair_data.prompt_tokens(item, run.base.tokenizer) <= limit]
    dropped[f"prompt over {limit} tokens"] = len(exchanges) - len(fitting)
    within, _ = material.within_length(run, fitting)
    dropped[f"over {run.config.model.max_length} tokens"] = len(fitting) - len(within)
    heldout = [pair_data.exchange_of(pair) for pair in pairs.load_pairs(pairs.pairs(run), "heldout")]
    clean, leaked, unchecked = material.without_leaks(run, pairs.load_persona(run), within, heldout)
    dropped.update({f"too near to {name}": count for name, count in Counter(name for _, name in leaked).items()})
    if unchecked:
        run.console.say(f"  not compared with {', '.join(unchecked)}")
    return clean


def _finished(run: Run) -> list[Exchange]:
    """The exchanges of earlier cycles that finished, whether the candidate was promoted or not. An interrupted cycle is
    not finished: the next call continues it."""
    learned = (folder for folder in all_finished(run.folder) if finished(folder)["outcome"] != OUTDATED)
    return [item for folder in learned for item in learned_by(folder)]


def learned_by(folder: Path) -> list[Exchange]:
    """The exchanges that a cycle learned; none where all of them are forgotten. Raises BadInput for a damaged file."""
    file = intact(folder, NEW)
    return read_rows(file, Exchange) if file.is_file() else []
