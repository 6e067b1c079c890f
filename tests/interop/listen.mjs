import { createServer } from "node:http";

/** Serves `handler` on a free loopback port; resolves with its address. */
export function listen(handler) {
  return new Promise((resolve, reject) => {
    const server = createServer(handler);
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${server.address().port}`));
  });
}
