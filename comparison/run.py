#!/usr/bin/env python3
"""Compares HTTP clients that pay on hostile sellers.

    comparison/run.py                        measures every client
    comparison/run.py --without=CLIENT       measures all clients except this one
    comparison/run.py CLIENT...              measures these clients and prints the table only
    comparison/run.py --check                compares README.md with comparison/results.md; measures nothing

Each client runs with its default settings against sellers of its own. The table shows the payments that
reached the sellers; a client's own output is not used. A full run writes comparison/results.md, and copies the
rows of README_ROWS into README.md. tests/interop/run installs the packages of @x402/fetch and x402[httpx].
"""

import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# Anvil's account 0, published with it.
KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
PRICE = 1000
TIME_LIMIT = 120
BEGIN, END = "<!-- comparison: begin -->", "<!-- comparison: end -->"
RESULTS, README = HERE / "results.md", ROOT / "README.md"

# The text of the first column for each case of comparison/sellers.rs, and for "plain http".
ROWS = {
    "plain http": "asks for payment over plain http",
    "redirect of the payment": "redirects the payment to another origin",
    "redirect before the price": "redirects to another origin before it states a price",
    "validity of 50 years": "asks for an authorization that is valid for 50 years",
    "unknown token": "names an unknown token",
    "payee zero": "names the zero address as the payee",
    "payee is the payer": "names the payer as the payee",
    "dear offer first": "lists an expensive offer first",
    "amount 2^256-1": "asks for 2^256-1 units",
    "testnet id, mainnet token": "names a test network and a mainnet token",
    "foreign EIP-712 domain": "names a false EIP-712 domain for the token",
    "amount with a leading zero": "writes the amount with a leading zero",
    "foreign resource": "names a resource of another origin",
    "502 after payment, 3 tries": "settles and answers 502; the caller tries 3 times",
    "lost answer, 3 tries": "settles and drops the connection; the caller tries 3 times",
    "402 again": "answers the payment with another 402",
    "402 of 64 MiB": "sends a 402 of 64 MiB (peak memory of the client)",
    "hangs after payment": "settles and never answers",
}
# The rows that README.md shows.
README_ROWS = [
    "plain http",
    "redirect of the payment",
    "validity of 50 years",
    "dear offer first",
    "testnet id, mainnet token",
    "foreign EIP-712 domain",
    "502 after payment, 3 tries",
    "lost answer, 3 tries",
]
# How the clients are measured, for results.md.
METHOD = """\
* Each client runs with its default settings and pays from a wallet on Base Sepolia. bursar's policy allows that
  network.
* The sellers run on loopback over plain http. bursar is told to allow this, except in the first row.
* A cell shows the payments that reached the sellers. A client's own output is not used.
* The honest price is 0.001 USDC. A bold cell marks an unsafe result.
* "The caller tries 3 times" means that the caller repeats a failed call, up to 3 calls in all."""


def cargo(*args: str, cwd: Path = ROOT) -> None:
    subprocess.run(["cargo", *args], cwd=cwd, check=True, stdout=sys.stderr)


def target(cwd: Path = ROOT) -> Path:
    text = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version", "1", "--offline"], cwd=cwd,
                          check=True, capture_output=True, text=True).stdout
    return Path(json.loads(text)["target_directory"])


def clients() -> dict:
    interop = ROOT / "tests" / "interop"
    examples = target() / "debug" / "examples"
    bursar = [str(examples / "compare_bursar")]
    return {
        "bursar": (bursar, lambda: cargo("build", "--locked", "--example", "compare_bursar")),
        "x402-reqwest 2.0.2": ([str(target(HERE / "x402-reqwest") / "debug" / "compare-x402-reqwest")],
                               lambda: cargo("build", "--locked", cwd=HERE / "x402-reqwest")),
        "@x402/fetch 2.27.0": (["node", str(HERE / "fetch.mjs")], lambda: None),
        "x402[httpx] 2.25.0": ([str(interop / ".venv" / "bin" / "python"), str(HERE / "httpx_client.py")], lambda: None),
    }


class Sellers:
    """The hostile sellers that one client is run against."""

    def __init__(self) -> None:
        program = target() / "debug" / "examples" / "hostile_sellers"
        self.process = subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.urls = {case["name"]: case["url"] for case in json.loads(self.process.stdout.readline())}

    def saw(self, case: str) -> dict:
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def run(command: list, url: str, tries: int, plain: bool) -> tuple[float, int, bool]:
    """Runs a client. Returns the seconds, the peak memory in MiB, and whether the client ended by itself."""
    extra = ["--plain-http"] if plain and "compare_bursar" in command[0] else []
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        environment = {**os.environ, "BUYER_KEY": KEY}
        process = subprocess.Popen([*command, url, str(tries), *extra], env=environment, stdout=output, stderr=output)
        while True:
            pid, _, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                return time.monotonic() - began, usage.ru_maxrss // 1024, True
            if time.monotonic() - began > TIME_LIMIT:
                process.kill()
                _, _, usage = os.wait4(process.pid, 0)
                return time.monotonic() - began, usage.ru_maxrss // 1024, False
            time.sleep(0.02)


def cell(case: str, saw: dict, seconds: float, memory: int, ended: bool) -> str:
    here, elsewhere = saw["here"], saw["elsewhere"]
    nonces = len({payment["nonce"] for payment in here})
    value = max((int(payment["value"]) for payment in here), default=0)
    harmless = case in ("honest", "dear offer first", "foreign resource") and value <= PRICE
    paid = f"{'pays' if harmless else '**pays**'} {value / 1e6:g} USDC" if here else "refuses"
    match case:
        case "redirect of the payment":
            return "**leaks** the signature" if elsewhere else ("no leak" if here else "refuses")
        case "redirect before the price":
            return "**pays** the other" if elsewhere else "refuses"
        case "validity of 50 years" if here:
            valid = max(int(payment["validBefore"]) for payment in here) - time.time()
            return f"signs {valid / 31_536_000:.0f} years" if valid > 1e7 else f"signs at most {valid:.0f} s"
        case "502 after payment, 3 tries" | "lost answer, 3 tries" | "402 again":
            return f"{nonces} payment" if nonces == 1 else f"**{nonces} payments**"
        case "402 of 64 MiB":
            return f"{memory} MiB"
        case "hangs after payment":
            return f"gives up after {seconds:.0f} s" if ended else f"waits more than {TIME_LIMIT} s"
        case "amount 2^256-1" if here:
            return "**signs it**"
        case _:
            return paid


def measure(command: list) -> dict:
    sellers = Sellers()
    cells = {}
    try:
        for case, url in sellers.urls.items():
            seconds, memory, ended = run(command, url, 3 if "3 tries" in case else 1, True)
            cells[case] = cell(case, sellers.saw(case), seconds, memory, ended)
            print(f"  {case}: {cells[case]}", file=sys.stderr)
    finally:
        sellers.close()
    if not cells["honest"].startswith("pays"):
        raise SystemExit("the client does not pay an honest seller, so nothing can be measured")
    del cells["honest"]
    sellers = Sellers()
    run(command, sellers.urls["honest"], 1, False)
    cells = {"plain http": "**pays**" if sellers.saw("honest")["here"] else "refuses", **cells}
    sellers.close()
    return cells


def table(results: dict) -> str:
    names = list(results)
    lines = ["| the seller | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for case in next(iter(results.values())):
        lines.append(f"| {ROWS[case]} | " + " | ".join(results[name][case] for name in names) + " |")
    return "\n".join(lines)


def excerpt(results: str) -> str:
    """Returns the part of README.md that repeats the text of results.md."""
    day = re.search(r"^Measured on (\S+)", results, re.MULTILINE)[1]
    lines = [line for line in results.splitlines() if line.startswith("|")]
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
    chosen = [rows[ROWS[case]] for case in README_ROWS]
    text = "\n".join(lines[:2] + chosen)
    words = (
        f"Measured on {day} by `comparison/run.py`, each client with its default settings. "
        f"[All {len(lines) - 2} sellers, and how they are measured](comparison/results.md)."
    )
    return f"{text}\n\n{words}\n"


def split_readme() -> tuple[str, str, str]:
    before, rest = README.read_text().split(BEGIN + "\n", 1)
    shown, after = rest.split(END, 1)
    return before, shown, after


def write_readme() -> None:
    before, _, after = split_readme()
    README.write_text(f"{before}{BEGIN}\n{excerpt(RESULTS.read_text())}{END}{after}")


def check() -> None:
    _, shown, _ = split_readme()
    if shown != excerpt(RESULTS.read_text()):
        raise SystemExit("README.md does not show the rows of comparison/results.md; run comparison/run.py")


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        check()
        return
    without = [word.removeprefix("--without=") for word in sys.argv[1:] if word.startswith("--without=")]
    wanted = [word for word in sys.argv[1:] if not word.startswith("--")]
    left_out = []
    cargo("build", "--locked", "--example", "hostile_sellers")
    results = {}
    for name, (command, build) in clients().items():
        if wanted and not any(name.startswith(prefix) for prefix in wanted):
            continue
        if any(name.startswith(prefix) for prefix in without):
            left_out.append(name)
            continue
        build()
        print(name, file=sys.stderr)
        results[name] = measure(command)
    text = table(results)
    day = datetime.date.today().isoformat()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    print(text)
    if wanted:
        return
    words = f"Measured on {day} ({machine}) by `comparison/run.py`.\n\n{METHOD}"
    if left_out:
        words += f"\n* Not measured in this run: {', '.join(left_out)}."
    RESULTS.write_text(f"# Clients on hostile sellers\n\n{words}\n\n{text}\n")
    write_readme()


if __name__ == "__main__":
    main()
