#!/usr/bin/env python3
"""Prints, as Markdown, under which licence each crate comes that is linked into weir, and the licence texts that they bring.

Reads `cargo metadata`. Fails on a crate that says no licence, or one that is not among ALLOWED.
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Each of them lets a program that is linked with the crate be passed on under its own licence.
ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CDLA-Permissive-2.0", "ISC",
    "MIT", "MIT-0", "MPL-2.0", "OpenSSL", "Unicode-3.0", "Unlicense", "Zlib", "bzip2-1.0.6",
}  # fmt: skip


def is_allowed(expression: str) -> bool:
    """Whether one way to read an SPDX expression is allowed: an AND needs every part, an OR one."""
    expression = expression.replace("/", " OR ").replace("(", " ").replace(")", " ")
    return any(all(part.strip() in ALLOWED for part in way.split(" AND ")) for way in expression.split(" OR "))


def linked() -> list[dict]:
    """Every package that weir depends on to run, without those that only build or test it."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    seen, waiting = set(), [metadata["resolve"]["root"]]
    while waiting:
        package = waiting.pop()
        if package not in seen:
            seen.add(package)
            waiting += [dep["pkg"] for dep in nodes[package]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    ours = set(metadata["workspace_members"])
    return sorted((p for p in metadata["packages"] if p["id"] in seen - ours), key=lambda p: (p["name"], p["version"]))


def texts(package: dict) -> list[str]:
    folder = pathlib.Path(package["manifest_path"]).parent
    names = sorted(path for path in folder.iterdir() if path.is_file() and path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE")))
    return [path.read_text(errors="replace").strip() for path in names]


def main() -> None:
    packages = linked()
    refused = [p for p in packages if not p["license"] or not is_allowed(p["license"])]
    if refused:
        for package in refused:
            print(f"licences: {package['name']} {package['version']}: {package['license']}", file=sys.stderr)
        raise SystemExit(1)
    print("# What weir is linked with\n\n| crate | version | licence |\n| --- | --- | --- |")
    for package in packages:
        print(f"| {package['name']} | {package['version']} | {package['license']} |")
    by_text: dict[str, list[str]] = {}
    for package in packages:
        for text in texts(package):
            by_text.setdefault(text, []).append(f"{package['name']} {package['version']}")
    for text, names in by_text.items():
        print(f"\n## {', '.join(names)}\n\n```text\n{text.replace('```', chr(39) * 3)}\n```")


main()
