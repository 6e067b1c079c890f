#!/usr/bin/env python3
"""Measures clients on hostile sellers: comparison/run.py [CLIENT...] [--without=CLIENT...]

Each client runs with its defaults against sellers of its own. What is told is what reached the wire and
the sellers' make-believe chain. Writes comparison/results.md, and the table into README.md, unless clients
are named. The packages of @x402/fetch and x402[httpx] are those that tests/interop/run installs.
"""

import datetime
import json
import os
import platform
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
PATIENCE = 120
BEGIN, END = "<!-- comparison: begin -->", "<!-- comparison: end -->"


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
    """The hostile sellers, for one client."""

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
    """Seconds, peak memory in MiB, and whether it ended by itself."""
    extra = ["--plain-http"] if plain and "compare_bursar" in command[0] else []
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        environment = {**os.environ, "BUYER_KEY": KEY}
        process = subprocess.Popen([*command, url, str(tries), *extra], env=environment, stdout=said, stderr=said)
        while True:
            pid, _, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                return time.monotonic() - began, usage.ru_maxrss // 1024, True
            if time.monotonic() - began > PATIENCE:
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
            return f"gives up after {seconds:.0f} s" if ended else f"waits more than {PATIENCE} s"
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
        raise SystemExit("the client pays not even an honest seller: nothing is measured")
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
        lines.append(f"| {case} | " + " | ".join(results[name][case] for name in names) + " |")
    return "\n".join(lines)


def main() -> None:
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
    words = (
        f"Measured on {day} ({machine}) by `comparison/run.py`: each client with its defaults, a wallet on Base Sepolia, "
        "over plain http on loopback (which bursar is told to allow but in the first row); what is told is what reached "
        "the wire. \"3 tries\" is a caller that calls three times until it succeeds."
    )
    if left_out:
        words += f" Not measured in this run: {', '.join(left_out)}."
    (HERE / "results.md").write_text(f"# Comparison\n\n{words}\n\n{text}\n")
    readme = (ROOT / "README.md").read_text()
    before, rest = readme.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    (ROOT / "README.md").write_text(f"{before}{BEGIN}\n{text}\n\n{words}\n{END}{after}")


if __name__ == "__main__":
    main()
