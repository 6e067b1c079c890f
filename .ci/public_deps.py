"""Lists the crates whose types are part of bursar's public API, from rustdoc's JSON, and compares them with the README.

Usage: `python3 .ci/public_deps.py target/doc/bursar.json`. The README names them in one line that begins with
"Public dependencies:", each in backticks.
"""

import json
import re
import sys
from pathlib import Path

STANDARD = {"std", "core", "alloc", "proc_macro"}
# Crates that users know by the name of another one.
FACADES = {"serde_core": "serde"}


def main(path):
    doc = json.loads(Path(path).read_text())
    index, paths, crates = doc["index"], doc["paths"], doc["external_crates"]
    found = {}

    def note(identifier, where):
        target = paths.get(str(identifier))
        if target and target["crate_id"]:
            crate = crates[str(target["crate_id"])]["name"]
            crate = FACADES.get(crate, crate)
            if crate not in STANDARD:
                found.setdefault(crate, set()).add(f"{'::'.join(target['path'])} in {where}")

    def walk(value, where):
        """Notes every type and trait that a signature names."""
        if isinstance(value, dict):
            if isinstance(value.get("id"), int) and "path" in value and "args" in value:
                note(value["id"], where)
            for key, inner in value.items():
                if key not in ("docs", "attrs", "links", "span"):
                    walk(inner, where)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, where)

    seen = set()

    def visit(identifier, where, forced=False):
        if identifier in seen:
            return
        item = index.get(str(identifier))
        if item is None or item["crate_id"] != 0:
            return
        seen.add(identifier)
        if "#[doc(hidden)]" in str(item["attrs"]):
            return
        if item["visibility"] not in ("public", "default") and not forced:
            return
        kind, inner = next(iter(item["inner"].items()))
        name = f"{where}::{item['name']}" if item["name"] else where
        if kind == "module":
            for child in inner["items"]:
                visit(child, name)
        elif kind == "use":
            if inner["id"] is not None:
                note(inner["id"], name)
                visit(inner["id"], where)
        elif kind in ("struct", "enum", "union", "trait"):
            walk(inner.get("generics"), name)
            if kind == "trait":
                walk(inner["bounds"], name)
                for child in inner["items"]:
                    visit(child, name, True)
                return
            if kind == "enum":
                for child in inner["variants"]:
                    visit(child, name, True)
            else:
                shape = inner["kind"]
                fields = shape.get("plain", {}).get("fields", []) if isinstance(shape, dict) else []
                fields = fields or (shape.get("tuple") or [] if isinstance(shape, dict) else [])
                for child in filter(None, fields):
                    visit(child, name)
            for child in inner["impls"]:
                block = index[str(child)]["inner"]["impl"]
                if block["is_synthetic"] or block["blanket_impl"] is not None:
                    continue
                walk(block["generics"], name)
                if block["trait"]:
                    walk(block["trait"], name)
                    for part in block["items"]:
                        if index.get(str(part), {}).get("crate_id") == 0 and "assoc_type" in index[str(part)]["inner"]:
                            walk(index[str(part)]["inner"], name)
                else:
                    for part in block["items"]:
                        visit(part, name)
        elif kind == "variant":
            shape = inner["kind"]
            if isinstance(shape, dict):
                fields = shape.get("tuple") or shape.get("struct", {}).get("fields", [])
                for child in filter(None, fields):
                    visit(child, name, True)
        else:
            walk(inner, name)

    visit(doc["root"], "")
    listed = re.search(r"^(?:\* )?Public dependencies: (.*)$", Path("README.md").read_text(), re.M)
    listed = {name.replace("-", "_") for name in re.findall(r"`([\w-]+)`", listed[1])} if listed else set()
    for crate in sorted(found):
        print(f"  {crate}: {sorted(found[crate])[0].strip(':')} and {len(found[crate]) - 1} more")
    missing, extra = found.keys() - listed, listed - found.keys()
    if missing or extra:
        print(f"! the README does not list {sorted(missing)}; it lists {sorted(extra)}, which the API does not use")
    return 1 if missing or extra else 0


sys.exit(main(sys.argv[1]))
