"""A tagger as a web service."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
from pathlib import Path

import mlcil
from mlcil.errors import UserError
from mlcil.tagger import outputs

#: where the token of Label Studio is looked for; not an option, since anybody sees those of a process
TOKEN = "LABEL_STUDIO_API_KEY"


def main(options: argparse.Namespace) -> int:
    """``serve TAGGER``: until a signal ends it."""
    try:
        import uvicorn

        from mlcil.tagger.server.app import Served, Service, create_app
        from mlcil.tagger.server.limits import Limits
        from mlcil.tagger.server.studio import Learner, Studio, newest
    except ModuleNotFoundError as error:
        raise UserError(f"`mlcil serve` needs {error.name}; install it with pip install 'mlcil[serve]'") from None
    limits = Limits(options.max_images, options.max_megabytes, options.max_megapixels, options.timeout)
    for name, value in vars(limits).items():
        if not value > 0:
            raise UserError(f"the limit of {name} is {value}; expected more than 0")
    base = outputs.find_tagger(options.tagger)
    studio = None
    if options.label_studio:
        token = os.environ.get(TOKEN, "")
        if not token:
            raise UserError(f"--label-studio needs a token; put one of your account's into the variable {TOKEN}")
        studio = Studio(options.label_studio, token, limits.megabytes * 10**6)
    if options.project is not None and (studio is None or base.suffix in (".onnx", ".safetensors")):
        raise UserError("--project goes with --label-studio and a tagger that `mlcil extend` takes; name those")
    path = newest(base) if options.project is not None else base

    def load(path: Path) -> Served:
        return Served.of(mlcil.load(path, options.device, "auto", options.engine), path)

    service = Service(load(path), limits, studio)
    if studio is not None and options.project is not None:

        def learnt(path: Path) -> None:
            service.served = load(path)

        service.learner = Learner(base, studio, options.project, options.reviewed, learnt)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the server's own handler raises it again at its end
    logging.basicConfig(format="%(message)s")
    listening = _listen(options.host, options.port)
    config = uvicorn.Config(
        create_app(service),
        http="h11",
        ws="none",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=round(limits.seconds),
    )
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"{path}: {len(service.served.labels)} labels at http://{host}:{listening.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run([listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{host}:{port} cannot be served ({error}); expected an address of this machine and a free port, so choose "
            "others with --host and --port"
        ) from None
