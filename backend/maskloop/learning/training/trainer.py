"""transformers' Trainer for segmentation models: order, learning rates, ignored areas, bad gradients."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

from maskloop.errors import TrainingError
from maskloop.learning.data.collate import BOXES_KEY, DELETED_KEY, IGNORED_KEY, OTHER_TASK_KEY, SOFT_KEY
from maskloop.learning.data.index_map import IGNORED, object_planes
from maskloop.learning.losses.ignore_regions import IgnoringLoss
from maskloop.learning.losses.point_loss import PointwiseLoss
from maskloop.learning.training.click_training import ClickTrainer
from maskloop.learning.training.recipe import LARGE_PARAMETERS, FinetuneRecipe
from maskloop.learning.training.schedule import rate_factor
from maskloop.learning.training.weight_average import WeightAverage
from maskloop.log import log_action
from maskloop.segmentation.fast.forward import cpu_has_bfloat16

__all__ = [
    "SegmentationTrainer",
    "backbone_modules",
    "data_workers",
    "parameter_groups",
    "prepared_for_training",
    "training_arguments",
    "uses_bfloat16",
]

logger = logging.getLogger(__name__)
_BatchNorm = nn.modules.batchnorm._BatchNorm  # the base of all its dimensions
_CLICKS = "click_queries.pt"  # in a state's folder
_MAX_BAD_STEPS = 4  # in a row; fewer are skipped
MAX_DATA_WORKERS = 8  # more do not raise the use of a GPU


class SegmentationTrainer(Trainer):
    """Trains in the dataset's order, which is shuffled already and the same after a restart."""

    def __init__(
        self, *, recipe: FinetuneRecipe, click_trainer: ClickTrainer | None = None, **kwargs: Any
    ) -> None:
        self.recipe = recipe
        self.click_trainer = click_trainer
        self.planned_steps = recipe.steps  # reduced during training where time is limited
        self.average: WeightAverage | None = None  # from create_optimizer on, where the recipe wants one
        self._bad_steps = 0
        super().__init__(**kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the model's loss without ignored areas."""
        model_inputs = dict(inputs)
        any_ignored = model_inputs.pop(IGNORED_KEY)
        boxes = model_inputs.pop(BOXES_KEY, None)
        deleted = model_inputs.pop(DELETED_KEY, None)
        of_other_task_b = model_inputs.pop(OTHER_TASK_KEY, None)
        soft = model_inputs.pop(SOFT_KEY, None)
        index_bhw = self._clicked_bhw = model_inputs["mask_labels"]
        if soft is not None:
            soft = soft.to(index_bhw.device)
            self._clicked_bhw = soft.harden(index_bhw)
        if of_other_task_b is not None:  # clicks are answered in the project's own task
            self._clicked_bhw = self._clicked_bhw.masked_fill(of_other_task_b[:, None, None], 0)
        criterion = self.accelerator.unwrap_model(model).criterion
        if isinstance(criterion, IgnoringLoss):
            criterion.ignored_bhw = index_bhw == IGNORED if any_ignored else None
            criterion.boxes = None if boxes is None else [one.to(index_bhw.device) for one in boxes]
            criterion.deleted = None if deleted is None else deleted.to(index_bhw.device)
            criterion.deleted_weight = self.recipe.deleted_weight
            criterion.soft = soft
        if not isinstance(criterion, PointwiseLoss):
            pairs = zip(index_bhw, model_inputs["class_labels"], strict=True)
            planes = [object_planes(index_hw, len(ids)) for index_hw, ids in pairs]
            if soft is not None:
                planes = [soft.soften(one, image) for image, one in enumerate(planes)]
            model_inputs["mask_labels"] = planes
        outputs = model(**model_inputs)
        loss = outputs.loss.mean()  # OneFormer's has shape (1,)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the loss after the backward pass; 0 where it is not finite, since that step is skipped."""
        loss = torch.nan_to_num(super().training_step(*args, **kwargs), nan=0.0, posinf=0.0, neginf=0.0)
        if self.click_trainer is not None:
            self.click_trainer.step(self._clicked_bhw, self.state.global_step)
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validate the weights that are kept; the loss samples random points, the same ones each time."""
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        averaged = nullcontext() if self.average is None else self.average.applied()
        with averaged, torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.recipe.seed)
            return super().evaluate(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return AdamW with the recipe's parameter groups."""
        if self.optimizer is None:
            groups = parameter_groups(cast(nn.Module, self.model if model is None else model), self.recipe)
            self.optimizer = torch.optim.AdamW(groups, lr=self.recipe.learning_rate, fused=True)
            if self.recipe.average:
                self.average = WeightAverage(self.optimizer, self.recipe.average)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the schedule over the planned steps, also where these are reduced during training."""
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                cast(Any, optimizer or self.optimizer),
                lambda step: rate_factor(step, warmup=self.recipe.warmup, steps=self.planned_steps),
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def use_average(self) -> None:
        """Replace the model's weights by their average at the state that is kept: the best, or the last."""
        if self.average is None or self.optimizer is None:
            return
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            best = Path(self.state.best_model_checkpoint) / "optimizer.pt"
            self.optimizer.load_state_dict(torch.load(best, map_location="cpu", weights_only=True))
        self.average.apply()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.click_trainer is not None and self.args.should_save:
            torch.save(self.click_trainer.state_dict(), Path(output_dir) / _CLICKS)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.click_trainer is not None and checkpoint is not None:
            state = torch.load(Path(checkpoint) / _CLICKS, map_location="cpu", weights_only=True)
            self.click_trainer.load_state_dict(state)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: Trainer's own count fails with OneFormer, which has two main inputs."""
        return 0

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(cast(Any, train_dataset or self.train_dataset))

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]  # over all processes: each has the same norm
        if bool(torch.isfinite(torch.as_tensor(norm))):
            self._bad_steps = 0
            return norm
        self._bad_steps += 1
        if self._bad_steps >= _MAX_BAD_STEPS:
            raise TrainingError(
                f"training step {self.state.global_step + 1}",
                expected="a finite loss",
                got=f"{self._bad_steps} steps in a row with a gradient of {float(norm)}",
                remedy="lower the learning rate (MASKLOOP_LEARNING_RATE) and train again",
            )
        log_action(
            logger,
            "step_skipped",
            level=logging.WARNING,
            reason="gradient not finite",
            step=self.state.global_step + 1,
        )
        model.zero_grad(set_to_none=True)  # AdamW skips weights without a gradient
        return torch.zeros(())


def parameter_groups(model: nn.Module, recipe: FinetuneRecipe) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups: an own rate for the backbone; no decay of norms, biases, embeddings.

    Args:
        model: a model of one of the families.
        recipe: learning rate, factor of the backbone and weight decay; frozen parameters are in no group.
    """
    decayed = _decayed_names(model)
    backbone = {id(one) for module in backbone_modules(model) for one in module.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in backbone, name in decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.learning_rate * (recipe.backbone_factor if of_backbone else 1.0),
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (of_backbone, decays), parameters in groups.items()
    ]


def _decayed_names(model: nn.Module) -> set[str]:
    """Return the names of the weights of linear, convolution and attention layers."""
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.MultiheadAttention)
    names = set()
    for path, module in model.named_modules():
        if isinstance(module, kinds):
            own = dict(module.named_parameters(prefix=path, recurse=False))
            names |= {name for name in own if name.endswith("weight")}
    return names


@contextmanager
def prepared_for_training(model: Any, recipe: FinetuneRecipe) -> Iterator[None]:
    """Freeze what the recipe says and keep OneFormer's task tokens exact; undone at the end."""
    backbone = backbone_modules(model) if recipe.freeze_backbone else ()
    parameters = [one for module in backbone for one in module.parameters() if one.requires_grad]
    norms = [module for module in model.modules() if recipe.freeze_norm and isinstance(module, _BatchNorm)]
    frozen = (*backbone, *norms)
    task_encoder = getattr(getattr(model, "model", None), "task_encoder", None)
    for parameter in parameters:
        parameter.requires_grad_(False)
    for module in frozen:
        module.eval()
        vars(module)["train"] = functools.partial(
            _stay, module
        )  # Trainer calls model.train() before each step
    if task_encoder is not None:
        task_encoder.forward = _in_float32(task_encoder.forward)
    try:
        yield
    finally:
        for module in frozen:
            del module.train
        for parameter in parameters:
            parameter.requires_grad_(True)
        if task_encoder is not None:
            del task_encoder.forward


def backbone_modules(model: Any) -> tuple[nn.Module, ...]:
    """Return the modules that see the image alone; what follows them sees the queries too.

    EoMT has no separate decoder: its last `num_blocks` layers process patches and queries together, so the
    backbone is what comes before them.

    Source:
        Kerssies et al., "Your ViT is Secretly an Image Segmentation Model", CVPR 2025, section 3.2.
    """
    if hasattr(model, "model"):
        return (model.model.pixel_level_module.encoder,)
    return (model.embeddings, *model.layers[: -model.config.num_blocks])


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def _in_float32(forward: Any) -> Any:
    # Token ids go up to 49407; bfloat16 is exact for whole numbers up to 256 only.
    def exact(inputs: torch.Tensor) -> Any:
        with torch.autocast(inputs.device.type, enabled=False):
            return forward(inputs)

    return exact


def training_arguments(
    recipe: FinetuneRecipe,
    *,
    output_dir: str,
    device: torch.device,
    processes: int,
    micro_batch: int,
    validated: bool,
    parameters: int,
) -> TrainingArguments:
    """Return the Trainer's arguments for a recipe.

    Args:
        recipe: hyperparameters.
        output_dir: folder of the states.
        device: the model's device.
        processes: number of processes that train together.
        micro_batch: images in one forward pass; gradients of the parts of a batch are accumulated.
        validated: whether there are validation images.
        parameters: number of parameters of the model.
    """
    on_cpu = device.type == "cpu"
    arguments = TrainingArguments(
        output_dir=output_dir,
        max_steps=recipe.steps,
        per_device_train_batch_size=micro_batch,
        per_device_eval_batch_size=micro_batch,
        gradient_accumulation_steps=recipe.batch // (micro_batch * processes),
        max_grad_norm=recipe.clip,
        seed=recipe.seed,
        use_cpu=on_cpu,
        bf16=uses_bfloat16(recipe, device, parameters),
        save_strategy="steps",
        save_steps=recipe.save_every,
        save_total_limit=2,
        eval_strategy="steps" if validated else "no",
        eval_steps=recipe.save_every if validated else None,
        load_best_model_at_end=validated,
        metric_for_best_model="eval_loss" if validated else None,
        greater_is_better=False if validated else None,
        prediction_loss_only=True,
        label_names=["mask_labels", "class_labels"],
        logging_steps=min(10, recipe.steps),
        logging_nan_inf_filter=False,
        report_to=[],
        log_level="warning",
        disable_tqdm=True,
        dataloader_num_workers=data_workers(device, processes),
        dataloader_pin_memory=not on_cpu,
        accelerator_config={"non_blocking": not on_cpu},
        remove_unused_columns=False,
        ddp_find_unused_parameters=True,
    )
    if processes == 1:
        # With several GPUs in one process, DataParallel would split lists of masks as if they were batches
        arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def data_workers(device: torch.device, processes: int) -> int:
    """Return how many processes prepare batches while a GPU computes; 0 on a CPU."""
    if device.type == "cpu":
        return 0
    return max(0, min(MAX_DATA_WORKERS, (os.cpu_count() or 1) // processes - 1))


def uses_bfloat16(recipe: FinetuneRecipe, device: torch.device, parameters: int) -> bool:
    """Return whether a model with this number of parameters is trained in bfloat16 autocast."""
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return parameters >= LARGE_PARAMETERS and cpu_has_bfloat16()
