// A facilitator's bazaar: what is listed is what was bought, as the official package reads it out of the payment.
// The package brings the reading and the checks, and the types of the answers; a facilitator brings the shelf.
import { extractDiscoveryInfo } from "@x402/extensions/bazaar";

/** Serves `/discovery/resources` and `/discovery/search`; returns what is to be told of every settlement. */
export function serveBazaar(app) {
  const shelf = new Map();

  app.get("/discovery/resources", (req, res) => {
    const { type, network, payTo, scheme } = req.query;
    const wanted = { network, payTo, scheme };
    const offers = (item) =>
      item.accepts.some((offer) => Object.entries(wanted).every(([key, value]) => !value || offer[key] === value));
    const found = [...shelf.values()].filter((item) => (!type || item.type === type) && offers(item));
    const limit = Math.min(Number(req.query.limit ?? 20), 100);
    const offset = Number(req.query.offset ?? 0);
    const items = found.slice(offset, offset + limit);
    res.json({ x402Version: 2, items, pagination: { limit, offset, total: found.length } });
  });

  app.get("/discovery/search", (req, res) => {
    const words = String(req.query.query ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (item) => words.some((word) => JSON.stringify(item).toLowerCase().includes(word));
    res.json({ x402Version: 2, resources: [...shelf.values()].filter(fits), partialResults: false, pagination: null });
  });

  return (paymentPayload, paymentRequirements) => {
    const found = extractDiscoveryInfo(paymentPayload, paymentRequirements);
    if (!found) return;
    const { resourceUrl, x402Version, discoveryInfo, method, toolName, description, mimeType, extensions } = found;
    const { serviceName, tags } = found;
    shelf.set(`${method ?? toolName} ${resourceUrl}`, {
      resource: resourceUrl,
      type: discoveryInfo.input.type,
      x402Version,
      accepts: [paymentRequirements],
      lastUpdated: new Date().toISOString(),
      ...Object.fromEntries(
        Object.entries({ description, mimeType, serviceName, tags, extensions }).filter(([, value]) => value !== undefined),
      ),
    });
  };
}
