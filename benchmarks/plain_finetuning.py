"""Fine-tuning as most people do it, without bisam: transformers, AdamW and a learning rate that falls in a line.

    python benchmarks/plain_finetuning.py rte data/glue/RTE data/minilm --seed 0
    python benchmarks/plain_finetuning.py cola data/glue/CoLA data/minilm --rows 4000

What a training on `glue:TASK:FOLDER` with `encoder:FOLDER` reaches is compared with what this prints. All rows of train.tsv are trained on, or with
`--rows N` those that a run with `train_images=N` trains on: N are drawn, and the last tenth of them is held back.
"""

from __future__ import annotations

import argparse
import csv
import time

import torch
from sklearn.metrics import f1_score, matthews_corrcoef
from transformers import AutoModelForSequenceClassification, AutoTokenizer

COLUMNS = {"cola": (3, None, 1), "mrpc": (3, 4, 0), "rte": (1, 2, 3), "sst-2": (0, None, 1)}  # first text, second text, label
NUMBER = {"0": 0, "1": 1, "entailment": 0, "not_entailment": 1}


def read(path: str, task: str) -> tuple[list, list]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[task != "cola" :]
    first, second, label = COLUMNS[task]
    texts = [row[first] if second is None else (row[first], row[second]) for row in rows]
    return texts, [NUMBER[row[label]] for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=tuple(COLUMNS))
    parser.add_argument("folder", help="holds train.tsv and dev.tsv")
    parser.add_argument("encoder", help="folder of the network and its tokeniser")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--rows", type=int, help="draw so many of train.tsv, and train on nine tenths of them")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    (texts, labels), (dev, dev_labels) = (read(f"{given.folder}/{part}.tsv", given.task) for part in ("train", "dev"))
    if given.rows is not None:
        drawn = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))[: given.rows - given.rows // 10].tolist()
        texts, labels = [texts[k] for k in drawn], [labels[k] for k in drawn]
    tokenizer = AutoTokenizer.from_pretrained(given.encoder)
    model = AutoModelForSequenceClassification.from_pretrained(given.encoder, num_labels=2)
    loader = torch.utils.data.DataLoader(range(len(texts)), 32, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=given.epochs * len(loader))

    def tokens(part: list) -> dict:
        return tokenizer(part, padding=True, truncation=True, max_length=128, return_tensors="pt")

    for epoch in range(given.epochs):
        started = time.perf_counter()
        model.train()
        for index in loader:
            loss = model(**tokens([texts[k] for k in index]), labels=torch.tensor([labels[k] for k in index])).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            said = torch.cat([model(**tokens(dev[k : k + 64])).logits.argmax(1) for k in range(0, len(dev), 64)]).tolist()
        right = 100 * sum(a == b for a, b in zip(said, dev_labels, strict=True)) / len(dev)
        scores = f"f1 {100 * f1_score(dev_labels, said):.1f} matthews {100 * matthews_corrcoef(dev_labels, said):.1f}"
        print(f"epoch {epoch + 1} accuracy {right:.2f} {scores} seconds {time.perf_counter() - started:.0f}", flush=True)


if __name__ == "__main__":
    main()
