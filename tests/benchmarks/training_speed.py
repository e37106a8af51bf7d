"""Images a second in training, against a plain PyTorch loop over ImageFolder.

    uv run python -m tests.benchmarks.training_speed ../shared/data/celebrities

Both train the same network on the same crops with the same batch size, on the same device, taking
turns. The plain loop is what a tutorial shows: `ImageFolder`, random flip and colour jitter, a
`DataLoader` with as many workers as cores, single precision, cross entropy. Ours is what `python -m
training classifier --recipe cnn` does: crops mapped into memory, augmentation on the device,
precision by device, Lightning with its checkpoints and logs. First epochs are not counted.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import pytorch_lightning as lightning
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

from engine import threads
from engine.vision.device import choose_device
from training import tools
from training.datasets import data, pixels, prepare
from training.fit import recipes
from training.fit.fitting import Machine, Schedule, fit
from training.fit.recipes import Recipe, TrainingFaces
from training.fit.runs import Run


class Clock(lightning.Callback):
    """Seconds of each training epoch, without its validation."""

    def __init__(self):
        self.seconds = []

    def on_train_epoch_start(self, *_):
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *_):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.start)


def ours(faces, arch, batch, epochs, device, weights):
    plan = recipes.plan(
        Recipe.CNN,
        network=arch,
        input_px=112,
        imagenet=False,
        batch=batch,
        epochs=epochs + 1,
        patience=epochs + 1,
    )
    network = recipes.start(plan, weights)
    crops = pixels.mapped(faces, network.template)
    training, validation = data.split(faces, recipes.HELD_OUT_SHARE, 0)
    material = TrainingFaces(crops, faces.owner, len(faces.people), training, validation)
    centre, head = recipes.beginning(plan, network, material, device)
    learner, batches = recipes.prepared(plan, network, head, centre, material, Machine(device))
    clock = Clock()
    learner.configure_callbacks = lambda: [clock]
    with tempfile.TemporaryDirectory() as home:
        run = Run(Path(home), None)
        fit(learner, batches, run, Schedule(plan.epochs, plan.patience), Machine(device))
    done = batches.steps * batch
    return [done / seconds for seconds in clock.seconds[1:]]


def plain(folder, arch, batch, epochs, device):
    change = transforms.Compose(
        [
            transforms.Resize((112, 112)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.25, 0.25, 0.15),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    source = datasets.ImageFolder(folder, change)
    loader = DataLoader(
        source,
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=threads.usable_cores(),
        persistent_workers=True,
    )
    network = models.get_model(arch, num_classes=len(source.classes)).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    rates = []
    for _ in range(epochs + 1):
        network.train()
        start = time.perf_counter()
        for pictures, truth in loader:
            loss = nn.functional.cross_entropy(network(pictures.to(device)), truth.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        rates.append(len(loader) * batch / (time.perf_counter() - start))
    return rates[1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder per person of aligned crops")
    parser.add_argument("--arch", default="mobilenet_v2")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    threads.configure()
    device = choose_device(arguments.device)
    faces = prepare.dataset(arguments.folder, tools.load(), aligned=True)
    shape = (arguments.arch, arguments.batch, arguments.epochs, device)
    mine, theirs = [], []
    for _ in range(arguments.turns):
        theirs += plain(arguments.folder, *shape)
        mine += ours(faces, *shape, Path())
    found = {
        "device": str(device),
        "ours_per_second": statistics.median(mine),
        "plain_per_second": statistics.median(theirs),
        "ratio": statistics.median(mine) / statistics.median(theirs),
    }
    print(json.dumps(found | {"ours": mine, "plain": theirs}))


if __name__ == "__main__":
    main()
