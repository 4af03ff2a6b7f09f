"""Builds the files of a release: auditable binaries, a bill of materials for each, and checksums.

    release/build                      all functions for arm64 and x86_64; needs a clean checkout
                                       and an x86-64 machine
    release/build --try DocsNotFound   one function for this machine, without optimization

Writes to target/release-<version>/, or with `--try` to target/release-try/:

    guard-tokens-<version>-<architecture>.tar.gz
        template and binaries; unpack it for `sam deploy --template-file`
    sbom/<function>-<architecture>.cdx.json
        the function's bill of materials, in CycloneDX 1.5
    SHA256SUMS
        checksums of these files and of each binary

`sam build` compiles through cargo-auditable, which embeds the list of crates in each binary. `cargo
audit bin` and scanners read it there. This script reads the list back from every binary, in case
stripping or the linker dropped it, and checks that the bill of materials contains all of it.

Needs cargo, the tools of .ci/requirements-deploy.txt on the path, and both compiler targets (rustup
target add). Installs cargo-auditable and cargo-cyclonedx into target/tools, at the versions below.
"""

import argparse
import gzip
import hashlib
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tarfile
import tomllib
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
TOOLS = TARGET / "tools"
CRATES = {"cargo-auditable": "0.7.7", "cargo-cyclonedx": "0.5.9"}
TRIPLES = {"arm64": "aarch64-unknown-linux-gnu", "x86_64": "x86_64-unknown-linux-gnu"}
# e_machine in the ELF header. Nothing before Lambda itself would refuse a binary for the wrong
# processor.
MACHINES = {"arm64": 183, "x86_64": 62}
SECTION = b".dep-v0"


def run(*command, **more):
    """Prints and runs a command; ends this script if it fails."""
    print("$", *command, flush=True)
    done = subprocess.run([str(part) for part in command], cwd=ROOT, check=False, **more)
    if done.returncode:
        sys.exit(f"release/build: {command[0]} failed with exit code {done.returncode}")
    return done


def output(*command):
    """Runs a command and returns what it prints."""
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def packages():
    """Maps the workspace's crates to their manifests."""
    metadata = json.loads(output("cargo", "metadata", "--no-deps", "--format-version", "1"))
    return {package["name"]: Path(package["manifest_path"]) for package in metadata["packages"]}


def install_tools():
    """Installs the cargo subcommands, with the dependencies that their lock files pin."""
    for crate, version in CRATES.items():
        run("cargo", "install", "--locked", "--quiet", "--root", TOOLS, "--version", version, crate)


def build(architecture, folder, only, quick):
    """Compiles functions with `sam build`, run by cargo-auditable in place of cargo: all builds
    become auditable."""
    env = os.environ | {
        "PATH": f"{TOOLS / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "CARGO": shutil.which("sam") or sys.exit("release/build: sam is not on the path"),
        "CARGO_TARGET_DIR": str(TARGET),
        "CARGO_INCREMENTAL": "0",
        "SAM_CLI_TELEMETRY": "0",
    }
    profile = {"OPT_LEVEL": "0"} if quick else {"LTO": "fat", "CODEGEN_UNITS": "1"}
    env |= {f"CARGO_PROFILE_RELEASE_{name}": value for name, value in profile.items()}
    options = ["--build-dir", folder, "--parameter-overrides", f"Architecture={architecture}"]
    run(TOOLS / "bin" / "cargo-auditable", "auditable", "build", *only, *options, env=env)
    return {path.parent.name: path for path in sorted(folder.glob("*/bootstrap"))}


def embedded(binary, architecture):
    """Reads the crates that a binary lists, as pairs of name and version."""
    data = binary.read_bytes()
    assert data[:6] == b"\x7fELF\x02\x01", f"{binary} is not a 64-bit little-endian ELF binary"
    machine = struct.unpack_from("<H", data, 18)[0]
    assert machine == MACHINES[architecture], f"{binary} is for the wrong processor: e_machine is {machine}"
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    sections = [struct.unpack_from("<IIQQQQ", data, table + size * number) for number in range(count)]
    for name, _, _, _, offset, length in sections:
        begin = sections[names][4] + name
        if data[begin : data.index(b"\0", begin)] == SECTION:
            packages = json.loads(zlib.decompress(data[offset : offset + length]))["packages"]
            # The list includes build dependencies, which are not in the binary.
            return {(part["name"], part["version"]) for part in packages if part.get("kind", "runtime") == "runtime"}
    sys.exit(f"release/build: {binary} does not list its crates: it has no section {SECTION.decode()}")


def bills(architecture):
    """Creates the bills of materials of the whole workspace, and returns them by crate."""
    triple = TRIPLES[architecture]
    options = ["--format", "json", "--spec-version", "1.5", "--target", triple, "--quiet"]
    # With the commit's time, the output is the same for the same commit.
    env = os.environ | {"SOURCE_DATE_EPOCH": output("git", "log", "-1", "--format=%ct").strip()}
    run(TOOLS / "bin" / "cargo-cyclonedx", "cyclonedx", *options, env=env)
    made = {}
    for name, manifest in packages().items():
        path = manifest.with_name(f"{name}.cdx.json")  # where cargo-cyclonedx writes
        # References to our own crates contain this machine's paths.
        made[name] = json.loads(path.read_text().replace(f"file://{ROOT}", "file:///guard-tokens"))
        path.unlink()
    return made


def archive(folder, path):
    """Packs a folder reproducibly: the same files give the same bytes."""

    def plain(entry):
        entry.mtime = entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", 9, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for inside in sorted(folder.rglob("*")):
            if inside.is_file():
                tar.add(inside, inside.relative_to(folder.parent), filter=plain)


def sum_of(path):
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main():
    """Builds the release of the version in Cargo.toml."""
    parser = argparse.ArgumentParser(prog="release/build", description="Builds the files of a release.")
    parser.add_argument("--try", dest="only", metavar="FUNCTION", help="build only this function, without optimization")
    only = parser.parse_args().only
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    here = {"aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "x86_64")
    if not only and here != "x86_64":
        sys.exit("release/build: the SAM CLI cannot build for x86-64 on arm64; run this on an x86-64 machine")
    out = TARGET / ("release-try" if only else f"release-{version}")
    if not only and output("git", "status", "--porcelain"):
        sys.exit("release/build: there are uncommitted changes; a release is built from a commit")
    install_tools()
    run("cargo", "fetch", "--locked")
    shutil.rmtree(out, ignore_errors=True)
    (out / "sbom").mkdir(parents=True)
    sums = {}
    for architecture in [here] if only else TRIPLES:
        folder = out / f"guard-tokens-{version}-{architecture}"
        built = build(architecture, folder, [only] if only else [], bool(only))
        made = bills(architecture)
        # The template names a function after its crate, in PascalCase.
        crates = {"".join(word.capitalize() for word in name.split("-")): name for name in packages()}
        for function, binary in built.items():
            name = crates[function]
            listed = {(part["name"], part["version"]) for part in made[name]["components"]}
            inside = embedded(binary, architecture)
            missing = sorted(inside - listed - {(name, version)})
            assert not missing, f"{function} contains crates that are missing in its bill of materials: {missing}"
            bill = out / "sbom" / f"{name}-{architecture}.cdx.json"
            bill.write_text(json.dumps(made[name], indent=1) + "\n")
            sums[bill.relative_to(out)] = sum_of(bill)
            sums[binary.relative_to(out)] = sum_of(binary)
            print(f"{name} ({architecture}): the bill of materials lists all {len(inside)} crates of the binary")
        packed = out / f"{folder.name}.tar.gz"
        archive(folder, packed)
        sums[packed.relative_to(out)] = sum_of(packed)
    (out / "SHA256SUMS").write_text("".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items())))
    print(f"{out}: {len(sums)} files in SHA256SUMS")


if __name__ == "__main__":
    main()
