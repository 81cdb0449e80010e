"""Sharpness-aware training with the Trainer of Hugging Face: what the notebook on your own loop shows, and the tests run."""

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

import bisam


# [start trainer]
class SharpTrainer(Trainer):
    """Give it optimizers=(opt, scheduler), where opt is a SharpnessAware."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.args.gradient_accumulation_steps != 1:
            raise ValueError("gradient_accumulation_steps must be 1")
        if self.args.fp16:
            raise ValueError("fp16 must be off; take bf16")

    def training_step(self, model, inputs, num_items_in_batch=None):
        opt = self.optimizer.optimizer  # ours, inside that of Accelerate
        inputs, at_w = self._prepare_inputs(inputs), []

        def ascent():
            loss, outputs = self.compute_loss(model, dict(inputs), True, num_items_in_batch)
            at_w.append(loss.detach())
            return loss if opt.recipe.ascent is None else opt.recipe.ascent(outputs["logits"], inputs["labels"])

        with opt.perturbed(model, ascent=ascent):  # which a step that does not climb leaves out
            there = super().training_step(model, inputs, num_items_in_batch)
        return at_w[0] if at_w else there  # the Trainer clips, and calls opt.step()
        # [end trainer]


class Classifier(nn.Module):
    """A module that the Trainer can train: named inputs, and a dictionary with the loss as output."""

    def __init__(self, dropout=0.1):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 10))

    def forward(self, x, labels=None):
        logits = self.net(x)
        found = {"logits": logits}
        return found if labels is None else {"loss": nn.functional.cross_entropy(logits, labels), **found}


class Named(torch.utils.data.Dataset):
    """Samples by the names of the model's arguments."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, k):
        return {"x": self.inputs[k], "labels": self.targets[k]}


def train(recipe, dataset, folder, epochs=2, model=None, seed=0, **options):
    """Trains a small network with the Trainer; returns the model and the trainer."""
    torch.manual_seed(seed)
    model = Classifier() if model is None else model
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    opt = bisam.SharpnessAware(sgd, recipe, seed=seed, record=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=epochs * -(-len(dataset) // 50))
    given = TrainingArguments(
        output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=50, max_grad_norm=1.0,
        use_cpu=True, seed=0, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, **options,
    )  # fmt: skip
    trainer = SharpTrainer(model=model, args=given, train_dataset=dataset, optimizers=(opt, cosine))
    trainer.train()
    return model, trainer
