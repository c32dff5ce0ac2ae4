"""TRL's own loss code, called without a model: prints values and gradients of every loss as JSON.

Run by test_objectives_against_trl.py with the Python of an environment made from benchmarks/trl.txt. Input on stdin:
the numbers of the losses. TRL's trainers compute the loss in `_compute_loss(model, inputs)`; both are stand-ins here,
and the model answers with
the given log-probabilities, which are 0 outside the completion.
"""

import json
import sys
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def unchanged(value: Any, *_: Any, **__: Any) -> Any:
    return value


ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"),
    gather=unchanged,
    gather_for_metrics=unchanged,
    reduce=unchanged,
    num_processes=1,
    unwrap_model=unchanged,
)


def trainer(**fields: Any) -> SimpleNamespace:
    """A stand-in for a trainer."""
    return SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=ACCELERATOR,
        aux_loss_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        precompute_ref_logps=True,
        **fields,
    )


def model(log_probs: torch.Tensor) -> Any:
    """A stand-in for a model: answers with the given log-probabilities."""
    zeros = torch.zeros_like(log_probs)

    def forward(**_: Any) -> SimpleNamespace:
        return SimpleNamespace(
            log_probs=log_probs,
            entropy=zeros,
            mean_logits=zeros,
            is_top1=zeros.bool(),
            log_sum_sq_probs=zeros,
        )

    return forward


def result(loss: torch.Tensor, leaf: torch.Tensor) -> dict[str, Any]:
    (gradient,) = torch.autograd.grad(loss, leaf)
    return {"value": loss.item(), "gradient": gradient.tolist()}


def preference_losses(case: dict[str, Any]) -> dict[str, Any]:
    """DPO's, KTO's and CPO's losses of answers; the first half of the rows are the chosen ones."""
    mask = torch.tensor(case["mask"])
    rows = len(mask)
    # One token of prompt, which is never scored: log_probs has one column less than ids.
    completion = torch.cat([torch.zeros(rows, 1, dtype=torch.long), mask], dim=1)
    ids = torch.ones_like(completion)
    reference = torch.tensor(case["reference"])
    tokens, half = mask.sum(1).double(), rows // 2
    inputs = {"input_ids": ids, "attention_mask": ids, "completion_mask": completion,
              "ref_chosen_logps": reference[:half], "ref_rejected_logps": reference[half:]}  # fmt: skip
    found = {}

    def leaf() -> torch.Tensor:
        return torch.tensor(case["log_probs"]).requires_grad_()

    for kind in ("sigmoid", "robust", "hinge", "ipo", "apo_zero", "apo_down", "sigmoid_norm"):
        me = trainer(ld_alpha=None, f_divergence_type="reverse_kl", beta=case["beta"], loss_types=[kind],
                     loss_weights=[1.0], label_smoothing=case["label_smoothing"], use_weighting=False,
                     args=SimpleNamespace())  # fmt: skip
        log_probs = leaf()
        loss = DPOTrainer._compute_loss(me, model(log_probs * mask), dict(inputs), False)
        found[f"dpo/{kind}"] = result(loss, log_probs)
    mismatched, mismatched_reference = (
        torch.tensor(case[name]) for name in ("mismatched", "mismatched_reference")
    )
    for kind in ("kto", "apo_zero_unpaired"):
        me = trainer(beta=case["beta"], loss_type=kind, calculate_KL=kind == "kto", desirable_weight=1.0,
                     undesirable_weight=1.3)  # fmt: skip
        me._compute_kl_logps = lambda *_, kind=kind: mismatched if kind == "kto" else None
        log_probs = leaf()
        labelled = {"input_ids": ids, "attention_mask": ids, "completion_mask": completion,
                    "label": torch.tensor(case["desirable"]).long(), "ref_logps": reference,
                    "ref_KL_logps": mismatched_reference}  # fmt: skip
        loss = KTOTrainer._compute_loss(me, model(log_probs * mask), labelled, False)
        found[f"kto/{kind}"] = result(loss, log_probs)
    for kind, beta in (("sigmoid", case["beta"]), ("simpo", 2.0)):
        log_probs = leaf()
        sums = (log_probs * mask).sum(1)
        sums = sums / tokens if kind == "simpo" else sums
        me = SimpleNamespace(alpha=0.0, accelerator=ACCELERATOR, loss_type=kind, beta=beta, simpo_gamma=0.5,
                             label_smoothing=0.0)  # fmt: skip
        found[f"cpo/{kind}"] = result(CPOTrainer.cpo_loss(me, *sums.chunk(2))[0].mean(), log_probs)
    log_probs = leaf()
    chosen, rejected = ((log_probs * mask).sum(1) / tokens).chunk(2)
    me = SimpleNamespace(beta=0.25, accelerator=ACCELERATOR)
    odds = ORPOTrainer.odds_ratio_loss(me, chosen, rejected)[0].mean()
    found["orpo"] = result(-odds - chosen.mean(), log_probs)
    return found


def group_losses(case: dict[str, Any]) -> dict[str, Any]:
    """GRPO's and RLOO's losses of responses with given advantages."""
    mask = torch.tensor(case["mask"])
    old, reference, advantages = (torch.tensor(case[name]) for name in ("old", "reference", "advantages"))
    prompt = torch.ones(len(mask), 2).long()
    inputs = {"prompt_ids": prompt, "prompt_mask": prompt, "completion_ids": mask, "completion_mask": mask,
              "advantages": advantages, "old_per_token_logps": old, "ref_per_token_logps": reference,
              "num_items_in_batch": mask.sum().double(), "old_logps": (old * mask).sum(1)}  # fmt: skip
    found = {}
    kinds = (
        ("grpo", "token"),
        ("grpo", "sequence"),
        ("dr_grpo", "token"),
        ("dapo", "token"),
        ("cispo", "token"),
    )
    for kind, level in kinds:
        log_probs = torch.tensor(case["log_probs"]).requires_grad_()
        me = trainer(top_entropy_quantile=1.0, off_policy_mask_threshold=None, importance_sampling_level=level,
                     beta=case["kl_coef"], loss_type=kind, epsilon_low=0.2,
                     epsilon_high=1.28 if kind == "cispo" else 0.28, use_vllm=False,
                     vllm_importance_sampling_correction=False, max_completion_length=case["longest"],
                     current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False,
                     args=SimpleNamespace(delta=None, use_bias_correction_kl=False,
                                          steps_per_generation=1))  # fmt: skip
        me._get_per_token_logps_and_entropies = answering(log_probs)
        found[f"{kind}/{level}"] = result(GRPOTrainer._compute_loss(me, None, inputs), log_probs)
    log_probs = torch.tensor(case["log_probs"]).requires_grad_()
    me = trainer(epsilon_low=0.2, epsilon_high=0.2)
    me._get_per_token_logps_and_entropies = answering(log_probs)
    found["rloo"] = result(RLOOTrainer._compute_loss(me, None, inputs), log_probs)
    return found


def answering(log_probs: torch.Tensor) -> Any:
    return lambda *_, **__: (log_probs, torch.zeros_like(log_probs), None)


if __name__ == "__main__":
    cases = json.load(sys.stdin)
    print(json.dumps(preference_losses(cases["preferences"]) | group_losses(cases["groups"])))
