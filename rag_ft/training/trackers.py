"""Trackers: wandb, trackio, TensorBoard. Every one gets the recipe, what the data are, and one run over all stages.

The trainer's own callbacks are not used: they begin a new run after a stop, count each stage's steps from 1, and know
nothing of the data. Nothing here runs unless `training.report_to` names it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from data_builders.errors import RagFtError
from data_builders.files import write_json
from rag_ft.runs import read_json

if TYPE_CHECKING:
    from rag_ft.training.run import Job
    from rag_ft.training.stages import Stage

_SECRET = re.compile(r"(token|secret|password|api_?key)$", re.IGNORECASE)
_RESTART = "rag-ft train RECIPE --restart"


@dataclass(frozen=True)
class About:
    """What a tracker is told of a run.

    Attributes:
        name: of the recipe.
        run: one id for the training's whole life, whatever stops it.
        project: what runs are filed under.
        folder: the run's `training/`.
        facts: recipe, data and stages, as JSON.
        step: steps done before this session, those of earlier stages included.
        last: no stage comes after.
        extras: fields of SFTConfig that trackers read.
    """

    name: str
    run: str
    project: str
    folder: Path
    facts: dict[str, Any]
    step: int
    last: bool
    extras: Any


@dataclass(frozen=True)
class Opened:
    """A tracker that takes values: `log(step, values)`, then `close()`."""

    log: Callable[[int, dict[str, float]], None]
    close: Callable[[], None]


def _open_wandb(about: About) -> Opened:
    import wandb

    run = wandb.run  # of an earlier stage, or made by who called us
    if run is None:
        run = wandb.init(
            # WANDB_PROJECT wins where it is set, as users of wandb expect
            project=os.environ.get("WANDB_PROJECT", about.project),
            name=about.name,
            id=about.run,
            resume="allow",
            config=about.facts,
        )
        run.define_metric("train/global_step")
        run.define_metric("*", step_metric="train/global_step", step_sync=True)
        artifact = wandb.Artifact(f"{about.name}-{about.run}", type="training-inputs")
        with artifact.new_file("facts.json", encoding="utf-8") as stream:
            json.dump(about.facts, stream, indent=2, ensure_ascii=False)
        run.log_artifact(artifact)
    return Opened(
        lambda step, values: run.log({**values, "train/global_step": step}),
        run.finish if about.last else _nothing,
    )


def _open_trackio(about: About) -> Opened:
    import trackio

    run = trackio.init(
        project=about.project,
        name=f"{about.name}-{about.run}",
        resume="allow",
        config=about.facts,
        space_id=about.extras.trackio_space_id,
        bucket_id=about.extras.trackio_bucket_id,
        private=about.extras.hub_private_repo,
        auto_log_cpu=False,
    )
    return Opened(lambda step, values: run.log({**values, "train/global_step": step}, step=step), trackio.finish)


def _open_tensorboard(about: About) -> Opened:
    from torch.utils.tensorboard import SummaryWriter

    # Steps after the checkpoint are trained again: what was written of them must not stand there twice.
    writer = SummaryWriter(str(about.folder / "tensorboard"), purge_step=about.step + 1)
    for name, fact in about.facts.items():
        writer.add_text(name, f"```\n{json.dumps(fact, indent=2, ensure_ascii=False)}\n```", about.step)

    def log(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return Opened(log, writer.close)


_OPENERS: dict[str, Callable[[About], Opened]] = {
    "wandb": _open_wandb,
    "trackio": _open_trackio,
    "tensorboard": _open_tensorboard,
}
_COUNTED = ("fingerprint", "counts", "dropped")  # not the excerpts: the user's texts stay here
_EXTRA = {"wandb": "tracking", "tensorboard": "tracking", "trackio": "trackio"}


def check_trackers(names: tuple[str, ...]) -> None:
    """Make sure that the trackers can be used, before anything is loaded.

    Raises:
        RagFtError: one is not installed, or wandb has no account to log to.
    """
    for name in names:
        if find_spec(name) is None:
            raise RagFtError(
                f"training.report_to names {name}, which is not installed. Install it with "
                f'`pip install "rag-ft[{_EXTRA[name]}]"`, or set training.report_to=[].'
            )
    if "wandb" in names and not _wandb_knows_where():
        raise RagFtError(
            "training.report_to names wandb, which has no account to log to. Log in with `wandb login`, keep the "
            "numbers on this machine with WANDB_MODE=offline, or set training.report_to=[]."
        )


class Trackers(TrainerCallback):  # type: ignore[misc]
    """Sends every log of a stage to the trackers; only the main process does."""

    def __init__(self, job: Job, stage: Stage) -> None:
        self.job, self.stage = job, stage
        self.names = job.recipe.training.report_to
        self.before = steps_before(stage)
        self.number = 1 + sum(1 for _ in _earlier(stage))
        self.opened: list[Opened] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the trackers; a run that was stopped goes on as the same one."""
        if not self.names or not state.is_world_process_zero:
            return
        about = _about(self.job, self.stage, self.before + state.global_step, args)
        for name in self.names:
            try:
                self.opened.append(_OPENERS[name](about))
            except Exception as error:
                raise RagFtError(
                    f"training.report_to: {name} does not start ({(str(error) or repr(error)).splitlines()[0]}). "
                    "Mend that, or set training.report_to=[]; the same command goes on."
                ) from error

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Send one log."""
        values = {_path(name): value for name, value in (logs or {}).items() if isinstance(value, (int, float))}
        if self.stage.name:
            values["train/stage"] = self.number
        for tracker in self.opened:
            tracker.log(self.before + state.global_step, values)

    def close(self) -> None:
        """Send what is left."""
        for tracker in self.opened:
            tracker.close()
        self.opened.clear()


def steps_before(stage: Stage) -> int:
    """Return how many optimizer steps the stages before this one took: its own are counted on from there."""
    return sum(int(read_json(one.summary, _RESTART)["steps"]) for one in _earlier(stage))


def _earlier(stage: Stage) -> Iterator[Stage]:
    while stage.before is not None:
        stage = stage.before
        yield stage


def without_secrets(value: Any) -> Any:
    """Return settings with every text under a name such as `token` or `api_key` hidden."""
    if isinstance(value, dict):
        return {
            key: "(hidden)" if isinstance(item, str) and _SECRET.search(str(key)) else without_secrets(item)
            for key, item in value.items()
        }
    return [without_secrets(item) for item in value] if isinstance(value, list) else value


def _about(job: Job, stage: Stage, step: int, args: Any) -> About:
    run = job.run
    manifests = {
        str(file.parent.relative_to(run.data)): read_json(file, "rag-ft build RECIPE")
        for file in sorted(run.data.rglob("manifest.json"))
    }
    facts = {
        "recipe": without_secrets(job.recipe.model_dump(mode="json")),
        "data": {name: {key: one.get(key) for key in _COUNTED} for name, one in manifests.items()},
        "stages": [one.name for one in job.recipe.training.stages],
    }
    return About(
        name=job.recipe.name,
        run=_run_id(run.training / "tracker.json"),
        project=args.project,
        folder=run.training,
        facts=facts,
        step=step,
        last=stage.last,
        extras=args,
    )


def _run_id(file: Path) -> str:
    """Return the id of the training's run, made once; `--restart` deletes it with the training."""
    if not file.is_file():
        write_json(file, {"run": secrets.token_hex(4)})
    return str(read_json(file, _RESTART)["run"])


def _path(name: str) -> str:
    """Write `eval_loss` as eval/loss and `loss` as train/loss, as the trainer's own callbacks do."""
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


def _wandb_knows_where() -> bool:
    if os.environ.get("WANDB_MODE", "online") != "online":
        return True
    import wandb

    return bool(wandb.login(prompt=False, verify=False))


def _nothing() -> None:
    """Do nothing."""
