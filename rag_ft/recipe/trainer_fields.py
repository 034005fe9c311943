"""Which fields `training.trainer` may set, read from TRL's source without importing it (that takes seconds)."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_SOURCES = (
    ("transformers", "training_args.py", "TrainingArguments"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("trl", "trainer/sft_config.py", "SFTConfig"),
)

OWNED = {
    "output_dir": "runs_dir and name",
    "run_name": "name",
    "num_train_epochs": "training.epochs",
    "max_steps": "training.max_steps",
    "learning_rate": "training.learning_rate",
    "per_device_train_batch_size": "training.batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation",
    "max_length": "training.max_length",
    "packing": "training.batching",
    "padding_free": "training.batching",
    "train_sampling_strategy": "training.group_by_length",
    "gradient_checkpointing": "training.gradient_checkpointing",
    "use_liger_kernel": "training.liger",
    "save_steps": "training.save_steps",
    "report_to": "training.report_to",
    "eval_steps": "training.validation.every",
    "metric_for_best_model": "training.validation.keep_best",
    "load_best_model_at_end": "training.validation.keep_best",
    "seed": "seed",
    "data_seed": "seed",
}
"""Fields that settings of the recipe write, and the key to use instead."""

FIXED = {
    "dataset_text_field": "rows are rendered and tokenised by rag-ft",
    "dataset_kwargs": "rows are rendered and tokenised by rag-ft",
    "dataset_num_proc": "rows are rendered and tokenised by rag-ft",
    "chat_template_path": "the prompt is part of the contract that travels with the adapter",
    "eos_token": "the end of a turn comes from the chat template",
    "completion_only_loss": "the loss covers the spans of the target, from token ids",
    "assistant_only_loss": "the loss covers the spans of the target, from token ids",
    "remove_unused_columns": "the trainer needs every column of the tokenised rows",
    "truncation_mode": "rows are fitted to training.max_length by dropping negatives, never by cutting",
    "packing_strategy": "training.batching=packed puts each row where it leaves the least room",
    "eval_packing": "validation rows are joined or padded as training.batching says, and not packed",
    "dataloader_drop_last": "every row is trained",
    "auto_find_batch_size": "the rows of a step follow from training.batch_size and training.gradient_accumulation",
    "ignore_data_skip": "a resumed run goes on behind the rows it has had",
    "model_init_kwargs": "weights are loaded by rag-ft: use the keys below model",
    "resume_from_checkpoint": "where to go on is what training.resume says",
    "eval_strategy": "the validation questions are watched every training.validation.every steps",
    "greater_is_better": "training.validation.keep_best says what is better",
    "restore_callback_states_from_checkpoint": "a run that goes on restores everything",
    "loss_type": "the loss is the mean over the tokens of the target",
    "label_smoothing_factor": "the loss is the mean over the tokens of the target",
    "save_strategy": "checkpoints are written every training.save_steps, so that a stopped run can go on",
    "hub_token": "secrets do not belong in a recipe: run hf auth login",
    "push_to_hub": "the adapter leaves the machine only by a verb of its own",
    "trust_remote_code": "it is set with model.trust_remote_code",
}
"""Fields no recipe may set, and why."""


@cache
def trainer_fields() -> frozenset[str]:
    """Return the field names of the installed `trl.SFTConfig`; empty where TRL or transformers is not installed."""
    names: set[str] = set()
    for package, file, class_name in _SOURCES:
        path = _source(package, file)
        if path is None:
            return frozenset()
        names |= _annotated_names(path, class_name)
    return frozenset(names)


def _source(package: str, file: str) -> Path | None:
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(folders[0], file) if folders else None
    return path if path and path.is_file() else None


def _annotated_names(path: Path, class_name: str) -> set[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            targets = [item.target for item in node.body if isinstance(item, ast.AnnAssign)]
            return {target.id for target in targets if isinstance(target, ast.Name) and target.id[0] != "_"}
    return set()
