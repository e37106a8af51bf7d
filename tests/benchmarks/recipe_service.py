"""The peer: facenet-pytorch's README behind a plain FastAPI endpoint.

One photo at a time, as whoever has a notebook and a web framework would write it: `def`, so that
the framework calls it in its pool of threads. Announces its address as `python -m engine serve`
does.
"""

import asyncio
import io
import socket

import torch
import uvicorn
from fastapi import Body, FastAPI
from PIL import Image

from engine import threads
from tests.benchmarks.photo import Recipe


def application():
    app, recipe = FastAPI(), Recipe()

    @app.get("/livez")
    @app.get("/readyz")
    def ready():
        return {}

    @app.post("/v1/analyze")
    def analyze(photo: bytes = Body(media_type="application/octet-stream")):
        return {"faces": recipe(Image.open(io.BytesIO(photo)).convert("RGB"))}

    return app


async def main():
    threads.configure()
    torch.set_grad_enabled(False)
    with socket.create_server(("127.0.0.1", 0)) as door:
        print(f"The engine listens on http://127.0.0.1:{door.getsockname()[1]}", flush=True)
        config = uvicorn.Config(application(), log_level="warning", access_log=False)
        await uvicorn.Server(config).serve(sockets=[door])


if __name__ == "__main__":
    asyncio.run(main())
