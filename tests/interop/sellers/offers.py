"""What the sellers written in Python charge, and what they are told. offers.mjs says the same."""

import json
import os

from x402.mechanisms.evm.exact import ExactEvmServerScheme
from x402.mechanisms.evm.upto import UptoEvmServerScheme

# Set by world.mjs.
CONFIG = json.loads(os.environ["INTEROP_SELLER"])
NETWORK, PAY_TO, SELLER = CONFIG["network"], CONFIG["payTo"], CONFIG["seller"]

EVENTS = [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"]


def _offer(price, scheme="exact"):
    return {
        "scheme": scheme,
        "price": price,
        "network": NETWORK,
        "payTo": PAY_TO,
        "maxTimeoutSeconds": 60,
    }


def _route(description, mime_type, *accepts):
    return {"accepts": list(accepts), "description": description, "mimeType": mime_type}


PAID_ROUTES = {
    "GET /report": _route("A report", "application/json", _offer("$0.01")),
    "POST /echo": _route("The request's own body", "application/octet-stream", _offer("$0.02")),
    "GET /stream": _route("Three events", "text/event-stream", _offer("$0.01")),
    "GET /fail": _route("A handler that fails", "application/json", _offer("$0.01")),
    "GET /dear": _route("A dear report", "application/json", _offer("$2.00")),
    "GET /several": _route(
        "A report with several offers, the dear one first",
        "application/json",
        _offer("$1.50"),
        _offer("$0.01"),
        _offer("$0.05", "upto"),
    ),
}


def register_schemes(server):
    """Registers what the offers need with a resource server, async or sync."""
    server.register(NETWORK, ExactEvmServerScheme())
    server.register(NETWORK, UptoEvmServerScheme())
    return server


def announce(port, path=""):
    """Tells world.mjs where this seller listens."""
    print(json.dumps({"url": f"http://127.0.0.1:{port}{path}"}), flush=True)
