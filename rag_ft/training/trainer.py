"""The one file that knows TRL: our settings as an SFTConfig, and an SFTTrainer that takes shared contexts."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader
from trl import SFTConfig, SFTTrainer

from data_builders.errors import RagFtError
from rag_ft.models.segment_tree import allows_joined_rows, allows_trees
from rag_ft.training.batches import BatchPlan, EpochBatches
from rag_ft.training.collate import Collator, model_inputs
from rag_ft.training.probe import honours_masks
from rag_ft.training.rows import IGNORED
from rag_ft.training.settings import TrainingSettings
from rag_ft.training.stages import Stage
from rag_ft.training.validation import unchanged_randomness


@dataclass(frozen=True)
class TrainerFacts:
    """What the trainer's configuration takes from outside the `training` section.

    `dtype` is the type of the base weights; `watch` is whether there are validation rows.
    """

    name: str
    seed: int
    dtype: str
    watch: bool
    show_bar: bool


def sft_config(settings: TrainingSettings, stage: Stage, facts: TrainerFacts) -> SFTConfig:
    """Return the SFTConfig of a stage. Fields under `training.trainer` win over the defaults set here.

    Adapters are kept in float32 and multiplied in the type of the base weights.

    Raises:
        RagFtError: TRL does not take a value of `training.trainer`, or Liger cannot run here.
    """
    import torch

    if settings.liger:
        require_liger()
    cuda = torch.cuda.is_available()
    fields: dict[str, Any] = {
        "output_dir": str(stage.checkpoints),
        "num_train_epochs": stage.epochs,
        "max_steps": stage.max_steps or -1,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,  # a share of all steps
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "gradient_checkpointing": recomputes(settings),
        "use_liger_kernel": settings.liger,
        "use_cpu": not cuda,
        "ddp_find_unused_parameters": False,  # every step uses all that is trained; looking costs time
        "bf16": facts.dtype == "bfloat16",
        "fp16": facts.dtype == "float16",
        "dataloader_pin_memory": cuda,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # would log 0 for a loss that is not a number, and the guard would sleep
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "run_name": facts.name,
        "eval_strategy": "steps" if facts.watch else "no",
        "eval_steps": settings.save_steps,
        "prediction_loss_only": True,
        "report_to": list(settings.report_to) or "none",
        "seed": facts.seed,
        "data_seed": facts.seed,
        "disable_tqdm": not facts.show_bar,
        **settings.trainer,
    }
    ours = {"max_length": None, "remove_unused_columns": False, "dataset_kwargs": {"skip_prepare_dataset": True}}
    try:
        return SFTConfig(**fields | ours)
    except (TypeError, ValueError) as error:
        raise RagFtError(f"training.trainer holds a value TRL does not take: {str(error).splitlines()[0]}") from error


def recomputes(settings: TrainingSettings) -> bool:
    """Tell whether activations are computed again; by default on CUDA, as on a CPU memory is not the limit, time is."""
    import torch

    told = settings.gradient_checkpointing
    return torch.cuda.is_available() if told is None else told


class SharedContextTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer for token rows: our batches, our masks, our loss.

    Inherits because Trainer offers no other seam for what makes batches and what stands between a batch and the loss.
    """

    validate: Callable[[Any], dict[str, float]] | None = None
    """Measures the model beside the loss of the validation rows."""

    def __init__(self, settings: TrainingSettings, *, ordered: bool = False, **told: Any) -> None:
        """Take the `training` section, whether rows keep their order (a curriculum), and what SFTTrainer takes."""
        joined = settings.batching != "padded"
        if joined:
            refuse_mixed_rows(told["model"], settings, told["train_dataset"]["lengths"])
        super().__init__(data_collator=Collator(flat=joined), **told)
        # Whatever the model's own forward takes (some say no): our loss is divided by the tokens of the whole step.
        self.model_accepts_loss_kwargs = True
        self.watched: list[tuple[Any, Any, Any]] = []  # rows, summed loss and tokens of a validation batch
        self.recent_rows: list[tuple[int, Any, Any]] = []  # step, numbers and loss of a forward pass, for LossGuard
        self.plan = BatchPlan(
            batch_size=self.args.per_device_train_batch_size,
            processes=self.args.world_size,
            accumulation=self.args.gradient_accumulation_steps,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            grouped=settings.group_by_length,
            ordered=ordered,
            capacity=settings.max_length if settings.batching == "packed" else None,
        )

    def get_train_dataloader(self) -> Any:
        """Return the batches of this process, epoch by epoch; a resumed run goes on behind those it has had."""
        # Where a checkpoint was written at the end of an epoch, the state is at the beginning of the next.
        return self._loader(self.train_dataset, self.plan, epoch=lambda: int(self.state.epoch or 0))

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return the batches of validation rows, in their order; only where processes outnumber rows does one repeat.

        The trainer's own would fill the last batches up with rows of the first, which could not be told apart again.
        """
        plan = BatchPlan(self.args.per_device_eval_batch_size, processes=self.args.world_size, ordered=True)
        return self._loader(self.eval_dataset if eval_dataset is None else eval_dataset, plan, epoch=lambda: 0)

    def _loader(self, rows: Any, plan: BatchPlan, epoch: Callable[[], int]) -> Any:
        lengths = [sum(row) for row in rows["lengths"]]
        loader = DataLoader(
            rows,
            batch_sampler=EpochBatches(lengths, plan, epoch),
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
        return self.accelerator.prepare(loader)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Make the attention mask on the device, then compute the loss. Nothing here waits for a GPU."""
        numbers = inputs.pop("row_numbers", None)
        metrics = self._metrics["train" if self.model.training else "eval"]
        tokens = inputs["attention_mask"].sum()
        attention = getattr(self.model.config, "_attn_implementation", None)
        inputs = model_inputs(inputs, attention, model_dtype(self.model))
        loss, outputs, accuracy = loss_at_labels(model, inputs, num_items_in_batch)
        if not self.model.training:
            own = (inputs["labels"][:, 1:] != IGNORED).sum()
            summed = loss.detach() * (own if num_items_in_batch is None else num_items_in_batch)
            self.watched.append((numbers, summed, own))
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # the gradient is averaged over processes, the count not
        metrics["mean_token_accuracy"].append(accuracy)
        if self.model.training:
            metrics["num_tokens"].append(tokens)
            self.recent_rows.append((self.state.global_step + 1, numbers, loss.detach()))
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; what was measured since the last time becomes numbers only here, where a GPU is waited for anyway."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        if metrics["num_tokens"]:
            new = self.accelerator.gather(sum(metrics["num_tokens"])).sum()
            metrics["num_tokens"] = [self._last_logged("num_tokens") + int(new)]
        else:
            del metrics["num_tokens"]
        if metrics.get("mean_token_accuracy"):
            own = sum(metrics["mean_token_accuracy"]) / len(metrics["mean_token_accuracy"])
            metrics["mean_token_accuracy"] = [self.accelerator.gather(own[None]).mean()]
        for values in metrics.values():
            values[:] = map(float, values)
        super().log(logs if "train_loss" not in logs else self._of_all_sessions(logs), start_time)

    def _last_logged(self, name: str) -> Any:
        """Return the newest logged value of that name, 0 before the first; a resumed run knows those before it."""
        return next((log[name] for log in reversed(self.state.log_history) if name in log), 0)

    def _of_all_sessions(self, logs: dict[str, float]) -> dict[str, float]:
        """Return the last log with the mean loss of all steps.

        The trainer divides what this session has added up, loss and time, by the steps of all sessions.
        """
        kept = {name: value for name, value in logs.items() if not name.endswith("_per_second")}
        losses = [(log["step"], log["loss"]) for log in self.state.log_history if "loss" in log]
        if losses:
            before = [0, *(step for step, _ in losses)]
            summed = sum(loss * (step - last) for last, (step, loss) in zip(before, losses, strict=False))
            kept["train_loss"] = summed / losses[-1][0]
        return kept

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the loss of the validation rows, then what `validate` measures, under the same prefix."""
        self.watched.clear()
        with unchanged_randomness():
            output = super().evaluation_loop(*args, **kwargs)
            output.metrics["eval_loss"] = self._watched_loss()
            if self.validate is not None:
                output.metrics.update({f"eval_{name}": value for name, value in self.validate(self.model).items()})
        return output

    def _watched_loss(self) -> float:
        """Return the mean over all tokens with loss, as in training; the trainer's own is a mean over batches.

        A batch that was repeated so that every process has one counts once.
        """
        from accelerate.utils import gather_object

        own = [
            (tuple(rows.flatten().tolist()) if rows is not None else (number,), float(summed), int(tokens))
            for number, (rows, summed, tokens) in enumerate(self.watched)
        ]
        batches = {rows: (summed, tokens) for rows, summed, tokens in gather_object(own)}
        return sum(summed for summed, _ in batches.values()) / sum(tokens for _, tokens in batches.values())

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: the card is made of recipe, manifests and scores at the end (rag_ft/export/card.py)."""


def refuse_mixed_rows(model: Any, settings: TrainingSettings, lengths: Sequence[Sequence[int]]) -> None:
    """Refuse joined rows that the model's attention would mix up.

    Args:
        model: as it is trained.
        settings: the `training` section, whose batching joins rows.
        lengths: of each row, as in TokenRow.

    Raises:
        RagFtError: a sliding window, recurrent layers, several questions in a row under flash attention, or layers that
            ignore a mask they are given.
    """
    longest = settings.batch_size * (settings.max_length if settings.batching == "packed" else max(map(sum, lengths)))
    shared = max(map(len, lengths)) > 2
    flash = "flash" in (getattr(model.config, "_attn_implementation", None) or "")
    apart = (allows_trees if shared else allows_joined_rows)(model.config, longest)
    if not apart or not (flash or honours_masks(model)):
        raise RagFtError(
            f"training.batching={settings.batching} lays up to {longest} tokens end to end, and this model's attention "
            "(a sliding window shorter than that, recurrent layers, flash_attention_2 where a row holds several "
            "questions, or a backend that ignores masks) cannot keep the rows apart. Set training.batching=padded."
        )


def model_dtype(model: Any) -> Any:
    """Return the dtype of the base weights; adapters may be kept in another."""
    return model.get_input_embeddings().weight.dtype


CHUNK = 1 << 27
"""Logits taken to float32 at a time: half a gigabyte."""


def loss_at_labels(model: Any, inputs: dict[str, Any], num_items_in_batch: Any) -> tuple[Any, Any, Any]:
    """Return mean token loss, model outputs and token accuracy, with logits only where a label follows.

    TRL 1.15 computes its loss in a Triton kernel, which has no CPU form. Logits of every position would cost a
    fifth of the step, since only a few tokens of a long row carry loss. Logits stay in the model's type; the softmax
    is computed in float32, chunk by chunk where there are many, and again in the backward pass.

    Args:
        model: called with everything but the labels, wrapped or not.
        inputs: labels [sequences, tokens] and what the model takes; logits_to_keep where it is known already.
        num_items_in_batch: the tokens with loss in the whole step; None takes those of this batch.
    """
    import torch

    inputs = dict(inputs)
    labels = inputs.pop("labels")[:, 1:]
    keep = inputs.pop("logits_to_keep", None)
    if keep is None:
        keep = (labels != IGNORED).any(dim=0).nonzero().squeeze(1)
    outputs = model(**inputs, logits_to_keep=keep, use_cache=False)
    kept, logits = labels[:, keep].flatten(), outputs.logits.flatten(0, 1)
    count = (kept != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    total = _summed_loss(logits, kept)
    with torch.no_grad():
        right = (logits.argmax(dim=-1) == kept).sum() / (kept != IGNORED).sum().clamp(min=1)
    return total / count, outputs, right


def _summed_loss(logits: Any, labels: Any) -> Any:
    """Return the summed cross entropy in float32 of logits [labels, vocabulary]."""
    import torch
    from torch.utils.checkpoint import checkpoint

    def chunk_loss(some: Any, theirs: Any) -> Any:
        return torch.nn.functional.cross_entropy(some.float(), theirs, ignore_index=IGNORED, reduction="sum")

    size = max(1, CHUNK // logits.shape[1])
    if len(labels) <= size:
        return chunk_loss(logits, labels)
    parts = zip(logits.split(size), labels.split(size), strict=True)
    return sum(checkpoint(chunk_loss, some, theirs, use_reentrant=False) for some, theirs in parts)


def require_liger() -> None:
    """Check that Liger's kernels can run.

    Raises:
        RagFtError: there is no GPU, or the package is missing.
    """
    import torch

    if not torch.cuda.is_available():
        raise RagFtError("training.liger=true needs a CUDA GPU, and this machine has none: set training.liger=false.")
    if importlib.util.find_spec("liger_kernel") is None:
        raise RagFtError(
            "training.liger=true needs the package liger-kernel: pip install 'rag-ft[liger]', or set "
            "training.liger=false."
        )
