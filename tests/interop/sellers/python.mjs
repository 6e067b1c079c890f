// Starts a seller written in Python, which tells its address in one line on standard output.
import { fileURLToPath } from "node:url";
import { NETWORK } from "../chain.mjs";
import { start } from "../processes.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

export function startPython(script, { facilitator, payTo, seller, onExit }) {
  return start(seller, here("../.venv/bin/python"), [here(script)], {
    env: { INTEROP_SELLER: JSON.stringify({ facilitator, payTo, seller, network: NETWORK }) },
    ready: (line) => (line.startsWith("{") ? JSON.parse(line).url : undefined),
    onExit,
  });
}
