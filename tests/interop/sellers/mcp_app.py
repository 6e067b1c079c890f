"""A Model Context Protocol server with a free and a paid tool, over streamable HTTP at /mcp."""

import socket

import uvicorn
from mcp.server.fastmcp import FastMCP
from offers import CONFIG, NETWORK, PAY_TO, SELLER, announce, register_schemes
from x402 import x402ResourceServer
from x402.http import FacilitatorConfig, HTTPFacilitatorClient
from x402.mcp import create_payment_wrapper
from x402.schemas import ResourceConfig

facilitator = HTTPFacilitatorClient(FacilitatorConfig(url=CONFIG["facilitator"]))
server = register_schemes(x402ResourceServer(facilitator))
server.initialize()
paid = create_payment_wrapper(
    server,
    accepts=server.build_payment_requirements(
        ResourceConfig(
            scheme="exact", price="$0.01", network=NETWORK, pay_to=PAY_TO, max_timeout_seconds=60
        )
    ),
)

mcp = FastMCP("interop", stateless_http=True)


@mcp.tool()
async def free() -> dict:
    return {"free": True}


@mcp.tool()
@paid
async def report(topic: str = "nothing") -> dict:
    return {"report": "ok", "seller": SELLER, "topic": topic}


if __name__ == "__main__":
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    announce(listener.getsockname()[1], "/mcp")
    app = mcp.streamable_http_app()
    uvicorn.Server(uvicorn.Config(app, log_level="info")).run(sockets=[listener])
