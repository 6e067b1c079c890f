// Checks the page of a report in headless Chromium, in light and dark mode, narrow and wide.
//
// node cli/tests/page.mjs PAGE.html|URL REPORT.json [SCREENSHOTS]
//
// With the URL that `bursar report --serve` prints, it also checks that the page loads itself again and that its address
// loses the token.
//
// The script speaks the DevTools protocol over a pipe, so no port is opened and nothing is installed.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [page, reportFile, pictures] = process.argv.slice(2);
const report = JSON.parse(readFileSync(reportFile, "utf8"));
const live = page.startsWith("http://");
const address = live ? page : pathToFileURL(page).href;
const isOwn = (url) => (live ? new URL(url).origin === new URL(address).origin && new URL(url).pathname === "/" : url === address);
const faults = [];
const expect = (holds, fault) => holds || faults.push(fault);

const profile = mkdtempSync(join(tmpdir(), "bursar-page-"));
const chromium = spawn(
  process.env.CHROMIUM ?? "chromium",
  [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", `--user-data-dir=${profile}`, "--remote-debugging-pipe", "about:blank",
  ],
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
);
const died = new Promise((_, reject) => {
  chromium.on("error", reject);
  chromium.on("exit", (code) => reject(new Error(`chromium ended with ${code}`)));
});
died.catch(() => {});

const waiting = new Map();
const listeners = [];
let unread = "";
chromium.stdio[4].on("data", (bytes) => {
  unread += bytes;
  const messages = unread.split("\0");
  unread = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) {
    if (message.id) waiting.get(message.id)(message);
    else listeners.forEach((listener) => listener(message));
  }
});
let count = 0;
function send(method, params = {}, sessionId = undefined) {
  const id = ++count;
  const answer = new Promise((resolve, reject) => {
    waiting.set(id, (message) =>
      message.error ? reject(new Error(`${method}: ${message.error.message}`)) : resolve(message.result));
  });
  chromium.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
  return Promise.race([answer, died]);
}
const event = (name, session) =>
  Promise.race([
    died,
    new Promise((resolve) => listeners.push((m) => m.method === name && m.sessionId === session && resolve(m.params))),
  ]);

// Runs in the page, which has no script of its own.
function look() {
  const problems = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) {
    const wide = [...document.querySelectorAll("body *")].filter(
      (e) => e.getBoundingClientRect().right > root.clientWidth + 1 && !e.closest(".scroll"));
    problems.push(`overflows: ${root.scrollWidth} > ${root.clientWidth}: ${wide.slice(0, 3).map((e) => e.outerHTML.slice(0, 80))}`);
  }
  const channels = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const shown = (e) => e.checkVisibility() && e.getClientRects().length > 0;
  let texts = 0;
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !shown(e) || ["TITLE", "DESC", "title", "desc"].includes(e.tagName)) continue;
    texts += 1;
    const style = getComputedStyle(e);
    const ink = channels(e.tagName === "text" ? style.fill : style.color).slice(0, 3);
    const ratio = contrast(ink, ground(e));
    if (ratio < 4.5) problems.push(`contrast ${ratio.toFixed(2)}: ${e.outerHTML.slice(0, 100)}`);
  }
  for (const bar of document.querySelectorAll("svg rect, svg polygon")) {
    const fill = bar.getAttribute("fill");
    if (!shown(bar) || !["#1F6FB2", "#D97706"].includes(fill)) continue;
    const ratio = contrast(channels(getComputedStyle(bar).fill).slice(0, 3), ground(bar));
    if (ratio < 3) problems.push(`contrast of a bar ${ratio.toFixed(2)}`);
  }
  const charts = [...document.querySelectorAll("svg")].filter(shown);
  for (const svg of charts) {
    const named = (svg.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => document.getElementById(id)?.textContent);
    if (svg.getAttribute("role") !== "img" || named.length !== 2 || named.some((text) => !text)) problems.push("a chart without a name");
    const box = svg.getBoundingClientRect();
    for (const text of svg.querySelectorAll("text")) {
      const at = text.getBoundingClientRect();
      if (at.left < box.left - 1 || at.right > box.right + 1 || at.top < box.top - 1 || at.bottom > box.bottom + 1) {
        problems.push(`cut off in a chart: ${text.textContent.trim()}`);
      }
      if (at.height < 8) problems.push(`too small in a chart: ${text.textContent.trim()}`);
    }
    if (!svg.closest("section")?.querySelector("table")) problems.push("a chart without a table");
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size !== ids.length) problems.push("two elements have the same id");
  const figures = Object.fromEntries([...document.querySelectorAll("[data-figure]")].map((e) => [e.dataset.figure, e.textContent]));
  return { problems, figures, texts, charts: charts.length, ground: ground(document.body).join(), scripts: document.scripts.length,
    policy: document.querySelector("meta[http-equiv]")?.content, place: location.href };
}

const dollars = (sum) => (sum.exact ? sum.usd : `≥ ${sum.usd}`);

/** The figures that the page must show, from the JSON of the report. */
function wanted() {
  const figures = {};
  for (const part of ["spent", "outstanding", "refused", "failed", "refunded"]) figures[`card.${part}.usd`] = dollars(report.total[part]);
  for (const name of ["spent", "paid", "called", "outstanding", "expired", "held", "refused", "failed", "refunded", "released", "freed"]) {
    const sum = report.total[name];
    figures[`total/${name}.usd`] = dollars(sum);
    figures[`total/${name}.count`] = String(sum.count);
  }
  for (const { by, groups } of report.sections) {
    if (!groups.some((group) => group.name !== null)) continue;
    for (const { name, tally } of groups) {
      const key = `${by}/${name ?? ""}`;
      figures[`${key}/spent.usd`] = dollars(tally.spent);
      figures[`${key}/spent.count`] = String(tally.spent.count);
      figures[`${key}/unresolved.count`] = String(tally.outstanding.count + tally.expired.count);
      figures[`${key}/refused.count`] = String(tally.refused.count);
      figures[`${key}/failed.count`] = String(tally.failed.count);
      figures[`${key}/refunded.usd`] = dollars(tally.refunded);
    }
  }
  for (const { rule, host, count } of report.denials) figures[`denied/${rule}/${host ?? "(others)"}`] = String(count);
  for (const { name, limit, used, left } of report.budget) {
    if (limit === null) continue;
    figures[`budget/${name}/used`] = used;
    figures[`budget/${name}/left`] = left;
  }
  return figures;
}

async function visit(scheme, width) {
  const where = `${scheme} ${width}px`;
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  const tell = (method, params) => send(method, params, sessionId);
  listeners.push(({ method, params, sessionId: from }) => {
    if (from !== sessionId) return;
    if (method === "Network.requestWillBeSent") expect(isOwn(params.request.url), `${where}: loads ${params.request.url}`);
    if (method === "Log.entryAdded") expect(false, `${where}: ${params.entry.text}`);
    if (method === "Runtime.exceptionThrown") expect(false, `${where}: ${params.exceptionDetails.text}`);
    if (method === "Runtime.consoleAPICalled") expect(false, `${where}: the page writes to the console`);
  });
  for (const domain of ["Network", "Log", "Runtime", "Page"]) await tell(`${domain}.enable`);
  await tell("Emulation.setDeviceMetricsOverride", { width, height: 900, deviceScaleFactor: 1, mobile: width < 500 });
  await tell("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  const loaded = event("Page.loadEventFired", sessionId);
  await tell("Page.navigate", { url: address });
  await loaded;
  const { result, exceptionDetails } = await tell("Runtime.evaluate", { expression: `(${look})()`, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  const seen = result.value;
  seen.problems.forEach((problem) => faults.push(`${where}: ${problem}`));
  const must = wanted();
  for (const [name, value] of Object.entries(must)) {
    expect(seen.figures[name] === value, `${where}: ${name} is ${seen.figures[name]}, not ${value}`);
  }
  for (const name of Object.keys(seen.figures)) expect(name in must, `${where}: ${name} is not in the report`);
  expect(seen.texts > 20, `${where}: only ${seen.texts} texts`);
  expect(report.total.spent.usd === "0.00" || seen.charts > 0, `${where}: ${seen.charts} charts`);
  expect(seen.scripts === 0 && seen.policy?.startsWith("default-src 'none'"), `${where}: scripts may run`);
  if (live) {
    expect(!seen.place.includes("token"), `${where}: the address is ${seen.place}`);
    const again = await Promise.race([
      event("Page.loadEventFired", sessionId).then(() => true),
      new Promise((resolve) => setTimeout(() => resolve(false), 20_000)),
    ]);
    expect(again, `${where}: the page does not load itself again`);
  }
  if (pictures) {
    const { data } = await tell("Page.captureScreenshot", { format: "png", captureBeyondViewport: true });
    writeFileSync(join(pictures, `${scheme}-${width}.png`), Buffer.from(data, "base64"));
  }
  await send("Target.closeTarget", { targetId });
  return seen.ground;
}

const timeLimit = setTimeout(() => {
  console.error("chromium took longer than two minutes");
  chromium.kill();
}, 120_000);
try {
  const grounds = {};
  for (const scheme of ["light", "dark"]) {
    for (const width of [360, 1280]) grounds[`${scheme} ${width}`] = await visit(scheme, width);
  }
  expect(grounds["light 360"] !== grounds["dark 360"], "light and dark are the same");
} catch (error) {
  faults.push(String(error.stack ?? error));
} finally {
  clearTimeout(timeLimit);
  chromium.removeAllListeners("exit");
  const gone = new Promise((resolve) => chromium.on("exit", resolve));
  // If asked to close, Chromium first ends its own processes. If killed, it would leave them running.
  send("Browser.close").catch(() => chromium.kill());
  if (chromium.exitCode === null) await gone;
  await rm(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}
faults.forEach((fault) => console.error(fault));
console.log(faults.length ? `${faults.length} faults` : "the page is correct in light and dark mode, narrow and wide");
process.exit(faults.length ? 1 : 0);
