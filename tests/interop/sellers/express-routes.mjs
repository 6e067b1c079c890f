// What both Express sellers serve once the middleware before them is content.
import express from "express";
import { EVENTS } from "./offers.mjs";

export function serveRoutes(app, seller) {
  app.get("/free", (_, res) => res.json({ free: true }));
  app.get("/report", (_, res) => res.json({ report: "ok", seller }));
  app.get("/dear", (_, res) => res.json({ report: "dear", seller }));
  app.get("/fail", (_, res) => res.status(500).json({ error: "the handler failed" }));

  // `type: () => true` takes every body as it is; `send` must not add a charset to the type.
  app.post("/echo", express.raw({ type: () => true, limit: "10mb" }), (req, res) => {
    const body = Buffer.isBuffer(req.body) ? req.body : Buffer.alloc(0);
    res.setHeader("content-type", req.headers["content-type"] ?? "application/octet-stream");
    res.end(body);
  });

  app.get("/stream", (_, res) => {
    res.setHeader("content-type", "text/event-stream");
    for (const event of EVENTS) res.write(event);
    res.end();
  });
}
