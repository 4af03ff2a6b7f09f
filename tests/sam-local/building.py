"""Builds the functions with `sam build` and checks the binaries."""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from containers import run
from harness import ROOT, assert_equal
from tour import CALLED_BEFORE, SCHEDULED

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
# The newest glibc version whose symbols `provided.al2023` has.
NEWEST_GLIBC = (2, 34)
# e_machine in the ELF header.
MACHINES = {"x86_64": 62, "arm64": 183}
# Settings of the release profile for `--quick-build`, never used for a deployment.
QUICK = {"OPT_LEVEL": "0", "CODEGEN_UNITS": "256", "DEBUG": "0"}


def install_tools():
    """Installs the SAM CLI, cargo-lambda and zig if they are missing, and puts them on the path."""
    os.environ["PATH"] = f"{TARGET / 'tools/bin'}{os.pathsep}{os.environ['PATH']}"
    if not (shutil.which("sam") and shutil.which("cargo-lambda")):
        run(sys.executable, "-m", "venv", TARGET / "tools")
        pip = [TARGET / "tools/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        run(*pip, "--requirement", ROOT / ".ci/requirements-deploy.txt")


def functions():
    """Maps each function's name to its logical id in the template."""
    names = sorted(f"{path.parts[-3]}-{path.parts[-2]}" for path in ROOT.glob("functions/*/*/Cargo.toml"))
    return {name: "".join(word.capitalize() for word in name.split("-")) for name in names}


def groups():
    """The first function of each group, and the functions needed to reach them."""
    chosen = set()
    for group in sorted(path for path in (ROOT / "functions").iterdir() if path.is_dir()):
        names = {f"{path.parts[-3]}-{path.parts[-2]}" for path in group.glob("*/Cargo.toml")}
        # A group may have scheduled functions alone.
        chosen |= set(sorted(names - SCHEDULED)[:1])
    return chosen | {CALLED_BEFORE[name] for name in chosen & CALLED_BEFORE.keys()}


def changed_once(text, old, new):
    """Replaces text that must occur exactly once."""
    assert text.count(old) == 1, f"template.yaml has {old!r} {text.count(old)} times, expected once"
    return text.replace(old, new)


def template_for(chosen):
    """The template, building only the chosen functions and with variables for the endpoints of
    DynamoDB and SES.

    The SAM CLI sets only variables that the template names.
    """
    text = (ROOT / "template.yaml").read_text()
    endpoints = "".join(f'        {name}: ""\n' for name in ("AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_SESV2"))
    text = changed_once(text, "        RUST_LOG: !Ref LogLevel\n", f"        RUST_LOG: !Ref LogLevel\n{endpoints}")
    for name in functions().keys() - chosen:
        binary = f"BuildProperties: {{ Binary: {name} }}"
        text = changed_once(text, f"{binary} }}\n", f"{binary}, SkipBuild: true }}\n")
    return text


def sam_build(chosen, folder, parameters, quick):
    """Builds with the SAM CLI and returns the build folder."""
    template = folder / "template.yaml"
    template.write_text(template_for(chosen))
    env = dict(os.environ)
    if quick:
        env |= {f"CARGO_PROFILE_RELEASE_{name}": value for name, value in QUICK.items()}
    # The SAM CLI's cache would miss changes in shared/. Tests that run beside it come first.
    command = [
        "nice",
        "sam",
        "build",
        "--template",
        template,
        "--base-dir",
        ROOT,
        "--build-dir",
        folder / "build",
        "--no-cached",
    ]
    with (folder / "build.log").open("wb") as log:
        started = time.monotonic()
        print("$", *command, "--parameter-overrides", "…", flush=True)
        command += ["--parameter-overrides", *parameters]
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        status = subprocess.run([str(part) for part in command], env=env, **streams).returncode
    if status:
        sys.exit((folder / "build.log").read_text(errors="replace")[-8000:])
    print(f"{len(chosen)} functions built in {time.monotonic() - started:.0f} s", flush=True)
    return folder / "build"


def check_profile():
    """Asserts that the release profile sets what cargo-lambda would set otherwise, such as `panic =
    "abort"`."""
    profile = tomllib.loads((ROOT / "Cargo.toml").read_text())["profile"]["release"]
    missing = {"codegen-units", "lto", "panic", "strip"} - profile.keys()
    assert not missing, (
        f"[profile.release] must set {', '.join(sorted(missing))}; cargo-lambda would override the environment"
    )
    assert_equal(profile["panic"], "unwind", "panic strategy")


def check_binary(path, architecture):
    """Asserts that Lambda can start a binary. Returns its size and the newest glibc version it
    needs."""
    data = path.read_bytes()
    assert data[:4] == b"\x7fELF", "not an ELF binary"
    assert_equal(int.from_bytes(data[18:20], "little"), MACHINES[architecture], "e_machine")
    newest = max(tuple(map(int, found)) for found in re.findall(rb"GLIBC_(\d+)\.(\d+)", data))
    assert newest <= NEWEST_GLIBC, f"needs glibc {newest}, but provided.al2023 has {NEWEST_GLIBC}"
    return len(data), newest
