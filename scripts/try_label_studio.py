"""Try ``mlcil serve`` with a real Label Studio on this machine: its photos are tagged, and what is annotated is learnt.

    python -m venv STUDIO && STUDIO/bin/pip install label-studio
    python scripts/try_label_studio.py STUDIO/bin/label-studio

Photos with coloured squares are drawn. Exits 0 when every step does what it should.
"""

import argparse
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from PIL import Image, ImageDraw

TOKEN = uuid.uuid4().hex
OLD, NEW = ("red", "green"), "blue"


def draw(folder, count, colours, seed):
    """Photos with squares -> {file: colours}."""
    folder.mkdir(parents=True)
    draws, shown = random.Random(seed), {}
    for number in range(count):
        there = [colour for colour in colours if draws.random() < 0.5]
        image = Image.effect_noise((96, 72), 40).convert("RGB")
        for place, colour in enumerate(there):
            x, y = 2 + 32 * place, draws.randrange(4, 38)
            ImageDraw.Draw(image).rectangle((x, y, x + 28, y + 28), fill=colour)
        file = folder / f"{seed}_{number}.png"
        image.save(file)
        shown[file] = there
    return shown


def call(address, body=None, form=None, token=TOKEN):
    """JSON from an address; ``form`` are files to upload."""
    headers = {"Authorization": f"Token {token}"} if token else {}
    data = None
    if form is not None:
        line = uuid.uuid4().hex
        headers["Content-Type"] = f"multipart/form-data; boundary={line}"
        parts = [
            f'--{line}\r\nContent-Disposition: form-data; name="{file.name}"; filename="{file.name}"\r\n'
            "Content-Type: image/png\r\n\r\n".encode()
            + file.read_bytes()
            + b"\r\n"
            for file in form
        ]
        data = b"".join(parts) + f"--{line}--\r\n".encode()
    elif body is not None:
        headers["Content-Type"] = "application/json"
        data = json.dumps(body).encode()
    request = urllib.request.Request(address, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{address}: {error.code} {error.read().decode()[:500]}") from None


def wait_for(what, ask, seconds=120):
    """The first answer that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, SystemExit):
            found = ask()
            if found:
                return found
        time.sleep(0.5)
    raise SystemExit(f"{what}: nothing within {seconds} seconds")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def program(words, log, **more):
    """A program that runs meanwhile and is ended by SIGTERM."""
    with open(log, "w") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **more})
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def predictions(studio, project):
    """Ask for predictions of all tasks -> {file name: (version, choices)} of the newest ones."""
    everything = {"selectedItems": {"all": True, "excluded": []}}
    call(f"{studio}/api/dm/actions?id=retrieve_tasks_predictions&project={project}", everything)
    found = {}
    for task in call(f"{studio}/api/tasks?project={project}&fields=all&page_size=500")["tasks"]:
        for entry in sorted(task["predictions"], key=lambda entry: entry["id"]):
            choices = [name for result in entry["result"] for name in result["value"]["choices"]]
            found[task["data"]["image"].rpartition("-")[2]] = (task["id"], entry["model_version"], choices)
    return found


def right(found, shown, names):
    """Share of cells (photo, label) that are as drawn."""
    cells = [(name in found[file.name][2]) == (name in there) for file, there in shown.items() for name in names]
    return sum(cells) / len(cells)


def main():
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("label_studio", help="its program")
    words.add_argument("--keep", type=Path, metavar="FOLDER", help="work there and leave everything")
    options = words.parse_args()
    with contextlib.ExitStack() as stack:
        folder = (options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))).absolute()
        first, second = draw(folder / "first", 60, OLD, 1), draw(folder / "second", 60, (*OLD, NEW), 2)
        rows = [f"{file.name},{','.join(str(int(name in there)) for name in OLD)}" for file, there in first.items()]
        (folder / "first" / "labels.csv").write_text("\n".join([f"file,{','.join(OLD)}", *rows]))
        mlcil = [sys.executable, "-m", "mlcil"]
        tagger = folder / "colours.tagger"
        subprocess.run([*mlcil, "tag", folder / "first" / "labels.csv", "--out", tagger], check=True)

        studio = f"http://127.0.0.1:{free_port()}"
        start = ["start", "--no-browser", "--port", studio.rpartition(":")[2], "--data-dir", folder / "studio"]
        user = ["--username", "me@example.com", "--password", uuid.uuid4().hex, "--user-token", TOKEN]
        local = {"ML_BLOCK_LOCAL_IP": "false", "SSRF_PROTECTION_ENABLED": "false", "DJANGO_DB": "sqlite"}
        local |= {"LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "COLLECT_ANALYTICS": "false"}
        words = [options.label_studio, *start, *user]
        stack.enter_context(program(words, folder / "studio.log", **local, LABEL_STUDIO_USER_TOKEN=TOKEN))
        wait_for("Label Studio", lambda: call(f"{studio}/api/projects") is not None, 180)
        print("Label Studio", call(f"{studio}/api/version")["release"])

        choices = "".join(f'<Choice value="{name}"/>' for name in (*OLD, NEW))
        config = (
            '<View><Image name="photo" value="$image"/>'
            f'<Choices name="colours" toName="photo" choice="multiple">{choices}</Choices></View>'
        )
        project = call(f"{studio}/api/projects", {"title": "Colours", "label_config": config})["id"]
        for file in second:
            call(f"{studio}/api/projects/{project}/import", form=[file])
        print(f"project {project} with {len(second)} photos")

        ours = f"http://127.0.0.1:{free_port()}"
        words = [*mlcil, "serve", tagger, "--port", ours.rpartition(":")[2], "--label-studio", studio]
        words += ["--project", str(project), "--reviewed", NEW]
        server = stack.enter_context(program(words, folder / "serve.log", LABEL_STUDIO_API_KEY=TOKEN))
        wait_for("mlcil serve", lambda: call(f"{ours}/health", token=None))
        backend = {"url": ours, "project": project, "title": "mlcil", "auth_method": "NONE"}
        state = call(f"{studio}/api/ml", backend)
        print(f"backend {state['url']}: {state.get('readable_state')}, version {state.get('model_version')}")

        before = predictions(studio, project)
        assert len(before) == len(second), f"{len(before)} of {len(second)} photos have predictions"
        assert {version for _, version, _ in before.values()} == {"colours"}, before
        assert not any(NEW in found for *_, found in before.values())
        print(f"before: {right(before, second, OLD):.0%} of {', '.join(OLD)} are right; {NEW} is not known")

        hook = {"url": f"{ours}/webhook", "project": project, "send_payload": True, "send_for_all_actions": False}
        call(f"{studio}/api/webhooks?project={project}", {**hook, "actions": ["ANNOTATION_CREATED"]})
        annotated = dict(list(second.items())[:30])
        began = time.monotonic()
        for file, there in annotated.items():
            result = {"from_name": "colours", "to_name": "photo", "type": "choices", "value": {"choices": there}}
            call(f"{studio}/api/tasks/{before[file.name][0]}/annotations", {"result": [result] if there else []})
        print(f"{len(annotated)} photos are annotated")

        def learnt():
            said = call(f"{ours}/health", token=None)
            return said if not said["learning"]["working"] and str(len(annotated)) in said["learning"]["last"] else None

        said = wait_for("a version of all annotations", learnt, 300)
        print(f"after {time.monotonic() - began:.0f} seconds: {said['learning']['last']}")
        after = predictions(studio, project)
        rest = {file: there for file, there in second.items() if file not in annotated}
        assert {version for _, version, _ in after.values()} == {said["model_version"]}, after
        known = [file for file in rest if NEW in after[file.name][2]]
        assert known, f"no photo is tagged {NEW}"
        assert all(set(after[name][2]) - {NEW} == set(before[name][2]) for name in before), "old labels changed"
        print(f"after: {right(after, rest, [NEW]):.0%} of {NEW} are right on the {len(rest)} photos not annotated")
        server.terminate()
        print(f"the server ends with code {server.wait(30)}")
        assert server.returncode == 0


if __name__ == "__main__":
    main()
