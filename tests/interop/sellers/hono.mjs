import { getRequestListener } from "@hono/node-server";
import { paymentMiddleware, setSettlementOverrides, x402ResourceServer } from "@x402/hono";
import { Hono } from "hono";
import { listen } from "../listen.mjs";
import { EVENTS, paidRoutes, permit2Answer, permit2Routes, resourceServer } from "./offers.mjs";

export function startHono({ facilitator, payTo, seller }) {
  const app = new Hono();
  const throughPermit2 = permit2Routes(payTo);
  const paid = { ...paidRoutes(payTo), ...throughPermit2 };
  app.use(paymentMiddleware(paid, resourceServer(x402ResourceServer, facilitator)));
  for (const path of Object.keys(throughPermit2).map((route) => route.split(" ")[1])) {
    app.get(path, (c) => {
      const { answer, charge } = permit2Answer(seller, path, c.req.query());
      if (charge) setSettlementOverrides(c, charge);
      return c.json(answer);
    });
  }
  app.get("/free", (c) => c.json({ free: true }));
  app.get("/report", (c) => c.json({ report: "ok", seller }));
  app.get("/dear", (c) => c.json({ report: "dear", seller }));
  app.get("/several", (c) => c.json({ report: "several", seller }));
  app.get("/fail", (c) => c.json({ error: "the handler failed" }, 500));
  app.post("/echo", async (c) =>
    c.body(await c.req.arrayBuffer(), 200, {
      "content-type": c.req.header("content-type") ?? "application/octet-stream",
    }),
  );
  app.get("/stream", (c) => {
    const events = new ReadableStream({
      start(controller) {
        for (const event of EVENTS) controller.enqueue(new TextEncoder().encode(event));
        controller.close();
      },
    });
    return c.body(events, 200, { "content-type": "text/event-stream" });
  });
  return listen(getRequestListener(app.fetch));
}
