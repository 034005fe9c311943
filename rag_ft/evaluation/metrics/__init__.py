"""Metrics of single answers: from a case to a number from 0 to 1, or None where one does not apply. Aggregates nothing.

ANSWER_METRICS compare a text with its accepted answers and need nothing else; METRICS are what is reported of a case.
"""

from dataclasses import dataclass

from rag_ft.evaluation.metrics.abstention import Abstention, abstention
from rag_ft.evaluation.metrics.answers import (
    AnswerMetric,
    Metric,
    false_answer,
    hallucinated,
    misled,
    of_answer,
    of_output,
    over_refused,
    well_formed,
    where_korean,
)
from rag_ft.evaluation.metrics.citations import citation_precision, citation_recall, quote_verbatim, relevance_f1
from rag_ft.evaluation.metrics.cover import cover_accuracy, cover_raw
from rag_ft.evaluation.metrics.korean import exact_match_korean, f1_korean
from rag_ft.evaluation.metrics.rouge import rouge_l
from rag_ft.evaluation.metrics.squad import exact_match, f1, f1_hotpot, normalize

ANSWER_METRICS: dict[str, AnswerMetric] = {
    "accuracy": cover_accuracy,
    "exact_match": exact_match,
    "f1": f1,
    "cover_raw": cover_raw,
    "f1_hotpot": f1_hotpot,
    "rouge_l": rouge_l,
    "exact_match_korean": exact_match_korean,
    "f1_korean": f1_korean,
}
"""Functions of a text and its accepted answers; `accuracy` is the headline."""


@dataclass(frozen=True)
class MetricInfo:
    """A metric and what to say of it.

    Attributes:
        measure: the metric.
        what: its definition in a phrase, for tables.
        source: where it is defined.
    """

    measure: Metric
    what: str
    source: str


def _asked(name: str) -> Metric:
    """Return the metric that a model was asked for beforehand."""
    return lambda case: case.measured.get(name)


_SQUAD = "SQuAD 1.1 and 2.0 (arXiv 1606.05250, 1806.03822)"
_KORQUAD = "KorQuAD 1.0 (arXiv 1909.07005)"
_ALCE = "ALCE (arXiv 2305.14627)"
_OURS = "this project"

REGISTRY: dict[str, MetricInfo] = {
    "accuracy": MetricInfo(
        of_answer(cover_accuracy),
        "an accepted answer stands in the parsed answer as whole words",
        "cover accuracy with token borders (this project); the plain form is cover_raw",
    ),
    "exact_match": MetricInfo(of_answer(exact_match), "the parsed answer equals an accepted one, normalised", _SQUAD),
    "f1": MetricInfo(of_answer(f1), "harmonic mean of token precision and recall, best accepted answer", _SQUAD),
    "f1_hotpot": MetricInfo(
        of_answer(f1_hotpot),
        "f1, where yes, no and noanswer share nothing with other answers",
        "HotpotQA (arXiv 1809.09600)",
    ),
    "cover_raw": MetricInfo(
        of_answer(cover_raw),
        "a normalised accepted answer is a substring of the normalised answer",
        "Lost in the Middle (arXiv 2307.03172)",
    ),
    "cover_output": MetricInfo(
        of_output(cover_accuracy), "accuracy over the whole output, also where the answer declines", _OURS
    ),
    "rouge_l": MetricInfo(
        of_answer(rouge_l),
        "F of the longest common subsequence of tokens, no stemming, best accepted answer",
        "ROUGE-L (Lin 2004), as rougeL of the package rouge-score; answers in other letters by the tokens of accuracy",
    ),
    "exact_match_korean": MetricInfo(
        where_korean(of_answer(exact_match_korean)),
        "equal after KorQuAD's normalisation; Korean answers only",
        _KORQUAD,
    ),
    "f1_korean": MetricInfo(
        where_korean(of_answer(f1_korean)), "f1 of characters after the same; Korean answers only", _KORQUAD
    ),
    "false_answer": MetricInfo(
        false_answer, "the answer is wrong, among outputs that do not abstain", "arXiv 2409.11242"
    ),
    "hallucinated": MetricInfo(hallucinated, "answered, where the passages lack the evidence", _OURS),
    "over_refused": MetricInfo(over_refused, "declined, where the passages hold the evidence", _OURS),
    "misled": MetricInfo(misled, "the answer is what a counterfactual context planted", "after RGB (arXiv 2309.01431)"),
    "well_formed": MetricInfo(well_formed, "the output has the parts its style asks for, in order", _OURS),
    "citation_precision": MetricInfo(
        citation_precision, "share of cited passages that are gold or an alternative to it", _OURS
    ),
    "citation_recall": MetricInfo(citation_recall, "share of gold passages shown that are cited", _OURS),
    "quote_verbatim": MetricInfo(
        quote_verbatim, "share of quotes that stand where they cite word for word, no word cut", _OURS
    ),
    "relevance_f1": MetricInfo(
        relevance_f1, "f1 of passages judged relevant against gold", "after Self-Reasoning (arXiv 2407.19813)"
    ),
    "alce_recall": MetricInfo(_asked("alce_recall"), "share of sentences that what they cite entails", _ALCE),
    "alce_precision": MetricInfo(_asked("alce_precision"), "share of citations that do not stand idle", _ALCE),
    "judged": MetricInfo(_asked("judged"), "a language model takes the answer for an accepted one", _OURS),
}
"""Every metric with its definition. The last three need a model: with_alce and with_verdicts put them into a case."""

METRICS: dict[str, Metric] = {name: info.measure for name, info in REGISTRY.items()}
"""What is reported for every cell; `accuracy` is the headline."""

__all__ = [
    "ANSWER_METRICS",
    "METRICS",
    "REGISTRY",
    "Abstention",
    "AnswerMetric",
    "Metric",
    "MetricInfo",
    "abstention",
    "cover_accuracy",
    "cover_raw",
    "exact_match",
    "exact_match_korean",
    "f1",
    "f1_hotpot",
    "f1_korean",
    "normalize",
    "rouge_l",
]
