"""Search over very many people, against FAISS flat and what reading the vectors once costs.

    uv run python -m tests.benchmarks.gallery

Ours is `engine.people.gallery.Gallery.search`: the five most similar people with their names,
shares of the softmax over everybody, percentiles and verdicts. The peer is FAISS's exact
`IndexFlatIP` in the same process with the same threads, which gives five numbers and five
similarities. They take turns, and every figure is a median. The floor is a sum over all vectors:
they cannot be compared without being read. What ours answers is held against the same search in
double precision; where two people are equally similar to seven digits, either may come first. On a
GPU (`--device cuda`) the peer stays on the CPU. `--load` also tells what loading such a bundle
takes.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import faiss
import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import normalize

from engine import bundle, threads
from engine.people.gallery import Gallery
from engine.vision.device import choose_device
from tests.engine.bundles import make, manifest

TOP_K = 5
BATCHES = (1, 8, 32)
TIE = 1e-6
PART = 100_000


def seconds(work, device):
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def turns(ways, rounds, device):
    """Median seconds of each way, taking turns after one round to warm up."""
    times = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, work in ways.items():
            spent = seconds(work, device)
            if turn:
                times[name].append(spent)
    return {name: statistics.median(own) for name, own in times.items()}


def draw(people, dimension):
    """People in a thousand crowds, so that there is somebody to mistake them for."""
    generator = torch.Generator().manual_seed(people + dimension)
    vectors = torch.randn(people, dimension, generator=generator)
    crowds = torch.randn(1000, dimension, generator=generator)
    for start in range(0, people, PART):  # in place: they are large
        part = vectors[start : start + PART]
        part += crowds[torch.randint(1000, (len(part),), generator=generator)]
        part /= part.norm(dim=1, keepdim=True)
    own = vectors[torch.randint(people, (max(BATCHES),), generator=generator)]
    queries = normalize(own + 0.08 * torch.randn(own.shape, generator=generator), dim=1)
    return vectors, queries


def in_double_precision(vectors, queries, temperature):
    """(n, people) similarities."""
    return torch.cat([queries.double() @ part.double().T for part in vectors.split(PART)], dim=1)


def compared(found, similarity, temperature):
    """Wrong answers, ties aside, and the largest errors."""
    shares = torch.softmax(similarity / temperature, dim=1)
    best = similarity.topk(min(TOP_K, similarity.shape[1]), dim=1).values
    wrong, similarity_error, share_error = 0, 0.0, 0.0
    for i, matches in enumerate(found):
        for rank, match in enumerate(matches):
            person = int(match.name)
            wrong += abs(float(similarity[i, person] - best[i, rank])) > TIE
            wrong += match.name in {other.name for other in matches[:rank]}
            error = abs(match.similarity - float(similarity[i, person]))
            similarity_error = max(similarity_error, error)
            error = abs(match.probability / float(shares[i, person]) - 1)
            share_error = max(share_error, error)
    return {
        "wrong": wrong,
        "similarity_error": similarity_error,
        "relative_share_error": share_error,
    }


def known_as(people, vectors):
    """A bundle of people called by their numbers, in memory."""
    names = [str(i) for i in range(people)]
    record = bundle.Manifest(
        format=bundle.FORMAT,
        preprocessing=bundle.PREPROCESSING,
        pth_sha256="",
        **manifest(names),
    )
    form = record.embedder.model_copy(update={"dimension": vectors.shape[1]})
    tensors = {
        "prototypes": vectors,
        "owner": torch.arange(people),
        "centre": torch.zeros(vectors.shape[1]),
    }
    return bundle.Bundle("numbered", record.model_copy(update={"embedder": form}), tensors)


def race(people, dimension, rounds, device):
    vectors, queries = draw(people, dimension)
    known = known_as(people, vectors)
    gallery = Gallery(known, device)
    index = faiss.IndexFlatIP(dimension)
    index.add(vectors.numpy())
    stored = vectors.to(device)
    temperature = known.calibration.temperature
    rows = []
    for batch in BATCHES:
        asked = queries[:batch]
        here = asked.to(device)
        found = gallery.search(here, TOP_K)
        ways = {
            "ours": lambda here=here: gallery.search(here, TOP_K),
            "faiss": lambda asked=asked: index.search(asked.numpy(), TOP_K),
            "floor": stored.sum,
        }
        spent = turns(ways, rounds, device)
        rows.append(
            {
                "people": people,
                "dimension": dimension,
                "batch": batch,
                **{f"{name}_ms": round(1000 * value, 3) for name, value in spent.items()},
                "faiss_over_ours": round(spent["faiss"] / spent["ours"], 2),
                "ours_over_floor": round(spent["ours"] / spent["floor"], 2),
                **compared(found, in_double_precision(vectors, asked, temperature), temperature),
            }
        )
    return rows


def loading(people, dimension, device):
    """Seconds and memory of what stands between two files and the first answer."""
    vectors, queries = draw(people, dimension)
    with tempfile.TemporaryDirectory() as scratch:
        stem = make_bundle(Path(scratch), vectors)
        del vectors
        before = psutil.Process().memory_info().rss
        started = time.perf_counter()
        read = bundle.load(stem)
        loaded = time.perf_counter()
        gallery = Gallery(read, device)
        built = time.perf_counter()
        gallery.search(queries[:1].to(device), TOP_K)
        answered = time.perf_counter()
        files = sum(path.stat().st_size for path in Path(scratch).iterdir())
    return {
        "people": people,
        "dimension": dimension,
        "files_mib": round(files / 2**20),
        "load_s": round(loaded - started, 2),
        "gallery_s": round(built - loaded, 2),
        "first_answer_s": round(answered - built, 3),
        "memory_mib": round((psutil.Process().memory_info().rss - before) / 2**20),
    }


def make_bundle(folder, vectors):
    names = tuple(str(i) for i in range(len(vectors)))
    form = manifest(())["embedder"] | {"dimension": vectors.shape[1]}
    return make(folder, people=names, vectors=vectors, embedder=form)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--people", type=int, nargs="+", default=[1_000, 10_000, 100_000, 10**6])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "auto"])
    parser.add_argument("--load", action="store_true", help="time loading from files instead")
    arguments = parser.parse_args()
    cores = threads.configure()
    faiss.omp_set_num_threads(cores)
    device = choose_device(arguments.device)
    shapes = [(n, d) for d in arguments.dimensions for n in arguments.people]
    if arguments.load:
        rows = [loading(*shape, device) for shape in shapes]
    else:
        rows = [row for shape in shapes for row in race(*shape, arguments.rounds, device)]
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:,.3g}" if value < 1 else f"{value:,}" for value in row.values()))
    Console(stderr=True).print(table)
    print(json.dumps({"threads": cores, "device": str(device), "rows": rows}))


if __name__ == "__main__":
    main()
