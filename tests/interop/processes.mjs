// Child processes that cannot outlive the world.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const children = new Set();
let stopping = false;

/**
 * Starts a command and resolves with the first value `ready(line)` finds in its standard output.
 * Everything the child says goes to our stderr, marked with its name.
 *
 * `setpriv --pdeathsig` makes the kernel end the child even when this process is killed outright
 * and can clean up nothing. A child that ends by itself is reported to `onExit`.
 */
export function start(name, command, args, { ready, onExit, env = {} }) {
  return new Promise((resolve, reject) => {
    const child = spawn("setpriv", ["--pdeathsig", "KILL", command, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...env },
    });
    children.add(child);
    const log = (line) => process.stderr.write(`[${name}] ${line}\n`);
    let isReady = false;
    createInterface({ input: child.stdout }).on("line", (line) => {
      log(line);
      const found = isReady ? undefined : ready(line);
      if (found !== undefined && found !== null) {
        isReady = true;
        resolve(found);
      }
    });
    createInterface({ input: child.stderr }).on("line", log);
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      children.delete(child);
      if (stopping) return;
      const error = new Error(`${name} ended by itself (${signal ?? `exit code ${code}`})`);
      if (isReady) onExit(error);
      else reject(error);
    });
  });
}

/** Ends every child and resolves when the last is gone. */
export async function stopAll() {
  stopping = true;
  await Promise.all(
    [...children].map((child) => {
      const gone = new Promise((resolve) => child.once("exit", resolve));
      // Nothing here has state worth saving, and KILL cannot be ignored.
      child.kill("SIGKILL");
      return gone;
    }),
  );
}
